"""How the branch's features enter the frozen backbone: forward hooks that add them inside a stock
`UNet2DConditionModel` (`docs/method.md`, section 2). The UNet's class, state dict and configuration stay as
they are.

The places, in the order of the features: after conv_in; on the way down after each layer (its residual block
and, where it has one, its transformer) and each downsampler; after the middle; on the way up after each layer
and each upsampler. What is added on the way down goes on in the main path and in the skip connections, but
for the first: BrushNet takes the skip connection of conv_in before it adds, and its checkpoints need that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.branch_config import branch_config


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place of the UNet where a feature is added."""

    module: nn.Module
    """The feature is added to this module's output, or to its input."""

    before: bool = False
    """Whether it is the input (the argument `hidden_states`) that the feature is added to."""

    checkpointed_by: nn.Module | None = None
    """The block that, under gradient checkpointing, runs `module` again in the backward pass, if one does."""

    @property
    def runs_again(self) -> bool:
        """Whether `module`, called now, will be called again in the backward pass."""
        return torch.is_grad_enabled() and getattr(self.checkpointed_by, "gradient_checkpointing", False)


class BranchInjection:
    """Hooks on a stock UNet that add features at its places while a `features` block is open.

    Outside of such a block the UNet computes what it would without the hooks. Gradients flow into the
    features, under the UNet's gradient checkpointing too.

    Args:
        unet: the backbone. Several injections on one UNet add up.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._places = injection_places(unet)
        self._features: Sequence[Tensor] | None = None
        self._scale = 1.0
        # A checkpointed block may run again after its `features` block was left or another one entered; its
        # input, which it gets again, tells what was added. An entry goes when the graph lets its input go.
        self._pending: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._handles = [self._attach(index, place) for index, place in enumerate(self._places)]

    @property
    def count(self) -> int:
        """The number of places: 28 for SD1.5."""
        return len(self._places)

    @contextlib.contextmanager
    def features(self, features: Sequence[Tensor], scale: float = 1.0) -> Iterator[None]:
        """Within the block, each call of the UNet adds scale * features[i] at place i.

        Args:
            features: `count` tensors (B, c_i, h_i, w_i), as `BranchOutput.features`. A UNet called with a
                batch of k * B gets them k times over, sample b of the features in samples b, B + b, ... (the
                layout of classifier-free guidance).
            scale: factor on all features.

        Raises:
            UserError: another number of features than places.
        """
        if len(features) != self.count:
            rule = f"must be {self.count} tensors, one a place of the backbone"
            raise UserError("features", rule, len(features), "use a branch made for this backbone")
        before = self._features, self._scale
        self._features, self._scale = features, scale
        try:
            yield
        finally:
            self._features, self._scale = before

    def remove(self) -> None:
        """Take the hooks off the UNet. Safe to call twice."""
        for handle in self._handles:
            handle.remove()

    def _attach(self, index: int, place: Place) -> RemovableHandle:
        def add_to_input(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            if self._features is None:
                return None
            hidden = add_repeated(kwargs["hidden_states"], self._features[index], self._scale)
            return args, {**kwargs, "hidden_states": hidden}

        def add_to_output(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            added = self._pending.get(args[0]) if place.runs_again else None
            if added is None and self._features is not None:
                added = self._features[index], self._scale
                if place.runs_again:
                    self._pending[args[0]] = added
            if added is None:
                return None
            if isinstance(output, tuple):
                return (add_repeated(output[0], *added), *output[1:])
            return add_repeated(output, *added)

        if place.before:
            return place.module.register_forward_pre_hook(add_to_input, with_kwargs=True)
        return place.module.register_forward_hook(add_to_output)


def add_repeated(hidden: Tensor, feature: Tensor, scale: float = 1.0) -> Tensor:
    """hidden (k * B, c, h, w) + scale * feature (B, c, h, w), the feature taken k times over."""
    feature = feature.to(hidden.dtype)
    if hidden.shape[0] == feature.shape[0]:
        return torch.add(hidden, feature, alpha=scale)
    if hidden.shape[0] % feature.shape[0]:
        rule, remedy = f"must be a multiple of {feature.shape[0]}", "compute the features for these samples"
        raise UserError("the backbone's batch", rule, hidden.shape[0], remedy)
    return torch.add(hidden.unflatten(0, (-1, feature.shape[0])), feature, alpha=scale).flatten(0, 1)


def injection_places(unet: UNet2DConditionModel) -> list[Place]:
    """The places of the UNet where features are added, in the order of the features."""
    block: Any
    places = [Place(module=unet.down_blocks[0], before=True)]
    for block in unet.down_blocks:
        places += _places_of_block(block, block.downsamplers)
    places.append(Place(module=unet.mid_block))
    for block in unet.up_blocks:
        places += _places_of_block(block, block.upsamplers)
    return places


def check_fit(branch: InpaintBranch, unet: UNet2DConditionModel) -> None:
    """Raise a UserError that names both sides if the branch's features do not fit the backbone."""
    needed = branch_config(unet.config)
    remedy = "use a branch trained for this backbone, or make one with InpaintBranch.from_unet"
    for field, title in (
        ("block_out_channels", "widths"),
        ("layers_per_block", "layers a level"),
        ("latent_channels", "latent channels"),
        ("addition_embed_type", "added embedding"),
        ("addition_time_embed_dim", "width of an embedded size"),
        ("projection_class_embeddings_input_dim", "width of pooled text and sizes"),
    ):
        if field not in needed:
            continue  # of a backbone without an added embedding
        own, backbone = _comparable(branch.config[field]), _comparable(needed[field])
        if field == "layers_per_block":
            levels = len(needed["block_out_channels"])
            own, backbone = _per_level(own, levels), _per_level(backbone, levels)
        if own != backbone:
            raise UserError("branch", f"must have the backbone's {title} {backbone}", own, remedy)


def _places_of_block(block: Any, resamplers: Sequence[nn.Module] | None) -> list[Place]:
    attentions = getattr(block, "attentions", None)
    if attentions is not None:
        places = [Place(module=attention) for attention in attentions]
    else:
        places = [Place(module=resnet, checkpointed_by=block) for resnet in block.resnets]
    return places + [Place(module=resampler) for resampler in resamplers or ()]


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _per_level(value: int | tuple[int, ...], levels: int) -> tuple[int, ...]:
    return (value,) * levels if isinstance(value, int) else value
