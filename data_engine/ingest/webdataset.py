"""WebDataset tars, as img2dataset writes them: 00000.tar with KEY.jpg, KEY.txt and KEY.json.

The source is a folder of tars, one tar, or a pattern (`dir/0000*.tar`). Images stay where they are: the
index holds the tar's uri, and the member's offset and length in it. So a compressed tar cannot be taken.

KEY.txt becomes a text, granularity `brief`, source `alt_text` (what a web page said of the image, not
somebody asked to describe it); without one, `caption` of KEY.json does. KEY.json is the metadata.
Members of one sample follow one another; the key ends at the first dot. Members of other kinds (.cls,
.npy) are passed over.

A tar is untrusted: nothing is ever unpacked. A member whose name leaves its folder, a link, a device
or a sparse file is a failure (`unsafe_member`) and not read; one that claims more than 512 MiB is
`too_large`. Where a tar breaks off, the samples before are kept and one failure (`broken_archive`)
names the tar.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, SourceError
from data_engine.image import SUFFIXES, ImageInfo
from data_engine.image_bytes import MAX_BYTES
from data_engine.ingest.item import Item, Unit
from data_engine.ingest.listing import LOOKED_AT, join, kind, select, walk
from data_engine.storage import AHEAD_BYTES, resolve

NAME = "webdataset"

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MAX_TEXT = 16 << 20
_MAX_HEADER = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


def detect(source: str) -> bool:
    suffixes = (".tar", *_COMPRESSED)
    if kind(source) == "folder":
        return any(f.name.lower().endswith(suffixes) for f in islice(walk(source), LOOKED_AT))
    return source.lower().endswith(suffixes)


def units(source: str) -> Iterator[Unit]:
    root, files = select(source, (".tar", *_COMPRESSED))
    index = -1
    for index, file in enumerate(files):
        if file.name.lower().endswith(_COMPRESSED):
            raise SourceError(
                f"{file.key} is compressed, so images cannot be read from their place in it",
                "decompress it first, for example with: gunzip *.tar.gz (photographs hardly compress)",
            )
        yield Unit(index, {"root": root, "tar": file.facts})
    if index < 0:
        raise SourceError(f"there is no .tar file in {source}", "check the path")


def items(unit: Unit) -> Iterator[Item]:
    key, _, _ = unit.what["tar"]
    uri = join(unit.what["root"], key)
    sample: list[_Member] = []
    for member in _members(uri, key):
        if isinstance(member, Item):
            yield member
            continue
        if sample and member.sample != sample[0].sample:
            yield from _items(sample, uri, key)
            sample = []
        sample.append(member)
    yield from _items(sample, uri, key)


@dataclass(frozen=True, slots=True)
class _Member:
    """A regular member. `name` is its path in the tar; `data` is None where it is too large to read."""

    name: str
    offset: int
    length: int
    data: bytes | None

    @property
    def sample(self) -> str:
        folder, slash, name = self.name.rpartition("/")
        return folder + slash + name.partition(".")[0]

    @property
    def suffix(self) -> str:
        return self.name[len(self.sample) :].lower()


def _items(sample: list[_Member], uri: str, tar: str) -> Iterator[Item]:
    images = [m for m in sample if m.suffix[m.suffix.rfind(".") :] in SUFFIXES]
    # KEY.jpg is what KEY.txt describes; KEY.seg.png, should there be one, is not.
    described = [m for m in images if m.suffix in SUFFIXES] or images
    text = next((m.data for m in sample if m.suffix == ".txt"), None)
    metadata, problem = _metadata(next((m.data for m in sample if m.suffix == ".json"), None))
    for m in images:
        item = Item(f"{tar}/{m.name}", uri, m.offset, m.length, m.data)
        if m.data is None:
            item.error = ImageError("too_large", f"{m.length:,} bytes, more than {MAX_BYTES:,}")
        elif m in described:
            item.metadata = metadata
            item.labels = partial(_labels, text, metadata, problem)
        yield item


def _metadata(data: bytes | None) -> tuple[dict[str, Any], ImageError | None]:
    if data is None:
        return {}, None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        return {}, ImageError("bad_annotation", f"its .json is none: {error}")
    if not isinstance(value, dict):
        return {}, ImageError("bad_annotation", "its .json is not an object")
    return value, None


def _labels(
    text: bytes | None, metadata: dict[str, Any], problem: ImageError | None, _: ImageInfo
) -> list[Annotation | ImageError]:
    made: list[Annotation | ImageError] = [] if problem is None else [problem]
    said = text.decode("utf-8-sig", "replace") if text is not None else metadata.get("caption")
    if isinstance(said, str) and said.strip():
        made.append(Annotation("text", said.strip(), "brief", source="alt_text"))
    return made


def _members(uri: str, tar: str) -> Iterator[_Member | Item]:
    """The regular members of one tar with their bytes, and an Item with an error for what was refused."""
    filesystem, path = resolve(uri)
    where = "at its start"
    try:
        with io.BufferedReader(filesystem.open_input_file(path), AHEAD_BYTES) as file:
            archive = tarfile.open(fileobj=_HeaderReads(file), mode="r:")  # noqa: SIM115 - the file is closed
            end = 0
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or it would remember every member of the tar
                name = member.name.encode("utf-8", "replace").decode()
                where = f"after {name!r}"
                if member.size < 0 or member.offset < end:
                    # Such headers would send the reader back, and round for ever.
                    raise tarfile.ReadError("a header with an impossible size")
                end = member.offset_data
                if member.isdir():
                    continue
                if reason := _refusal(member):
                    bad = ImageError("unsafe_member", f"{name!r} {reason}")
                    last = name.replace("\\", "/").rpartition("/")[2]
                    yield Item(f"{tar}/{last}", uri, error=bad)
                    continue
                wanted = _limit(member.name)
                data: bytes | None = None
                if 0 < wanted >= member.size:
                    file.seek(member.offset_data)
                    data = bytes(file.read(member.size))
                    if len(data) < member.size:
                        raise tarfile.ReadError("unexpected end of data")
                if wanted:
                    yield _Member(name, member.offset_data, member.size, data)
            _check_end(file, archive.offset)
    except (tarfile.TarError, OSError, ValueError, EOFError, RecursionError, OverflowError) as error:
        yield Item(tar, uri, error=ImageError("broken_archive", f"{tar} breaks off {where}: {error}"))


def _limit(name: str) -> int:
    """The largest size at which a member is read; 0 for one that is of no use here."""
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    if suffix in SUFFIXES:
        return MAX_BYTES
    return _MAX_TEXT if suffix in (".txt", ".json") else 0


def _refusal(member: tarfile.TarInfo) -> str:
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        return "leaves the folder that it is in"
    if member.issym() or member.islnk():
        return "is a link"
    if member.issparse() or not member.isreg():
        return "is no regular file"
    return ""


def _check_end(file: Any, offset: int) -> None:
    """tarfile takes any block that is no header for the end, and the file's end too; a whole tar is
    closed with zeros."""
    file.seek(offset)
    block = bytes(file.read(_BLOCK))
    if block.strip(b"\0"):
        raise tarfile.ReadError("what follows is no header")
    if len(block) < _BLOCK:
        raise tarfile.ReadError("the zeros that close a tar are missing")


class _HeaderReads(io.RawIOBase):
    """What tarfile may read by itself: headers. It would read one of any claimed size into memory."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        self._file.seek(offset, whence)
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return bytes(self._file.read(size))
