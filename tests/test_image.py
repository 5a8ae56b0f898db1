"""Any file of a supported format becomes upright RGB pixels; any other bytes become an ImageError."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_engine.errors import ImageError
from data_engine.image import MAX_PIXELS, decode, image_id_of, inspect
from tests.picture_files import encoded, jpeg, pixels, png, png_claiming

# As a camera would store an upright picture under each EXIF orientation.
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_shown_upright(orientation: int, format: str) -> None:
    upright = pixels(1, 24, 16)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(np.ascontiguousarray(STORED[orientation](upright)), format, exif=exif, **options)
    assert np.array_equal(decode(data), upright)
    info = inspect(data)
    assert (info.width, info.height, info.orientation) == (24, 16, orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_of_every_orientation_has_the_size_that_it_decodes_to(orientation: int) -> None:
    data = jpeg(1, 40, 24, orientation)
    info = inspect(data)
    assert decode(data).shape == (info.height, info.width, 3)
    assert (info.width, info.height) == ((24, 40) if orientation >= 5 else (40, 24))


def test_pixels_are_rgb_and_contiguous() -> None:
    found = decode(png(3))
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.array_equal(found, pixels(3))


def test_transparency_is_laid_over_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (255, 0, 0, 255)
    rgba[2:] = (0, 0, 255, 0)
    for format in ("PNG", "WEBP"):
        found = decode(encoded(rgba, format, **({"lossless": True} if format == "WEBP" else {})))
        assert found[0, 0].tolist() == [255, 0, 0] and found[3, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(format: str) -> None:
    image = PIL.Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    found = decode(encoded(image, format, transparency=0))
    assert found[0, 0].tolist() == [255, 255, 255] and found[3, 3].tolist() == [10, 20, 30]


def test_a_palette_with_alpha_for_each_entry() -> None:
    image = PIL.Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 200, 100, 0])
    image.putpixel((1, 0), 1)
    found = decode(encoded(image, "PNG", transparency=bytes([0, 255])))
    assert found.tolist() == [[[255, 255, 255], [200, 100, 0]]]


def test_grey_with_alpha() -> None:
    found = decode(encoded(PIL.Image.new("LA", (2, 2), (0, 0)), "PNG"))
    assert (found == 255).all()


def test_sixteen_bit_grey_keeps_its_upper_bits() -> None:
    grey = np.array([[0, 255, 256, 65535]], np.uint16)
    for format in ("PNG", "TIFF"):
        found = decode(encoded(PIL.Image.fromarray(grey), format))
        assert found[0, :, 0].tolist() == [0, 0, 1, 255]


def test_cmyk_becomes_rgb() -> None:
    found = decode(encoded(PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert found.shape == (8, 8, 3)
    red, green, blue = found[4, 4].tolist()
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_becomes_three_equal_channels(mode: str) -> None:
    image = PIL.Image.fromarray(pixels(5)).convert(mode)
    found = decode(encoded(image, "PNG"))
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP"])
def test_the_first_frame_is_the_image(format: str) -> None:
    frames = [PIL.Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], **options)
    found = decode(buffer.getvalue())
    assert found.shape == (6, 8, 3) and found[3, 3].tolist() == [255, 0, 0]


def test_the_format_is_said_in_lower_case_and_the_id_is_the_content() -> None:
    data = jpeg(1)
    info = inspect(data)
    assert info.format == "jpeg"
    assert info.image_id == image_id_of(data) == hashlib.sha256(data).hexdigest()[:32]


def test_a_jpeg_with_a_second_picture_behind_it_is_a_jpeg() -> None:
    second = PIL.Image.fromarray(pixels(2))
    data = encoded(PIL.Image.fromarray(pixels(1)), "MPO", save_all=True, append_images=[second])
    assert inspect(data).format == "jpeg"
    assert decode(data).shape == (16, 24, 3)


def test_floating_point_pixels_out_of_range_are_clipped() -> None:
    values = np.array([[-1e38, 0.5, 1.0, np.nan]], np.float32)
    found = decode(encoded(PIL.Image.fromarray(values), "TIFF"))
    assert found[0, :, 0].tolist() == [0, 127, 255, 0]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(50_000, 50_000), (10_000, MAX_PIXELS // 10_000 + 1)])
def test_a_decompression_bomb_is_refused_from_its_header(size: tuple[int, int]) -> None:
    for look in (inspect, decode):
        with pytest.raises(ImageError) as caught:
            look(png_claiming(*size))
        assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is a text file that somebody renamed", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (jpeg(1, 400, 400)[:-2000], "truncated"),
        (png(1)[: len(png(1)) // 2], "truncated"),
        (png_claiming(100, 100), "truncated"),
    ],
)
def test_the_reason_says_what_is_wrong(data: bytes, reason: str) -> None:
    for look in (inspect, decode):
        with pytest.raises(ImageError) as caught:
            look(data)
        assert caught.value.reason == reason


SEEDS = {
    "JPEG": jpeg(2, 40, 30, 6),
    "PNG": png(2, 40, 30),
    "WEBP": encoded(pixels(2, 40, 30), "WEBP"),
    "GIF": encoded(pixels(2, 40, 30), "GIF"),
    "TIFF": encoded(pixels(2, 40, 30), "TIFF"),
    "TIFF with LZW": encoded(pixels(2, 40, 30), "TIFF", compression="tiff_lzw"),
    "progressive JPEG": encoded(pixels(2, 40, 30), "JPEG", progressive=True),
}


def looked_at(data: bytes) -> tuple[int, int] | None:
    """The size on which `inspect` and `decode` agree; None where both, or one, refuse."""
    sizes = []
    for look in (inspect, decode):
        try:
            found = look(data)
        except ImageError:
            continue
        sizes.append(found.shape[:2] if isinstance(found, np.ndarray) else (found.height, found.width))
    assert len(set(sizes)) <= 1
    return sizes[0] if sizes else None


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
@example(b"\x89PNG\r\n\x1a\n")
@example(b"II*\0\x08\0\0\0")
@example(b"GIF89a")
@example(b"RIFF\x10\0\0\0WEBPVP8 ")
@example(b"\xff\xd8\xff\xe1\0\0")
def test_bytes_of_any_kind_never_raise_anything_but_an_image_error(data: bytes) -> None:
    looked_at(data)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_damaged_files_never_raise_anything_but_an_image_error(name: str, data: st.DataObject) -> None:
    damaged = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    looked_at(bytes(damaged))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "progressive JPEG"])
@pytest.mark.parametrize("step", [7])
def test_a_file_cut_anywhere_is_an_error_or_has_the_same_size(name: str, step: int) -> None:
    whole = SEEDS[name]
    size = looked_at(whole)
    assert size is not None
    refused = 0
    for cut in [*range(0, len(whole), step), len(whole) - 1]:
        found = looked_at(whole[:cut])
        assert found in (None, size)
        refused += found is None
    assert refused > len(whole) // step // 2


@pytest.mark.parametrize("step", range(12))
def test_a_png_with_one_byte_flipped_in_its_pixels_is_refused_by_both(step):
    whole = png(2, 320, 240)
    place = 60 + step * (len(whole) - 100) // 12
    flipped = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
    for look in (inspect, decode):
        with pytest.raises(ImageError) as caught:
            look(flipped)
        assert caught.value.reason in ("corrupt", "truncated")


def test_a_picture_that_is_too_large_is_refused_without_another_word(tmp_path):
    """Between Pillow's limit and twice that it only warns."""
    (tmp_path / "large.png").write_bytes(png_claiming(10_000, 9_000))
    code = (
        "import sys; from pathlib import Path; from data_engine.image import inspect; from data_engine.errors import ImageError\n"
        "try: inspect(Path(sys.argv[1]).read_bytes())\nexcept ImageError as error: print(error.reason)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large.png")]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("too_large\n", "")
