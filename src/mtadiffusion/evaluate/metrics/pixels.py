"""How well known pixels are kept: MSE and PSNR, in the usual form and in BrushNet's.

BrushNet (its `evaluate_brushnet.py`) divides the squared differences, summed over three channels, by the
number of known pixels instead of the number of their values: its MSE is three times the usual, its PSNR
4.77 dB lower.
"""

from __future__ import annotations

import math

import numpy as np

from mtadiffusion.evaluate.metrics.metric import Definition, Metric, Sample
from mtadiffusion.evaluate.metrics.per_sample import PerSample

_BEST_PSNR = 100.0
"""dB that stand for equal pixels, whose PSNR is infinite."""

_BRUSHNET_BEST_PSNR, _BRUSHNET_LEAST_MSE = 1000.0, 1e-10
_BRUSHNET_SOURCE = "BrushNet's evaluation code (arXiv 2403.06976)"


def mse() -> Metric:
    """Mean squared difference of known pixels' values."""
    return PerSample(
        definition=Definition(
            name="mse", title="MSE", better="lower", bounds=(0, 1), region="known", resize="none",
            scale=1000, source="mean over pixels and channels, values in [0, 1]", equal=0,
        ),
        of=_mse,
    )  # fmt: skip


def mse_brushnet() -> Metric:
    """Sum over channels of the mean squared difference of known pixels: three times the usual."""
    return PerSample(
        definition=Definition(
            name="mse_brushnet", title="MSE (BrushNet)", better="lower", bounds=(0, 3), region="known",
            resize="none", scale=1000, source=_BRUSHNET_SOURCE, equal=0,
        ),
        of=_mse_brushnet,
    )  # fmt: skip


def psnr() -> Metric:
    """-10 log10 of the mean squared difference of known pixels; 100 dB where they are equal."""
    return PerSample(
        definition=Definition(
            name="psnr", title="PSNR", better="higher", bounds=(0, _BEST_PSNR), region="known", resize="none",
            source="-10 log10 MSE in dB, at most 100", equal=_BEST_PSNR,
        ),
        of=_psnr,
    )  # fmt: skip


def psnr_brushnet() -> Metric:
    """-10 log10 of BrushNet's MSE; 1000 dB where pixels are equal, as its code has it."""
    return PerSample(
        definition=Definition(
            name="psnr_brushnet", title="PSNR (BrushNet)", better="higher",
            bounds=(-10 * math.log10(3), _BRUSHNET_BEST_PSNR), region="known", resize="none",
            source=_BRUSHNET_SOURCE, equal=_BRUSHNET_BEST_PSNR,
        ),
        of=_psnr_brushnet,
    )  # fmt: skip


def _mse_brushnet(sample: Sample) -> float | None:
    known = ~sample.hole
    if not known.any():
        return None
    values = sample.result[known].astype(np.float64) - sample.original[known]  # (pixels, 3)
    return float(np.square(values / 255).sum() / known.sum())


def _mse(sample: Sample) -> float | None:
    summed = _mse_brushnet(sample)
    return None if summed is None else summed / 3


def _psnr(sample: Sample) -> float | None:
    error = _mse(sample)
    if error is None:
        return None
    return min(_BEST_PSNR, -10 * math.log10(error)) if error > 0 else _BEST_PSNR


def _psnr_brushnet(sample: Sample) -> float | None:
    error = _mse_brushnet(sample)
    if error is None:
        return None
    return -10 * math.log10(error) if error >= _BRUSHNET_LEAST_MSE else _BRUSHNET_BEST_PSNR
