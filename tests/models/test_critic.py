"""The critic of the adversarial loss."""

from __future__ import annotations

import torch

from mtadiffusion.models.critic import LatentCritic
from mtadiffusion.models.latent_vgg import LatentVGG
from mtadiffusion.train.losses import adversarial_losses

HOLE = torch.ones(4, 1, 8, 8)


def vgg() -> LatentVGG:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LatentVGG(in_channels=4, widths=((6,), (8,)), pools=(True,))


def critic() -> LatentCritic:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return LatentCritic(4, (6, 8), text_width=12, width=16)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_scores_depend_on_latents_hole_and_text() -> None:
    eyes, judge = vgg(), critic().eval()

    def scores(latents: torch.Tensor, hole: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return judge(latents, eyes(latents), hole, text)

    latents, text = random(4, 4, 8, 8, seed=2), random(4, 5, 12, seed=3)
    first = scores(latents, HOLE, text)
    assert first.shape == (4,)
    for other in (
        scores(latents.roll(1, 0), HOLE, text),
        scores(latents, 0 * HOLE, text),
        scores(latents, HOLE, text.roll(1, 0)),
    ):
        assert not torch.allclose(first, other)


def test_scores_of_a_batch_are_those_of_its_members() -> None:
    eyes, judge = vgg(), critic().eval()
    latents, text = random(4, 4, 8, 8, seed=2), random(4, 5, 12, seed=3)
    together = judge(latents, eyes(latents), HOLE, text)
    alone = [
        judge(z[None], eyes(z[None]), HOLE[:1], words[None]) for z, words in zip(latents, text, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_text_states_may_be_of_lower_precision() -> None:
    eyes, judge = vgg(), critic().eval()
    latents, text = random(4, 4, 8, 8, seed=2), random(4, 5, 12, seed=3).bfloat16()
    scores = judge(latents, eyes(latents), HOLE, text)
    torch.testing.assert_close(scores, judge(latents, eyes(latents), HOLE, text.float()))


def test_neither_of_the_two_losses_teaches_the_other_s_network() -> None:
    eyes, judge = vgg(), critic()
    predicted = random(4, 4, 8, 8, seed=4).requires_grad_()
    missed, own = adversarial_losses(
        judge, eyes, predicted, random(4, 4, 8, 8, seed=5), HOLE, random(4, 5, 12, seed=6)
    )
    of_critic = torch.autograd.grad(missed, [*judge.parameters()], retain_graph=True, allow_unused=True)
    assert of_critic == (None,) * len(of_critic)
    assert torch.autograd.grad(missed, predicted, retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(own, predicted, retain_graph=True, allow_unused=True) == (None,)
    assert all(gradient is not None for gradient in torch.autograd.grad(own, [*judge.parameters()]))


def test_the_critic_learns_which_latents_are_true_and_which_text_is_theirs() -> None:
    """Latents of two kinds, each with a text of its own; predicted ones are their blurred mean."""
    eyes, judge = vgg(), critic()
    kinds, texts = random(2, 4, 8, 8, seed=7), random(2, 5, 12, seed=8)
    chosen = torch.tensor([0, 1, 0, 1])
    true, text, drawn = kinds[chosen], texts[chosen], kinds.mean(0).expand(4, -1, -1, -1)
    optimizer = torch.optim.Adam(judge.parameters(), lr=5e-3)
    for _ in range(150):
        _, own = adversarial_losses(judge, eyes, drawn, true, HOLE, text)
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    judge.eval()
    right = judge(true, eyes(true), HOLE, text)
    assert right.min() > judge(drawn, eyes(drawn), HOLE, text).max()
    assert right.min() > judge(true, eyes(true), HOLE, text.roll(1, 0)).max()
