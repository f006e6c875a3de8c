"""Names to folders to models, on tiny random checkpoints in the real layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from mtadiffusion import InpaintBranch, MTAInpaintPipeline, UserError
from mtadiffusion.models import loading, registry

PARITY = Path(__file__).parent.parent / "data" / "brushnet-parity"
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.fixture
def own_backbone(backbone_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny backbone that a test may damage."""
    return Path(shutil.copytree(backbone_folder, tmp_path / "backbone"))


@pytest.fixture
def own_branch(branch_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(branch_folder, tmp_path / "branch"))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty local cache, and no way to the hub."""

    def unreachable(*_args: object, **options: object) -> str:
        if options.get("local_files_only"):
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        raise ConnectionError("network is unreachable")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)


def test_folders_give_a_pipeline_in_the_dtype_asked_for(backbone_folder: Path, branch_folder: Path) -> None:
    pipeline = registry.load_pipeline(str(backbone_folder), str(branch_folder), "bfloat16", "cpu")
    assert isinstance(pipeline, MTAInpaintPipeline)
    assert isinstance(pipeline.branch, InpaintBranch)
    assert pipeline.unet.dtype == pipeline.branch.dtype == pipeline.text_encoder.dtype == torch.bfloat16
    assert not pipeline.branch.training


def test_loaded_weights_are_those_on_disk(backbone_folder: Path, branch_folder: Path) -> None:
    pipeline = registry.load_pipeline(str(backbone_folder), str(branch_folder))
    for model, file in (
        (pipeline.unet, backbone_folder / "unet" / "diffusion_pytorch_model.safetensors"),
        (pipeline.branch, branch_folder / "diffusion_pytorch_model.safetensors"),
    ):
        stored, loaded = load_file(file), model.state_dict()
        assert stored.keys() == loaded.keys()
        assert all(torch.equal(stored[name], loaded[name]) for name in stored)


def test_branch_none_is_the_backbone_alone(backbone_folder: Path) -> None:
    assert registry.load_pipeline(str(backbone_folder), "none").branch is None


def test_automatic_dtype_on_a_cpu_is_float32() -> None:
    assert loading.torch_dtype("auto", torch.device("cpu")) == torch.float32


def test_official_brushnet_folder_loads_as_a_residual_branch(tmp_path: Path) -> None:
    config = json.loads((PARITY / "brushnet_config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "BrushNetModel"}))
    shutil.copy(PARITY / "brushnet.safetensors", tmp_path / "diffusion_pytorch_model.safetensors")
    assert loading.load_branch(tmp_path, torch.float32).config.block == "residual"


def test_branch_that_does_not_fit_names_both_widths(backbone_folder: Path, tmp_path: Path) -> None:
    config = UNet2DConditionModel.load_config(backbone_folder / "unet")
    other = UNet2DConditionModel.from_config({**config, "block_out_channels": (8, 16, 16, 16)})
    InpaintBranch.from_unet(other).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"\(16, 32, 32, 32\), got \(8, 16, 16, 16\)"):
        registry.load_pipeline(str(backbone_folder), str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stiker", "--model is no known backbone, got 'stiker'; did you mean 'sticker'?"),
        ("", "--model is no known backbone, got ''; known names: .*sticker"),
        ("./absent", "--model must be an existing folder, got './absent'; there is no such folder"),
        ("a/b/c", "--model must be an existing folder, got 'a/b/c'"),
    ],
)
def test_unknown_backbone_is_told_what_there_is(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.resolve_backbone(name)


def test_unknown_branch_is_offered_the_nearest_name() -> None:
    with pytest.raises(
        UserError, match="--branch is no known branch, got 'stickers'; did you mean 'sticker'"
    ):
        registry.resolve_branch("stickers")


def test_backbone_without_a_branch_of_its_own_needs_one_named(backbone_folder: Path) -> None:
    with pytest.raises(UserError, match=r"--branch is needed with --model .*'none' for the backbone alone"):
        registry.load_pipeline(str(backbone_folder))


@pytest.mark.parametrize(("part", "stem"), [("unet", "diffusion_pytorch_model"), ("text_encoder", "model")])
def test_pickle_where_safetensors_belong_is_refused_unread(own_backbone: Path, part: str, stem: str) -> None:
    weights = own_backbone / part / f"{stem}.safetensors"
    weights.rename(own_backbone / part / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"--model must hold safetensors, not the pickle pytorch_model\.bin"):
        registry.load_pipeline(str(own_backbone), "none")


def test_pickled_branch_is_refused_unread(own_branch: Path) -> None:
    weights = own_branch / "diffusion_pytorch_model.safetensors"
    weights.rename(own_branch / "diffusion_pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"--branch must hold safetensors, not the pickle diffusion_pytorch_model\.bin"
    ):
        registry.resolve_branch(str(own_branch))


@pytest.mark.parametrize("resolve", [registry.resolve_backbone, registry.resolve_branch])
def test_a_pickled_checkpoint_file_is_refused_unread(resolve: Callable[[str], Path], tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"x")
    with pytest.raises(UserError, match=r"must be a folder or a \.safetensors file.*can run foreign code"):
        resolve(str(file))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model_index.json", "--model lacks model_index.json"),
        ("vae/config.json", "--model lacks config.json, got '.*vae'"),
        ("vae/diffusion_pytorch_model.safetensors", "--model lacks diffusion_pytorch_model.safetensors"),
        ("scheduler/scheduler_config.json", "--model lacks scheduler_config.json"),
    ],
)
def test_incomplete_backbone_names_what_it_lacks(own_backbone: Path, missing: str, message: str) -> None:
    (own_backbone / missing).unlink()
    with pytest.raises(UserError, match=message):
        registry.resolve_backbone(str(own_backbone))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("text_encoder_2/config.json", "--model lacks config.json, got '.*text_encoder_2"),
        ("text_encoder_2/model.safetensors", "--model lacks model.safetensors"),
        ("tokenizer_2/tokenizer.json", "--model lacks its tokenizer, got '.*tokenizer_2"),
    ],
)
def test_an_sdxl_folder_needs_both_of_its_encoders(
    sdxl_folder: Path, tmp_path: Path, missing: str, message: str
) -> None:
    own = Path(shutil.copytree(sdxl_folder, tmp_path / "sdxl"))
    assert registry.resolve_backbone(str(own)) == own
    (own / missing).unlink()
    with pytest.raises(UserError, match=message):
        registry.resolve_backbone(str(own))


def test_a_fine_tune_published_in_half_precision_alone_is_loaded(own_backbone: Path) -> None:
    for file in own_backbone.rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    parts = loading.load_components(registry.resolve_backbone(str(own_backbone)), torch.float32)
    stored = load_file(own_backbone / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert torch.equal(parts["unet"].state_dict()["conv_in.weight"], stored["conv_in.weight"])


def in_pieces(folder: Path, variant: str | None = None) -> None:
    """Write the networks of a backbone's folder again in files of a few kB with an index."""
    for name, network in loading.load_components(folder, torch.float32).items():
        if isinstance(network, torch.nn.Module):
            for file in (folder / name).glob("*.safetensors"):
                file.unlink()
            network.save_pretrained(folder / name, max_shard_size="30KB", variant=variant)
            assert len(list((folder / name).glob("*-of-*.safetensors"))) > 1


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_weights_in_several_files_are_loaded_whole_or_refused(
    own_backbone: Path, variant: str | None
) -> None:
    stored = load_file(own_backbone / "unet" / "diffusion_pytorch_model.safetensors")
    in_pieces(own_backbone, variant)
    path = registry.resolve_backbone(str(own_backbone))
    loaded = loading.load_components(path, torch.float32)["unet"].state_dict()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    next((own_backbone / "text_encoder").glob("*-of-*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"--model lacks model.*-of-.*safetensors, got '.*text_encoder'"):
        registry.resolve_backbone(str(own_backbone))


def test_an_index_that_names_files_elsewhere_is_refused(own_backbone: Path) -> None:
    in_pieces(own_backbone)
    index = own_backbone / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "../../secret.safetensors"}}))
    with pytest.raises(UserError, match="--model must list files beside it"):
        registry.resolve_backbone(str(own_backbone))
    index.write_text("[]")
    with pytest.raises(UserError, match="--model must list the files of its weights"):
        registry.resolve_backbone(str(own_backbone))


