"""The recipes that make the embedded weights, each at a scale of seconds, in the order in which they build on
one another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import install_weights
import numpy as np
import pytest
import read_drawings
import refine_branch
import sticker_corpus
import torch
import train_annotators
import train_autoencoder
import train_base
import train_hole_reader
import train_latent_vgg
import training_run
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from train_autoencoder import to_tensor
from training_run import TrainingRun

from mtadiffusion.errors import UserError
from mtadiffusion.models.autoencoders import encode_latents
from mtadiffusion.models.conditioning import masked_image
from mtadiffusion.models.latent_vgg import LatentVGG
from mtadiffusion.models.registry import load_branch, load_pipeline, resolve_branch
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.attributes import AttributeNet
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.instances import InstanceNet
from mtadiffusion.stickers.problems import hole_problem
from mtadiffusion.stickers.sampling import BRANCH_GUIDANCE
from mtadiffusion.stickers.scenes import SceneWorld, is_held_out

A_MOMENT = "0.002"
BRIEFLY = ("--minutes", A_MOMENT, "--batch", 2, "--lessons", 2)


def run(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


@pytest.fixture(autouse=True)
def _few_held_pictures(monkeypatch):
    monkeypatch.setattr(train_autoencoder, "HELD_PICTURES", 16)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    sticker_corpus.render(folder, scenes=80, size=64, split="train", seed=0, workers=1)
    return folder


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    torch.manual_seed(0)
    train_autoencoder.build((8, 16, 16)).save_pretrained(folder)
    return folder


def test_a_corpus_holds_pictures_and_four_wordings_of_each(corpus):
    loaded = sticker_corpus.load_corpus(corpus)
    assert loaded.images.shape == (80, 64, 64, 3)
    assert {len(wordings) for wordings in loaded.prompts} == {sticker_corpus.PROMPTS}


def test_a_corpus_is_the_same_with_any_number_of_workers(corpus, tmp_path):
    sticker_corpus.render(tmp_path, scenes=8, size=64, split="train", seed=0, workers=2)
    again, first = sticker_corpus.load_corpus(tmp_path), sticker_corpus.load_corpus(corpus)
    np.testing.assert_array_equal(again.images, first.images[:8])
    assert again.prompts == first.prompts[:8]


def test_the_autoencoder_recipe_writes_a_diffusers_folder(corpus, tmp_path, monkeypatch, capsys):
    run(monkeypatch, train_autoencoder, corpus, tmp_path, "--minutes", A_MOMENT, "--batch", 2)
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert vae.config.scaling_factor > 0
    assert "PSNR" in capsys.readouterr().out


def test_training_the_decoder_alone_leaves_the_latents_as_they_are(
    corpus, autoencoder, tmp_path, monkeypatch
):
    run(monkeypatch, train_autoencoder, corpus, tmp_path, "--decoder-of", autoencoder, "--minutes", A_MOMENT)
    before, after = (AutoencoderKL.from_pretrained(f) for f in (autoencoder, tmp_path / "vae"))
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(before.encode(picture).latent_dist.mean, after.encode(picture).latent_dist.mean)
    assert not torch.equal(before.decoder.conv_out.weight, after.decoder.conv_out.weight)


def test_the_autoencoder_goes_on_from_a_trained_one_and_logs_halved_pictures(
    corpus, autoencoder, tmp_path, monkeypatch
):
    monkeypatch.setattr(training_run, "LOG_EVERY", 1)
    run(monkeypatch, train_autoencoder, corpus, tmp_path, "--start-from", autoencoder, "--minutes", A_MOMENT)
    after = AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert after.config.block_out_channels == [8, 16, 16]
    first = json.loads((tmp_path / "training.jsonl").read_text().splitlines()[0])
    assert {"psnr", "psnr_halved"} <= set(first)


def test_the_base_recipe_writes_a_stock_diffusers_folder(corpus, autoencoder, tmp_path, monkeypatch):
    run(monkeypatch, train_base, corpus, autoencoder, tmp_path, *BRIEFLY)
    install_weights.install(tmp_path / "pipeline", tmp_path / "installed")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "installed")
    assert stock("a red apple", num_inference_steps=2, output_type="np").images.shape == (1, 64, 64, 3)


def test_the_base_is_trained_with_a_latent_vgg_where_one_is_given(corpus, autoencoder, tmp_path, monkeypatch):
    train_latent_vgg.build().save_pretrained(tmp_path / "vgg")
    monkeypatch.setattr(training_run, "LOG_EVERY", 1)
    run(monkeypatch, train_base, corpus, autoencoder, tmp_path, *BRIEFLY, "--vgg", tmp_path / "vgg")
    last = json.loads((tmp_path / "training.jsonl").read_text().splitlines()[-1])
    assert last["perceptual"] > 0
    assert "critic" not in last


def test_the_base_is_trained_with_a_critic_where_one_is_asked_for(corpus, autoencoder, tmp_path, monkeypatch):
    train_latent_vgg.build().save_pretrained(tmp_path / "vgg")
    monkeypatch.setattr(training_run, "LOG_EVERY", 1)
    adversarial = ["--vgg", tmp_path / "vgg", "--critic"]
    run(monkeypatch, train_base, corpus, autoencoder, tmp_path, *BRIEFLY, *adversarial)
    last = json.loads((tmp_path / "training.jsonl").read_text().splitlines()[-1])
    assert 0 < last["weight"] <= train_base.HEAVIEST_ADVERSARIAL
    assert last["critic"] > 0
    assert not list((tmp_path / "pipeline").glob("critic*"))


def test_an_adversarial_loss_balanced_with_others_pulls_a_share_as_hard():
    prediction = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    others, loss = prediction.square().sum(), 7 * (prediction * prediction.detach()).sum()
    weight = train_base.balance(loss, others, prediction)
    assert weight.item() == pytest.approx(train_base.ADVERSARIAL * 2 / 7)


def test_the_latent_vgg_is_shown_objects_on_other_backgrounds(autoencoder):
    vae = AutoencoderKL.from_pretrained(autoencoder)
    scenes = train_latent_vgg.encoded_scenes(
        vae, SceneWorld(split="train", seed=9, size=64, objects=(1, 1)), 3
    )
    shown = scenes.on_other_backgrounds(torch.arange(3))
    for index in range(3):
        there = scenes.places[index].expand_as(shown[index])
        assert there.any()
        assert not there.all()
        assert (shown[index][there] == scenes.latents[index][there]).all()
        assert (shown[index][~there] == scenes.latents[index - 1][~there]).all()


def test_the_tokenizer_spells_what_it_never_saw():
    tokenizer = train_base.build_tokenizer(["a red apple", "a shiny 3D bus, with windows"])
    ids = tokenizer("Zebra é!").input_ids
    assert tokenizer.eos_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "zebraé!"


def test_the_latent_vgg_recipe_writes_a_calibrated_vgg(autoencoder, tmp_path, monkeypatch):
    monkeypatch.setattr(train_latent_vgg, "VALIDATION_SCENES", 32)
    run(monkeypatch, train_latent_vgg, autoencoder, tmp_path, "--minutes", A_MOMENT, "--scenes", 64)
    vgg = LatentVGG.from_pretrained(tmp_path / "latent_vgg", torch_dtype=torch.float32)
    assert not torch.equal(vgg.features_rms, torch.ones_like(vgg.features_rms))


def test_the_hole_reader_is_shown_objects_of_other_styles_than_their_scene_s():
    made = [train_hole_reader.readable_hole(index) for index in range(60)]
    scenes = [SceneWorld(split="train", seed=train_hole_reader.WORLD).scene(index) for index in range(60)]
    styles = [
        (thing.style, scene.record.attributes["style"])
        for (_, _, thing), scene in zip(made, scenes, strict=True)
        if thing is not None
    ]
    assert 0.5 < np.mean([own != around for own, around in styles]) < 0.9
    assert 0 < sum(thing is None for _, _, thing in made) < 20


def test_the_hole_reader_is_never_shown_held_out_combinations():
    things = [train_hole_reader.readable_hole(index)[2] for index in range(200)]
    assert not any(is_held_out(t.label, t.colour, t.style) for t in things if t is not None)


def test_an_empty_hole_reads_as_no_category_and_its_style_and_colour_are_not_asked_for():
    category, style, colour = train_hole_reader.right_reading(None)
    assert category == len(labels())
    assert style == colour == train_hole_reader.UNKNOWN


def test_the_hole_reader_sees_nothing_outside_of_the_hole():
    reader, generator = train_hole_reader.HoleReader().eval(), torch.Generator().manual_seed(0)
    latents, others = torch.randn(2, 3, 4, 16, 16, generator=generator)
    hole = (torch.rand(3, 1, 16, 16, generator=generator) < 0.5).float()
    mixed = torch.where(hole > 0, latents, others)
    for one, other in zip(reader(latents, hole), reader(mixed, hole), strict=True):
        assert torch.equal(one, other)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    torch.manual_seed(0)
    train_hole_reader.save_reader(train_hole_reader.HoleReader(), folder)
    return folder


def test_the_hole_reader_recipe_writes_a_reader(autoencoder, tmp_path, monkeypatch, capsys):
    run(monkeypatch, train_hole_reader, autoencoder, tmp_path, "--minutes", A_MOMENT, "--holes", 24)
    assert not train_hole_reader.load_reader(tmp_path / "reader").training
    assert "'style'" in capsys.readouterr().out


def test_drawings_that_processes_cannot_share_are_refused(reader, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(refine_branch, "join_workers", lambda: (0, 2))
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, refine_branch, "sticker", tmp_path, reader, "--drawings", 3)
    assert "must be multiples of the 2 processes" in capsys.readouterr().err


def test_refining_changes_the_branch_alone_and_logs_what_the_reader_missed(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "LOG_EVERY", 1)
    briefly = ("--minutes", A_MOMENT, "--holes", 8, "--drawings", 2, "--batch", 2)
    run(monkeypatch, refine_branch, "sticker", tmp_path, reader, reader, *briefly)
    folders = resolve_branch("sticker", "branch"), tmp_path / "branch"
    before, after = (load_branch(folder, torch.float32, "branch") for folder in folders)
    assert before.config == {**after.config, "_name_or_path": before.config["_name_or_path"]}
    assert not torch.equal(before.conv_in.weight, after.conv_in.weight)
    first = json.loads((tmp_path / "training.jsonl").read_text().splitlines()[0])
    assert {"noise", "style", "missed", "right_category", "right_style"} <= set(first)
    assert "critic" not in first


class TestMissed:
    wanted = train_hole_reader.Reading(torch.tensor([3, 5]), torch.tensor([1, 0]), torch.tensor([-1, 2]))

    def read(self, *, style):
        sizes = len(labels()) + 1, len(STYLES), len(COLOURS) + 1
        logits = [torch.full((2, size), -20.0) for size in sizes]
        for row, answers in zip(logits, ([3, 5], style, [0, 2]), strict=True):
            row[torch.arange(2), torch.tensor(answers)] = 20.0
        return train_hole_reader.Reading(*logits)

    def test_a_right_reading_misses_nothing_and_a_colour_not_asked_for_does_not_count(self):
        assert refine_branch.missed(self.read(style=[1, 0]), self.wanted).item() == pytest.approx(0, abs=1e-6)

    def test_a_wrong_style_weighs_as_said(self):
        wrong = refine_branch.missed(self.read(style=[1, 3]), self.wanted).item()
        assert wrong == pytest.approx(refine_branch.STYLE * 40 / 2, rel=1e-3)


@pytest.fixture
def painting():
    """Encoders of pictures and of texts, and a painter, of the embedded models."""
    return read_drawings.load_painter("sticker")


def test_wishes_are_the_train_split_s_without_held_out_combinations(painting):
    encoder, encode_text, _ = painting
    wishes = refine_branch.make_wishes(8, encoder, encode_text)
    problems = [hole_problem("train", index, seed=refine_branch.WORLD) for index in range(8)]
    kept = [problem for problem in problems if not problem.held_out]
    assert len(wishes) == len(kept) < 8
    for index, problem in enumerate(kept):
        assert labels()[wishes.answers.category[index]] == problem.label
        assert STYLES[wishes.answers.style[index]] == problem.style
        expected = encode_text([problem.prompt]).tokens[0]
        torch.testing.assert_close(wishes.texts[wishes.text[index]], expected)


def test_both_kinds_of_hole_are_in_every_process_s_share(painting):
    encoder, encode_text, _ = painting
    for rank in (0, 1):
        wishes = refine_branch.make_wishes(16, encoder, encode_text, rank, 2)
        assert len(wishes) == 6
        holes = 1 - wishes.known[:, 0]
        boxes = [hole.sum() == hole.amax(0).sum() * hole.amax(1).sum() for hole in holes]
        assert 0 < sum(boxes) < 6
    assert list(training_run.own_share(16, 1, 2)) == list(range(8, 16))


def test_a_drawing_goes_through_the_states_of_inference(painting):
    encoder, encode_text, painter = painting
    wishes, steps = refine_branch.make_wishes(1, encoder, encode_text), 10
    states, timesteps = painter.draw(wishes, steps, torch.Generator().manual_seed(0))
    problem, seen = hole_problem("train", 0, seed=refine_branch.WORLD), []
    pipeline = load_pipeline("sticker", "sticker", device="cpu")
    pipeline(
        problem.prompt,
        Image.fromarray(problem.scene.record.image),
        Image.fromarray(problem.hole),
        num_inference_steps=steps,
        guidance_scale=BRANCH_GUIDANCE,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=lambda _, step, at, tensors: seen.append((at, tensors["latents"])) or {},
    )
    assert [int(at) for at, _ in seen] == timesteps.tolist()
    for index, (_, latents) in enumerate(seen[:-1], start=1):
        pipeline.scheduler.set_timesteps(steps)  # it forgets the step that it was at
        expected = pipeline.scheduler.scale_model_input(latents, pipeline.scheduler.timesteps[index])
        torch.testing.assert_close(states[index], expected, rtol=1e-3, atol=1e-3)
    assert not states.requires_grad


def test_drawings_have_any_number_of_steps_so_that_all_timesteps_are_learned(painting, monkeypatch):
    encoder, encode_text, painter = painting
    wishes, draw, lengths = refine_branch.make_wishes(1, encoder, encode_text), painter.draw, []

    def quickly(self, wishes, steps, generator):
        lengths.append(steps)
        states, timesteps = draw(wishes, refine_branch.TAKEN_AGAIN, generator)
        return states.repeat(5, 1, 1, 1, 1)[:steps], timesteps.repeat(5)[:steps]

    monkeypatch.setattr(refine_branch.Painter, "draw", quickly)
    for seed in range(12):
        refine_branch.taken_again(painter, wishes, torch.Generator().manual_seed(seed))
    assert len(set(lengths)) > 5
    assert refine_branch.FEWEST_STEPS <= min(lengths) < max(lengths) <= refine_branch.MOST_STEPS


def test_any_step_of_a_drawing_is_taken_again_the_first_too(painting, monkeypatch):
    encoder, encode_text, painter = painting
    wishes, predict, again = refine_branch.make_wishes(1, encoder, encode_text), painter.predict, []

    def recorded(self, noisy, timesteps, wishes):
        if torch.is_grad_enabled():
            again.extend(timesteps.tolist())
        return predict(noisy, timesteps, wishes)

    monkeypatch.setattr(refine_branch, "FEWEST_STEPS", refine_branch.TAKEN_AGAIN)
    monkeypatch.setattr(refine_branch, "MOST_STEPS", refine_branch.TAKEN_AGAIN)
    monkeypatch.setattr(refine_branch.Painter, "predict", recorded)
    refine_branch.taken_again(painter, wishes, torch.Generator().manual_seed(0))
    painter.scheduler.set_timesteps(refine_branch.TAKEN_AGAIN)
    assert sorted(again) == sorted(painter.scheduler.timesteps.long().tolist())


def test_scaling_a_gradient_leaves_the_values_alone():
    values = torch.tensor([[1.0, -2.0], [3.0, 0.5]], requires_grad=True)
    scaled = refine_branch.gradient_scaled(values, torch.tensor([[2.0], [0.5]]))
    scaled.sum().backward()
    assert torch.equal(scaled, values)
    torch.testing.assert_close(values.grad, torch.tensor([[2.0, 2.0], [0.5, 0.5]]))


def test_wishes_hold_the_masked_picture_and_the_known_cells(painting):
    encoder, encode_text, _ = painting
    wishes = refine_branch.make_wishes(8, encoder, encode_text)
    problems = [hole_problem("train", index, seed=refine_branch.WORLD) for index in range(8)]
    for index, problem in enumerate(problem for problem in problems if not problem.held_out):
        picture = to_tensor(problem.scene.record.image[None])
        hole = torch.from_numpy(problem.hole)[None, None].float()
        masked = encode_latents(encoder.vae, masked_image(picture, hole, encoder.hole_fill))
        torch.testing.assert_close(wishes.masked_latents[index], masked[0], rtol=0, atol=1e-4)
        cells = torch.nn.functional.max_pool2d(hole, 4)
        assert torch.equal(wishes.known[index], 1 - cells[0])


def test_the_reward_s_gradient_reaches_the_branch_and_neither_reader_nor_backbone(painting, reader):
    encoder, encode_text, painter = painting
    wishes = refine_branch.make_wishes(2, encoder, encode_text)
    loaded, generator = train_hole_reader.load_reader(reader), torch.Generator().manual_seed(0)
    clean, again = refine_branch.taken_again(painter, wishes, generator)
    error, read = refine_branch.reward_loss([loaded], clean, again, generator)
    error.backward()
    assert painter.models.branch.conv_in.weight.grad.abs().max() > 0
    frozen = [*painter.models.unet.parameters(), *loaded.parameters()]
    assert all(parameter.grad is None for parameter in frozen)
    assert 0 <= read["right_style"] <= 1


def test_the_annotators_recipe_writes_both_networks(tmp_path, monkeypatch):
    run(monkeypatch, train_annotators, tmp_path, "--minutes", A_MOMENT, "--batch", 2)
    assert InstanceNet.from_pretrained(tmp_path / "instances").config.labels
    assert AttributeNet.from_pretrained(tmp_path / "attributes").config.styles


def test_a_lesson_s_peaks_are_the_middles_of_objects():
    records = [SceneWorld(split="train", seed=9, size=64).record(index) for index in range(4)]
    batch = train_annotators.lesson(records, np.random.default_rng(0), 16)
    things = [(i, thing) for i, record in enumerate(records) for thing in record.objects]
    assert len(batch.styles) == len(batch.crops) == len(things)
    assert len(batch.cells) == len(batch.masks) == 2 * len(things)
    for number, (picture, thing) in enumerate(things):
        row, column = batch.cells[2 * number].tolist()
        x0, y0, x1, y1 = thing.box_xyxy
        assert abs((row + 0.5) * 4 - (y0 + y1) / 2) <= 2
        assert abs((column + 0.5) * 4 - (x0 + x1) / 2) <= 2
        assert batch.centres[picture, labels().index(thing.label), row, column] == 1
        assert torch.equal(batch.masks[2 * number].bool(), torch.from_numpy(thing.mask))


def test_installed_weights_are_half_precision(autoencoder, tmp_path):
    install_weights.install(autoencoder, tmp_path / "vae")
    installed = load_file(tmp_path / "vae/diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in installed.values()} == {torch.float16}


def test_logs_of_recipes_and_of_mta_train_are_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(install_weights, "WEIGHTS", tmp_path / "weights")
    for place in ("base/training.jsonl", "branch/log.jsonl"):
        log = tmp_path / "runs" / place
        log.parent.mkdir(parents=True)
        log.write_text('{"step": 1}\n')
    run(monkeypatch, install_weights, tmp_path / "runs")
    assert {path.name for path in (tmp_path / "weights/logs").iterdir()} == {"base.jsonl", "branch.jsonl"}


def test_installed_configurations_do_not_tell_where_they_were_made(autoencoder, tmp_path):
    AutoencoderKL.from_pretrained(autoencoder).save_pretrained(tmp_path / "made")
    assert str(autoencoder) in (tmp_path / "made/config.json").read_text()
    install_weights.install(tmp_path / "made", tmp_path / "vae")
    assert str(autoencoder) not in (tmp_path / "vae/config.json").read_text()
    assert AutoencoderKL.from_pretrained(tmp_path / "vae").config.latent_channels == 4


class TestTrainingRun:
    def build(self, out, minutes, **others):
        torch.manual_seed(0)
        arguments = Namespace(out=out, minutes=minutes, **others)
        return TrainingRun(arguments, torch.nn.Linear(3, 1), rate=0.1, average=0.9)

    def test_it_goes_on_from_its_saved_state(self, tmp_path):
        first = self.build(tmp_path, 0.002)
        for _ in first.steps():
            loss = first.model(torch.ones(4, 3)).square().mean()
            first.update(loss, {"loss": loss})
        second = self.build(tmp_path, 0.002)
        assert (second.step, second.spent) == (first.step, first.spent)
        assert torch.equal(second.model.weight, first.model.weight)
        assert torch.equal(second.ema.weight, first.ema.weight)
        moments = [r.optimizers[0].state_dict()["state"][0]["exp_avg"] for r in (first, second)]
        assert torch.equal(*moments)
        assert list(second.steps()) == []

    def test_a_state_of_other_arguments_is_refused_but_for_a_longer_budget(self, tmp_path):
        first = self.build(tmp_path, 0.002, branch="sticker", readers=[Path("a")])
        for _ in first.steps():
            loss = first.model(torch.ones(4, 3)).mean()
            first.update(loss, {"loss": loss})
        assert self.build(tmp_path, 1, branch="sticker", readers=[Path("a")]).step == first.step
        with pytest.raises(UserError, match=r"readers must be \['a'\], as in the run .*got \['b'\]"):
            self.build(tmp_path, 0.002, branch="sticker", readers=[Path("b")])

    def test_a_save_that_was_cut_off_leaves_the_older_state(self, tmp_path, monkeypatch):
        run = self.build(tmp_path, 1)
        loss = run.model(torch.ones(4, 3)).square().mean()
        run.update(loss, {"loss": loss})
        run.step = 1
        run._save()
        run.step = 2
        monkeypatch.setattr("training_run.json.dumps", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            run._save()
        monkeypatch.undo()
        assert self.build(tmp_path, 1).step == 1

    def test_a_save_that_was_cut_off_between_its_renames_is_gone_on_from(self, tmp_path):
        run = self.build(tmp_path, 1)
        run.update(run.model(torch.ones(4, 3)).mean(), {})
        run.step = 1
        run._save()
        (tmp_path / "state").rename(tmp_path / "state.old")
        again = self.build(tmp_path, 1)
        assert again.step == 1
        again._save()
        (tmp_path / "state.old").mkdir()
        (tmp_path / "state.old/left").write_text("by a kill before it was removed")
        again._save()
        assert self.build(tmp_path, 1).step == 1

    def test_rows_of_steps_that_are_taken_again_leave_the_log(self, tmp_path):
        run = self.build(tmp_path, 1)
        run.update(run.model(torch.ones(4, 3)).mean(), {})
        run.step = 60
        run._save()
        (tmp_path / "training.jsonl").write_text('{"step": 50}\n{"step": 100}\n')
        self.build(tmp_path, 1)
        assert (tmp_path / "training.jsonl").read_text() == '{"step": 50}\n'

    def test_the_log_holds_averages(self, tmp_path):
        run = self.build(tmp_path, 1)
        for step in range(50):
            run.step = step
            loss = run.model(torch.ones(4, 3)).square().mean()
            run.update(loss, {"steps": torch.tensor(float(step))})
        (row,) = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
        assert row["steps"] == pytest.approx(24.5)

    def test_two_processes_train_as_one_with_the_joined_batch(self, tmp_path):
        inputs = torch.arange(12.0).view(4, 3) / 6
        alone = self.build(tmp_path / "alone", 1)
        for _ in alone.steps():
            loss = alone.model(inputs).square().mean()
            alone.update(loss, {"loss": loss})
            alone.budget = 0

        script = tmp_path / "half.py"
        script.write_text(HALF_A_BATCH)
        launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        tools = str(Path(training_run.__file__).parent)
        environment = {**os.environ, "PYTHONPATH": tools, "OMP_NUM_THREADS": "1"}
        subprocess.run([*launch, script, tmp_path / "both"], check=True, env=environment, timeout=120)
        both = load_file(tmp_path / "both/state/model.safetensors")
        torch.testing.assert_close(both["weight"], alone.model.weight.detach())
        assert json.loads((tmp_path / "both/state/progress.json").read_text())["step"] == 1


HALF_A_BATCH = """
import sys
from argparse import Namespace
from pathlib import Path

