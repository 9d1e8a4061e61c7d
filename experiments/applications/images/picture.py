"""Conversion of a picture of one digit to the form of MNIST's images.

In MNIST, a digit fits into a square of 20 × 20 pixels, and its centre of mass is at the
centre of 28 × 28 pixels. The background is 0, and the darkest ink is 1.
"""

import numpy as np

from experiments.applications.images.networks import SIDE

BOX = 20  # side of the square that a digit fits into
INK = 0.25  # share of the largest contrast from which a pixel counts as ink
FAINT = 0.05  # a picture with less contrast is blank


def as_digit(grey: np.ndarray) -> np.ndarray:
    """Convert a picture in shades of grey to an image of MNIST's form, [28, 28].

    The paper is the median of the picture's border, and ink is what differs from it.
    An image that has MNIST's form already is returned as it is. A picture without ink
    becomes a blank image.

    Args:
      grey: [height, width] in 0..1.

    Example:
      >>> picture = np.ones((100, 60))
      >>> picture[20:80, 25:35] = 0  # a dark bar on white paper: the digit 1
      >>> image = as_digit(picture)
      >>> image.shape, np.flatnonzero(image.any(axis=0)).tolist()
      ((28, 28), [12, 13, 14, 15])
    """
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if grey.shape == (SIDE, SIDE) and not border.any():
        return grey.astype(np.float32)
    ink = np.abs(grey - np.median(border))
    image = np.zeros((SIDE, SIDE), np.float32)
    if ink.max() < FAINT:
        return image
    ink = ink / ink.max()
    rows, columns = (np.flatnonzero((ink > INK).any(axis=axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cut.shape)
    height, width = (max(1, round(side * scale)) for side in cut.shape)
    small = _resized(cut, height, width)
    down, across = _centre(small)
    top = int(np.clip(round((SIDE - 1) / 2 - down), 0, SIDE - height))
    left = int(np.clip(round((SIDE - 1) / 2 - across), 0, SIDE - width))
    image[top : top + height, left : left + width] = small
    return image


def _resized(ink: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize by means over areas, or by bilinear interpolation if it is enlarged."""
    from PIL import Image

    picture = Image.fromarray(ink.astype(np.float32))
    shrunk = ink.shape[0] > height
    method = Image.Resampling.BOX if shrunk else Image.Resampling.BILINEAR
    return np.clip(np.asarray(picture.resize((width, height), method)), 0, 1)


def _centre(ink: np.ndarray) -> tuple[float, float]:
    """Return the centre of mass: row and column."""
    rows, columns = np.indices(ink.shape)
    return (rows * ink).sum() / ink.sum(), (columns * ink).sum() / ink.sum()
