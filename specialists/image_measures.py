"""Measures of the picture itself, whatever it shows: is it sharp, is there anything in it, is it there twice?

- `sharpness`: the variance of the Laplacian of its grey values (Pech-Pacheco et al., ICPR 2000), the longer
  side brought to 512 pixels so that large and small pictures compare; blur lowers it.
- `contrast`: the standard deviation of its grey values, 0..127; near 0 it is a plain field.
- `perceptual_hash`: 64 bits in hexadecimal, the signs of the 64 lowest frequencies of its cosine transform
  against their median (Zauner, "Implementation and benchmarking of perceptual image hash functions",
  2010). Copies in another size, format or quality differ in few bits; `filters.near_duplicate` finds them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.errors import MissingPackageError
from data_engine.image import Image

VERSION = 1

_SIDE = 512
_HASHED = 32
_FREQUENCIES = 8

Grey = NDArray[np.uint8]


class ImageMeasures:
    """Rows of kind `image`, one each of granularity `sharpness`, `contrast` and `perceptual_hash`.

    The value is the row's text: a number, or the hash. Needs OpenCV; raises MissingPackageError.
    """

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError as error:
            raise MissingPackageError.of(error.name or "cv2", "ocr") from error
        cv2.setNumThreads(1)  # actors share the machine; one image is too small to be divided

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """Three rows per image."""
        return [_rows(image.pixels) for image in images]


def _rows(pixels: NDArray[np.uint8]) -> list[Annotation]:
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.uint8)
    scale = _SIDE / max(grey.shape)
    size = tuple(max(1, round(side * scale)) for side in grey.shape[::-1])
    seen = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    sharpness = float(cv2.Laplacian(seen, cv2.CV_64F).var())
    found = {
        "sharpness": f"{sharpness:.2f}",
        "contrast": f"{float(grey.std()):.2f}",
        "perceptual_hash": f"{perceptual_hash(grey):016x}",
    }
    return [Annotation("image", text, name) for name, text in found.items()]


def perceptual_hash(grey: Grey) -> int:
    """64 bits of a picture's grey values (height, width): its lowest frequencies above their median."""
    import cv2

    small = cv2.resize(grey, (_HASHED, _HASHED), interpolation=cv2.INTER_AREA).astype(np.float64)
    low = cv2.dct(small)[:_FREQUENCIES, :_FREQUENCIES].ravel()
    # The first one is the brightness, which would be the median's outlier.
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