import torch
from training_run import TrainingRun, join_workers

rank, workers = join_workers()
torch.manual_seed(0 if rank == 0 else 1)
arguments = Namespace(out=Path(sys.argv[1]), minutes=1)
run = TrainingRun(arguments, torch.nn.Linear(3, 1), rate=0.1, average=0.9)
for _ in run.steps():
    loss = run.model((torch.arange(12.0).view(4, 3) / 6)[rank::workers]).square().mean()
    run.update(loss, {"loss": loss})
    run.budget = 0
"""


def test_a_mistake_in_a_recipe_s_arguments_is_one_line(tmp_path):
    def answer(*arguments):
        command = (sys.executable, refine_branch.__file__, *arguments)
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stderr.splitlines()[-1]

    code, message = answer("sticker", tmp_path / "out", tmp_path / "nowhere")
    assert (code, message.split("argument ")[1]) == (2, f"reader: must exist, got '{tmp_path / 'nowhere'}'")
    code, message = answer("sticker", tmp_path / "out", tmp_path)
    assert (code, message.split(",")[0]) == (2, "error: reader must hold model.safetensors")
    assert not (tmp_path / "out").exists()


def test_readers_are_asked_at_every_timestep_of_a_drawing(reader, monkeypatch, capsys):
    run(monkeypatch, read_drawings, "sticker", reader, "--steps", 3, "--holes", 4, "--guidance", 1.5)
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["timestep", "category", "style"]
    assert [int(row.split()[0]) for row in rows] == [999, 666, 332]
    assert all(0 <= float(share) <= 1 for row in rows for share in row.split()[1:])
