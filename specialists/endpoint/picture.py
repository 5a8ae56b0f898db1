"""An image as a model is shown it."""

from __future__ import annotations

import base64
import io

import PIL.Image

from data_engine.image import Image

_JPEG_QUALITY = 90


def shrunk(image: Image, max_side: int) -> PIL.Image.Image:
    """The image, no side longer than `max_side`: never enlarged, its aspect kept."""
    picture = image.pil
    picture.thumbnail((max_side, max_side), PIL.Image.Resampling.LANCZOS, reducing_gap=3.0)
    return picture


def jpeg_url(image: Image, max_side: int) -> tuple[str, int]:
    """A data URL of the shrunk image as a JPEG; and its pixels' number."""
    picture = shrunk(image, max_side)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return url, picture.width * picture.height
