"""One decoded image, and the rules by which any file of a supported format becomes RGB pixels.

What the rules are, and why:
- EXIF orientation is applied, so that boxes mean what a person sees.
- Transparency is laid over white, as img2dataset does for LAION.
- CMYK, palette and grey become RGB; 16-bit grey keeps its upper 8 bits.
- GIF and TIFF give their first frame.
- A file with more than `MAX_PIXELS` is refused from its header, before anything is allocated.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageOps

from data_engine.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff"})
OTHER_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".cr2",
        ".dng",
        ".heic",
        ".heif",
        ".jp2",
        ".jxl",
        ".nef",
        ".psd",
        ".raw",
        ".svg",
        ".tga",
    }
)
"""Of pictures in formats that are not read: who has such files wants to know that they are left out."""

MAX_PIXELS = 89_478_485
"""Pillow's own decompression-bomb limit: 256 MiB of RGB. Its warning above it is our refusal."""

MAX_SCANS = 64
"""Of a JPEG, which is decoded anew for each: a camera's has one, a progressive one about ten. Twenty bytes are
enough for another, so that a file of a megabyte could take hours."""

_SCAN = b"\xff\xda"

# Pillow's warning of what is refused below would be a second line about it, on a person's terminal. It stands last:
# who asks for the warning gets it.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning, append=True)

_open = PIL.Image.open
"""Bound here, before a model library can put its own in its place (ultralytics does)."""

_ORIENTATION = 0x0112


@dataclass(slots=True, frozen=True, eq=False)
class Image:
    """What a specialist is given. `pixels` is (height, width, 3), uint8, RGB, C-contiguous."""

    image_id: str
    pixels: np.ndarray

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def pil(self) -> PIL.Image.Image:
        return PIL.Image.fromarray(self.pixels)


@dataclass(slots=True, frozen=True)
class ImageInfo:
    """Facts of an image file. `width` and `height` are as shown; `orientation` is EXIF's 1..8."""

    image_id: str
    width: int
    height: int
    format: str
    orientation: int


def image_id_of(data: bytes) -> str:
    """128 bits of SHA-256: with 100 million images a collision has probability below 1e-22."""
    return hashlib.sha256(data).hexdigest()[:32]


def inspect(data: bytes) -> ImageInfo:
    """Read the header and decode once, as cheaply as the format allows, to prove that it decodes.

    JPEG is decoded at an eighth of its size: every scan is still read, so truncation shows.
    Raises ImageError with the same reasons as `decode`.
    """
    with _opened(data) as image:
        orientation = _orientation(image)
        width, height = image.size
        if _turn(image, orientation) >= 5:
            width, height = height, width
        image.draft("RGB", (1, 1))
        _load(image)
        # A phone's JPEG with a second picture behind the first is MPO to Pillow, a JPEG to everyone else.
        format_ = "jpeg" if image.format == "MPO" else (image.format or "").lower()
        return ImageInfo(image_id_of(data), width, height, format_, orientation)


def decode(data: bytes) -> np.ndarray:
    """RGB pixels of an image file, (height, width, 3) uint8. Raises ImageError."""
    with _opened(data) as image:
        turn = _turn(image, _orientation(image))
        _load(image)
        rgb = _to_rgb(image)
    pixels = np.array(rgb)  # a copy that may be written to: torch warns about any other
    return np.ascontiguousarray(_ORIENT[turn](pixels))


# EXIF 2.3, tag 0x0112, as array views: no second resampling and no re-parse of the header.
_ORIENT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


def _opened(data: bytes) -> PIL.Image.Image:
    if not data:
        raise ImageError("empty", "the file is empty")
    try:
        image = _open(io.BytesIO(data), formats=FORMATS)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", str(error)) from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(
            "not_an_image", f"no {', '.join(FORMATS)} image: starts with {data[:8]!r}"
        ) from error
    except Exception as error:
        raise ImageError("corrupt", f"unreadable header: {type(error).__name__}: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too_large", f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    if image.format in ("JPEG", "MPO") and (scans := data.count(_SCAN)) > MAX_SCANS:
        raise ImageError("too_large", f"a JPEG of {scans:,} scans, more than {MAX_SCANS}")
    if image.width == 0 or image.height == 0:
        raise ImageError("corrupt", f"{image.width} x {image.height} pixels")
    return image


def _load(image: PIL.Image.Image) -> None:
    try:
        image.load()
    except Exception as error:
        text = str(error)
        reason = "truncated" if "truncated" in text.lower() else "corrupt"
        raise ImageError(reason, f"does not decode: {text or type(error).__name__}") from error


def _orientation(image: PIL.Image.Image) -> int:
    if image.format == "PNG":
        # Pillow decodes a PNG to find its EXIF, and only once: what is wrong with its pixels would be taken
        # for broken EXIF below, and the second decoding would give half a picture without a word.
        _load(image)
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken EXIF is common and says nothing about the pixels
        return 1
    return value if isinstance(value, int) and value in _ORIENT else 1


def _turn(image: PIL.Image.Image, orientation: int) -> int:
    """The orientation that is left for us to apply: Pillow turns TIFF, and only TIFF, by itself."""
    return 1 if image.format == "TIFF" else orientation


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "I":
        return PIL.Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image)).clip(0, None)
        scale = 255.0 if values.size and values.max() <= 1.0 else 1.0
        return PIL.Image.fromarray((values * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = PIL.Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
