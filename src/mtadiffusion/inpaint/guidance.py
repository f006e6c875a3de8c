"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), and its rescaling for models that were
trained down to pure noise (Lin et al. 2023, arXiv 2305.08891, section 3.4).
"""

from __future__ import annotations

from torch import Tensor


def guided(prediction: Tensor, scale: float, rescale: float = 0.0) -> Tensor:
    """The guided prediction (n, C, h, w) of both halves (2n, C, h, w), the negative one first.

    Args:
        prediction: the backbone's, for the negative prompts and for the prompts.
        scale: weight of the prompt's difference.
        rescale: how far, 0 to 1, the result is brought back to the spread of the prompt's own prediction;
            0.7 is usual for fine-tunes with zero terminal signal-to-noise ratio.
    """
    negative, positive = prediction.chunk(2)
    result = negative + scale * (positive - negative)
    if rescale == 0:
        return result
    spread, own = (part.std(dim=(1, 2, 3), keepdim=True) for part in (result, positive))
    return result * (rescale * own / spread + 1 - rescale)
