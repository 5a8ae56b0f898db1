"""One unit of work: a shard's pictures through one specialist, into one annotations shard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine import __version__
from data_engine.annotation import Annotation, AnnotationRows, storable
from data_engine.blanked import blanked
from data_engine.dataset import Dataset
from data_engine.entry_point import add_import_folder, load
from data_engine.errors import DatasetError, FdeError, ImageError, SpecialistError
from data_engine.image import Image
from data_engine.recipe import SpecialistPart
from data_engine.runner.pictures import Picture, read_pictures, unread_pictures
from data_engine.schema import ANNOTATIONS
from data_engine.specialist import Specialist
from data_engine.storage import Stamp

_REPORT_SECONDS = 0.5

_OUT_OF_REACH = frozenset({"missing", "unreadable"})
"""Reasons that say nothing of an image where all of a shard's have them."""

_MESSAGE = 2_000
"""Characters of a failure's message: it may quote what a model said."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life during a unit: what was done since the last one, and which row comes next."""

    images: int
    failures: int
    row: int


@dataclass(frozen=True, slots=True)
class Done:
    """A unit's output is in place. `result` is what its worker has to say of it, where it says anything, `stamp` what
    a listing shows of its file, and `seconds` how long it took, which the runner fills in."""

    images: int
    failures: int
    annotations: int
    result: dict[str, Any] | None = None
    seconds: float = 0.0
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Careful:
    """How to run a unit that has killed its process: one picture at a time from row `start` on,
    without those in `skip`."""

    start: int
    skip: tuple[str, ...] = ()


Answer = list[Annotation | ImageError] | ImageError
"""What a specialist says of one image, or why it says nothing."""