def test_of_a_network_that_is_not_asked_for_nothing_is_read_or_fetched(
    own_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("vae", "text_encoder"):
        next((own_backbone / part).glob("*.safetensors")).unlink()
    path = registry.resolve_backbone(str(own_backbone), "backbone", ("unet",))
    parts = loading.load_components(path, torch.float32, "backbone", ("unet",))
    assert parts.keys() == {"unet", "tokenizer", "scheduler"}
    with pytest.raises(UserError, match="backbone lacks diffusion_pytorch_model"):
        registry.resolve_backbone(str(own_backbone), "backbone")
    asked: list[str] = []

    def download(_name: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        asked.extend(allow_patterns)
        return str(own_backbone)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    registry.resolve_backbone(SD15, "backbone", ("unet",))
    wanted = ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "tokenizer/vocab.json"]
    others = ["vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
    kept = list(huggingface_hub.utils.filter_repo_objects([*wanted, *others], allow_patterns=asked))
    assert kept == wanted


def test_half_precision_alone_is_fetched_where_there_is_nothing_else(
    own_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(_name: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        asked.append(allow_patterns)
        if len(asked) == 1:
            for file in own_backbone.rglob("*.safetensors"):
                file.rename(file.with_suffix(".elsewhere"))
        else:
            for file in own_backbone.rglob("*.elsewhere"):
                file.rename(file.with_suffix(".fp16.safetensors"))
        return str(own_backbone)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    registry.resolve_backbone(SD15)
    assert len(asked) == 2
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in asked[1]


def test_folder_without_tokenizer_is_refused(own_backbone: Path) -> None:
    shutil.rmtree(own_backbone / "tokenizer")
    with pytest.raises(UserError, match="--model lacks its tokenizer"):
        registry.resolve_backbone(str(own_backbone))


def test_truncated_weights_are_a_users_mistake(own_branch: Path) -> None:
    weights = own_branch / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"--branch cannot be loaded .*the folder is damaged or incomplete"):
        loading.load_branch(own_branch, torch.float32)


def test_weights_that_lack_a_tensor_are_refused_not_filled_at_random(own_branch: Path) -> None:
    weights = own_branch / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors.pop("conv_in.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"--branch has weights that do not fit .*conv_in\.weight"):
        loading.load_branch(own_branch, torch.float32)


def test_text_encoder_that_lacks_a_tensor_is_refused(own_backbone: Path) -> None:
    weights = own_backbone / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "mlp.fc1.weight" in name)
    tensors.pop(name)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"--model has weights that do not fit .*mlp\.fc1\.weight"):
        loading.load_components(own_backbone, torch.float32)


def test_backbone_folder_given_as_branch_is_refused(backbone_folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"--branch must be the folder of an InpaintBranch .*UNet2DConditionModel"
    ):
        loading.load_branch(backbone_folder / "unet", torch.float32)


def test_another_kind_of_backbone_is_refused(own_backbone: Path) -> None:
    config = own_backbone / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_class_name": "SD3Transformer2DModel"}))
    with pytest.raises(UserError, match="--model must have as its unet UNet2DConditionModel, got 'SD3"):
        registry.load_pipeline(str(own_backbone), "none")


def test_damaged_config_is_a_users_mistake(own_branch: Path) -> None:
    (own_branch / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"--branch cannot be loaded .*the file is damaged"):
        loading.load_branch(own_branch, torch.float32)


@pytest.mark.parametrize("device", ["cuda:99", "toaster", "cpu:x"])
def test_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(UserError, match="--device is not available on this machine"):
        loading.torch_device(device)


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(
        UserError, match="--dtype must be one of auto, float32, float16, bfloat16, got 'int8'"
    ):
        loading.torch_dtype("int8", torch.device("cpu"))


@pytest.mark.usefixtures("no_hub")
def test_hub_out_of_reach_says_what_to_do() -> None:
    with pytest.raises(
        UserError, match=r"the hub is out of reach.*hf download .*--model FOLDER.*--model sticker"
    ):
        registry.resolve_backbone(SD15)


@pytest.mark.usefixtures("no_hub")
def test_misspelt_hub_id_is_offered_the_nearest_one() -> None:
    with pytest.raises(UserError, match=f"did you mean '{SD15}'"):
        registry.resolve_backbone(SD15.replace("stable-diffusion-v1-5/stable", "stable-difusion-v1-5/stable"))


def test_cached_hub_model_is_used_without_a_network(
    backbone_folder: Path, branch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cached_only(name: str, **options: object) -> str:
        assert options["local_files_only"]
        if name != SD15:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        return str(backbone_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached_only)
    assert registry.load_pipeline(SD15, str(branch_folder)).unet is not None
    entry = next(entry for entry in registry.known_models() if entry.name == SD15)
    assert entry.present
    assert entry.folder == str(backbone_folder)


def test_download_fetches_no_pickles(backbone_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def download(_name: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        asked.append(allow_patterns)
        return str(backbone_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert registry.resolve_backbone(SD15) == backbone_folder
    files = ["unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin", "v1-5-pruned.ckpt"]
    assert not list(huggingface_hub.utils.filter_repo_objects(files, allow_patterns=asked[0]))
    kept = [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
    ]
    assert list(huggingface_hub.utils.filter_repo_objects(kept, allow_patterns=asked[0])) == kept


@pytest.mark.usefixtures("no_hub")
def test_known_models_tell_kind_source_and_licence() -> None:
    entries = registry.known_models()
    assert {entry.kind for entry in entries} == {
        "backbone",
        "branch",
        "style_vgg",
        "judge",
        "instances",
        "attributes",
    }
    assert {entry.source for entry in entries} == {"embedded", "hub"}
    assert all(entry.licence for entry in entries)
    assert not next(entry for entry in entries if entry.name == SD15).present
