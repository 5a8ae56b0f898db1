"""Files that claim to be images, of more than thirty kinds, and what becomes of each at ingest."""

from __future__ import annotations

import gzip
import io
import os
import socket
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import PIL.Image

from tests.picture_files import encoded, jpeg, pixels, png, png_claiming, put

GOOD = None
"""Instead of a reason: the file is an image."""


def files() -> dict[str, tuple[bytes, str | None]]:
    """Content and reason by what is wrong with the file. The name ends as an image's does, whatever is in it."""
    photo = jpeg(1, 320, 240)
    drawn = png(2, 320, 240)
    made: dict[str, tuple[bytes, str | None]] = {
        "no bytes": (b"", "empty"),
        "one byte": (b"\xff", "not_an_image"),
        "text": (b"not a picture", "not_an_image"),
        "a server's error page": (b"<!doctype html><title>404</title>", "not_an_image"),
        "JSON of an error": (b'{"error": "AccessDenied"}', "not_an_image"),
        "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not_an_image"),
        "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "not_an_image"),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        "BMP": (encoded(pixels(3), "BMP"), "not_an_image"),
        "ICO": (encoded(pixels(4, 32, 32), "ICO"), "not_an_image"),
        "PPM": (encoded(pixels(5), "PPM"), "not_an_image"),
        "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "not_an_image"),
        "MP4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(64), "not_an_image"),
        "ZIP of an image": (_zip(photo), "not_an_image"),
        "tar of an image": (_tar(photo), "not_an_image"),
        "gzip of an image": (gzip.compress(photo, mtime=0), "not_an_image"),
        "pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "not_an_image"),
        "only zeros": (bytes(4096), "not_an_image"),
        "noise": (bytes(range(256)) * 16, "not_an_image"),
        "JPEG: its first two bytes": (b"\xff\xd8", "not_an_image"),
        "JPEG: its header alone": (photo[:20], "not_an_image"),
        "JPEG: cut in the middle": (photo[: len(photo) // 2], "truncated"),
        "JPEG: without its last 200 bytes": (photo[:-200], "truncated"),
        "JPEG: 0 pixels wide": (_sized_jpeg(photo, 240, 0), "not_an_image"),
        "JPEG: no quantisation tables": (_without(photo, 0xDB), "corrupt"),
        "PNG: cut in the middle": (drawn[: len(drawn) // 2], "truncated"),
        "PNG: its signature alone": (drawn[:8], "not_an_image"),
        "PNG: header with a wrong checksum": (drawn[:29] + b"\0\0\0\0" + drawn[33:], "not_an_image"),
        "PNG: pixels with a wrong checksum": (_flipped(drawn, len(drawn) // 2), "corrupt"),
        "PNG: pixels that do not inflate": (_png(b"not zlib"), "corrupt"),
        "PNG: no pixels": (_png(None), "corrupt"),
        "PNG: 0 pixels wide": (png_claiming(0, 9), "not_an_image"),
        "PNG: claims 50,000 x 50,000": (png_claiming(50_000, 50_000), "too_large"),
        "PNG: claims two thousand million pixels in a row": (png_claiming(2**31 - 1, 1), "too_large"),
        "PNG: a text that inflates to 100 MB": (_png_with_text(drawn), "corrupt"),
        "GIF: its header alone": (encoded(pixels(6), "GIF")[:13], "not_an_image"),
        "GIF: cut in the middle": (_half(encoded(pixels(7, 200, 200), "GIF")), "truncated"),
        "WebP: cut in the middle": (_half(encoded(pixels(8, 200, 200), "WEBP")), "corrupt"),
        "WebP: RIFF with no picture": (b"RIFF\x04\0\0\0WEBP", "not_an_image"),
        "TIFF: its header alone": (b"II*\0\x08\0\0\0", "not_an_image"),
        "TIFF: cut in the middle": (_half(encoded(pixels(9, 200, 200), "TIFF")), "truncated"),
        "TIFF: directory beyond its end": (b"II*\0" + struct.pack("<I", 10**6) + bytes(16), "not_an_image"),
        "TIFF: a directory that names itself": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "not_an_image"),
        # Odd, and images all the same.
        # libjpeg reads zeros as grey, and Pillow passes none of its warnings on.
        "JPEG: zeros from the middle on": (photo[: len(photo) // 2] + bytes(len(photo) // 2), GOOD),
        "JPEG: no Huffman tables": (_without(photo, 0xC4), GOOD),
        "JPEG named .png": (jpeg(10), GOOD),
        "bytes after the end of a JPEG": (jpeg(11) + b"\0" * 500, GOOD),
        "CMYK": (encoded(PIL.Image.fromarray(pixels(12)).convert("CMYK"), "JPEG"), GOOD),
        "one pixel": (encoded(pixels(13, 1, 1), "PNG"), GOOD),
        "10,000 pixels wide, one high": (encoded(pixels(14, 10_000, 1), "PNG"), GOOD),
    }
    return made


def odd_places(folder: Path) -> dict[str, str | None]:
    """Puts in a folder what no file's content shows; the key's reason, or None where it is passed over.

    A key is what `failures.key` is expected to hold; a name that is no text is not asked for by its key.
    """
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    put(folder / "folder.jpg", {"inside.jpg": jpeg(901)})
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may have 107 characters at most
        try:
            listening.bind("socket.jpg")
        finally:
            os.chdir(here)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")).write_bytes(jpeg(902))
    with (folder / "huge.jpg").open("wb") as huge:  # sparse: it takes no room on the disk
        huge.truncate(513 << 20)
    return {"dangling.jpg": "missing", "loop.jpg": "unreadable", "huge.jpg": "too_large", "pipe.jpg": None}


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def _zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.jpg"), data)
    return buffer.getvalue()


def _tar(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _segments(data: bytes) -> list[bytes]:
    """A JPEG's parts: its first two bytes, each marker segment before the scan, and the rest."""
    parts, place = [data[:2]], 2
    while data[place + 1] != 0xDA:
        length = 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
        parts.append(data[place : place + length])
        place += length
    return [*parts, data[place:]]


def _without(data: bytes, marker: int) -> bytes:
    return b"".join(part for part in _segments(data) if part[:2] != bytes([0xFF, marker]))


def _sized_jpeg(data: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    parts = _segments(data)
    for place, part in enumerate(parts):
        if part[:2] == b"\xff\xc0":
            parts[place] = part[:5] + struct.pack(">HH", height, width) + part[9:]
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(body: bytes | None) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
    inside = b"" if body is None else _chunk(b"IDAT", body)
    return b"\x89PNG\r\n\x1a\n" + header + inside + _chunk(b"IEND", b"")


def _png_with_text(data: bytes) -> bytes:
    """A compressed text chunk of 100 MB of blanks, before the pixels."""
    text = _chunk(b"zTXt", b"note\0\0" + zlib.compress(b" " * (100 << 20)))
    return data[:33] + text + data[33:]