class Worker:
    """Holds one specialist and runs units with it. It knows nothing of Ray: an actor holds a Worker."""

    def __init__(
        self, dataset_url: str, name: str, part: SpecialistPart, fingerprint: str, folder: str
    ) -> None:
        self.dataset_url = dataset_url
        self.name = name
        self.part = part
        self.fingerprint = fingerprint
        self.folder = folder

    def load(self) -> None:
        """Open the data set and build the specialist. Raises what says why neither can be had."""
        add_import_folder(self.folder)
        self.dataset = Dataset.open(self.dataset_url)
        self.specialist: Specialist = load(self.part.use, dict(self.part.args), f"specialists.{self.name}")

    def run(self, shard: str, careful: Careful | None = None) -> Iterator[Beat | Done]:
        """Do one unit; the last thing yielded is Done, and then its file is in place.

        With `careful`, a Beat is yielded *before* each picture from `careful.start` on is read, so that
        whoever consumes the beats knows which picture was in hand when the process died.
        """
        rows = AnnotationRows(self.name)
        said = self._said(shard)
        failures: list[dict[str, Any]] = []
        tried = refused = seen = told_images = told_failures = 0
        last_beat = time.monotonic()
        batches = self._pictures(shard, careful)
        while True:
            if careful is not None and seen >= careful.start:
                yield Beat(0, 0, seen)
            pictures = next(batches, None)
            if pictures is None:
                break
            found = self._annotate(pictures, said)
            for picture, answer in zip(pictures, found, strict=True):
                tried += picture.image is not None
                if isinstance(answer, ImageError):
                    refused += picture.image is not None
                    failures.append(self._failure(picture, answer))
                else:
                    errors = rows.add(picture.image_id, answer, picture.size)
                    failures += [self._failure(picture, error) for error in _by_reason(errors, len(answer))]
            seen += len(pictures)
            if time.monotonic() - last_beat >= _REPORT_SECONDS:
                yield Beat(seen - told_images, len(failures) - told_failures, seen)
                told_images, told_failures, last_beat = seen, len(failures), time.monotonic()
        if tried > 1 and refused == tried:
            raise SpecialistError(
                f"specialists.{self.name} failed on every image of shard {shard}: {failures[-1]['message']}",
                "mend the specialist or its args; nothing was written for this shard",
            )
        if seen > 1 and not tried and {failure["reason"] for failure in failures} <= _OUT_OF_REACH:
            # A disk that is not mounted or a store that is gone must not be written down image by image.
            raise DatasetError(
                f"no image of shard {shard} can be read: {failures[-1]['message']}",
                "check that the images' disk or store is there, then run the same command again; nothing was "
                "written for this shard",
            )
        table = rows.table()
        # Failures first: the annotations shard is the commit, so it must be the last to appear.
        self.dataset.write_failures(self.name, shard, failures)
        provenance = {
            "stage": self.name,
            "fingerprint": self.fingerprint,
            "recipe": described(self.part),
            "images": seen,
            "rows": table.num_rows,
            "failures": len(failures),
            "version": __version__,
        }
        stamp = self.dataset.write_annotations(self.name, shard, table, provenance)
        yield Beat(seen - told_images, len(failures) - told_failures, seen)
        yield Done(seen, len(failures), table.num_rows, stamp=stamp)

    def _pictures(self, shard: str, careful: Careful | None) -> Iterator[list[Picture]]:
        if not getattr(self.specialist, "needs_pixels", True):
            batch = self.part.batch if careful is None else 1
            return unread_pictures(
                self.dataset, shard, batch=batch, skip=() if careful is None else careful.skip
            )
        if careful is None:
            threads = max(2, round(self.part.cpus))
            return read_pictures(self.dataset, shard, batch=self.part.batch, threads=threads)
        return read_pictures(
            self.dataset,
            shard,
            batch=self.part.batch,
            threads=1,
            ahead=0,
            skip=careful.skip,
            single_from=careful.start,
        )

    def _said(self, shard: str) -> pa.Table | None:
        if not self.part.needs:
            return None
        said = pa.concat_tables(self.dataset.annotations(need, shard) for need in self.part.needs).cast(
            ANNOTATIONS
        )
        return said if self.part.kept is None else self.dataset.kept(said, self.part.kept, shard)

    def _annotate(self, pictures: Sequence[Picture], said: pa.Table | None) -> list[Answer]:
        images = [picture.image for picture in pictures if picture.image is not None]
        answers = iter(self._call(images, said) if images else [])
        return [
            next(answers) if picture.error is None else picture.error  # decode errors keep their place
            for picture in pictures
        ]

    def _call(self, images: list[Image], said: pa.Table | None) -> list[Answer]:
        """The specialist's answer for each image, or why that image has none.

        Out of memory or any other failure halves the batch, until what is left is the one bad image.
        """
        about = None
        if said is not None:
            about = said.filter(pc.is_in(said["image_id"], pa.array([image.image_id for image in images])))
        error: ImageError
        try:
            answers = self.specialist(images, about)
            if len(answers) != len(images):
                raise ImageError("specialist_error", f"{len(answers)} answers for {len(images)} images")
            return [list(answer) for answer in answers]
        except ImageError as caught:
            error = caught
        except FdeError:
            raise
        except Exception as caught:  # noqa: BLE001 - a specialist may raise anything; it costs one image
            error = _as_image_error(caught)
        if len(images) == 1:
            return [error]
        if error.reason == "out_of_memory":
            _free_accelerator_memory()
        middle = len(images) // 2
        return [*self._call(images[:middle], said), *self._call(images[middle:], said)]

    def _failure(self, picture: Picture, error: ImageError) -> dict[str, Any]:
        return {
            "stage": self.name,
            "image_id": picture.image_id,
            "key": picture.key,
            "uri": picture.uri,
            "reason": storable(str(error.reason))[:100],
            "message": storable(blanked(str(error.message)))[:_MESSAGE],
        }


def described(part: SpecialistPart) -> dict[str, Any]:
    """A specialist's settings as they may be stored: of its environment's variables only the names, for their
    values may be secrets."""
    settings = part.model_dump()
    if "env_vars" in part.runtime_env:
        settings["runtime_env"] = {**part.runtime_env, "env_vars": sorted(part.runtime_env["env_vars"])}
    return settings


def _by_reason(errors: Sequence[ImageError], said: int) -> Iterator[ImageError]:
    """One for each reason: an image with ten thousand bad boxes is one row in `failures`."""
    reasons: dict[str, list[ImageError]] = {}
    for error in errors:
        reasons.setdefault(error.reason, []).append(error)
    for reason, some in reasons.items():
        if reason == "bad_annotation":
            yield ImageError(
                reason, f"{len(some)} of {said} annotations refused; the first: {some[0].message}"
            )
        elif len(some) > 1:
            yield ImageError(reason, f"{some[0].message} (and {len(some) - 1} more)")
        else:
            yield some[0]


def _as_image_error(error: Exception) -> ImageError:
    # torch.OutOfMemoryError is told by its name: the runner knows no model library.
    names = {cls.__name__ for cls in type(error).__mro__}
    message = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return ImageError("out_of_memory", message)
    return ImageError("specialist_error", message)


def _free_accelerator_memory() -> None:
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
