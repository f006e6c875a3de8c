"""Colour words: the nearest of nine named CIELAB colours, where it covers enough of an object."""

from __future__ import annotations

import numpy as np

COLOURS = {
    "red": (222, 40, 48),
    "orange": (247, 136, 28),
    "yellow": (250, 212, 48),
    "green": (70, 190, 70),
    "teal": (40, 200, 200),
    "blue": (50, 110, 225),
    "purple": (136, 60, 205),
    "pink": (245, 100, 185),
    "brown": (140, 82, 40),
}
"""Name -> sRGB (8 bit) of the reference colour."""

REACH = 42.0
"""How far (CIELAB distance) a pixel may be from the nearest colour and still count for it."""

LEAST_CHROMA = 20.0
"""The CIELAB chroma under which a pixel is a grey and counts for no colour, however near one may lie."""

COVERAGE = 0.6
"""The share of an object's pixels that must be nearest to a colour for the colour to name the object."""

_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_D65 = np.array([0.95047, 1.0, 1.08883])


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """uint8 sRGB (..., 3) -> float CIELAB (..., 3), L in [0, 100], D65 white (IEC 61966-2-1, CIE 15)."""
    scaled = rgb.astype(np.float64) / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    relative = linear @ _RGB_TO_XYZ.T / _D65
    cubic = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    x, y, z = cubic[..., 0], cubic[..., 1], cubic[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


_REFERENCE_LAB = rgb_to_lab(np.array(list(COLOURS.values()), dtype=np.uint8))


def colour_word(rgb: np.ndarray) -> str | None:
    """The colour word of an object's pixels.

    Args:
        rgb: uint8 (N, 3), the object's pixels.

    Returns:
        The name that at least `COVERAGE` of the pixels are nearest to (Euclidean in CIELAB, within `REACH`,
        greys left out), else None.
    """
    if not len(rgb):
        return None
    lab = rgb_to_lab(rgb)
    distances = np.linalg.norm(lab[:, None] - _REFERENCE_LAB[None], axis=-1)
    counted = (distances.min(1) <= REACH) & (np.linalg.norm(lab[:, 1:], axis=-1) >= LEAST_CHROMA)
    counts = np.bincount(distances.argmin(1)[counted], minlength=len(COLOURS))
    best = int(counts.argmax())
    return list(COLOURS)[best] if counts[best] >= COVERAGE * len(rgb) else None


def rotate_hue(rgb: np.ndarray, turn: float) -> np.ndarray:
    """Turn every pixel's HSV hue by `turn` of a full circle; value and saturation stay.

    Args:
        rgb: uint8 (..., 3).
        turn: in [0, 1).
    """
    value = rgb.max(-1).astype(np.float32)
    chroma = value - rgb.min(-1)
    r, g, b = (rgb[..., i].astype(np.float32) for i in range(3))
    safe = np.maximum(chroma, 1.0)
    sector = np.where(
        value == r, (g - b) / safe, np.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )
    sector = (sector + 6 * turn) % 6
    channels = [
        value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1) for k in ((n + sector) % 6 for n in (5, 3, 1))
    ]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
