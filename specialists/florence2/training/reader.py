"""Batches of a data set, read from its shards as they are: pictures decoded, statements written as tokens.

Nothing is copied to disk, and in memory lie the statements of the few shards that are being mixed.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, ImageError
from data_engine.held_out import is_held_out
from data_engine.image import decode
from data_engine.image_bytes import ByteReader
from specialists.florence2.dense_targets import DenseTargets, dense_targets, joined
from specialists.florence2.training.batch import Batch
from specialists.florence2.training.examples import Writer
from specialists.florence2.training.kept import Kept, statements, teaches
from specialists.florence2.training.plan import Plan
from specialists.florence2.training.timetable import Timetable

_THREADS = 4
"""Pictures that are read and decoded at a time."""
_PICTURE = ("image_id", "uri", "offset", "length", "bytes", "width", "height")


@dataclass(frozen=True)
class Reading:
    """What is read, for process `rank` of `size`: a step's share is `parts` batches.

    `stride` is how many pixels an image feature is wide; `dense` says whether dense targets are made.
    The rest is what `Timetable` and `examples.Writer` take.
    """

    plan: Plan
    batch: int
    mixed: int
    seed: int
    rank: int
    size: int
    parts: int
    weights: dict[str, float]
    prompts: int
    prompt_room: int
    answer_room: int
    shuffled: bool
    stride: int
    dense: bool


@dataclass(frozen=True)
class Wanted:
    """A step by its number, with pictures `side` pixels wide."""

    step: int
    side: int


@dataclass(frozen=True, eq=False)
class Step:
    """A process's share of a step, and what happened since the last one (`Writer.counts`, `unreadable`)."""

    wanted: Wanted
    batches: list[Batch]
    notes: dict[str, int]


def reader(reading: Reading) -> Callable[[Wanted], Step]:
    """What makes the steps that are asked for; they come from few shards where their numbers are near."""
    return Reader(reading).step


class Reader:
    """Makes batches. `images` alone reads no picture."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.timetable = Timetable(reading.plan, reading.batch, reading.mixed, reading.seed)
        self.kept = Kept(Dataset.open(reading.plan.url), reading.plan.learn)
        self.writer = Writer(
            reading.plan.tokenizer,
            reading.weights,
            reading.prompts,
            reading.prompt_room,
            reading.answer_room,
            reading.shuffled,
        )
        self.index = {word: i for i, word in enumerate(reading.plan.words)}
        self.notes: Counter[str] = Counter()
        self._shards: OrderedDict[int, _Shard] = OrderedDict()

    def images(self, step: int) -> list[str]:
        """The images of a step, of all processes: `[rank::size]` are those of one."""
        place = self.timetable.place(step)
        ids = [one for number in place.shards for one in self._shard(number).taught]
        expected = sum(self.reading.plan.shards[number].taught for number in place.shards)
        if len(ids) != expected:
            raise DatasetError(
                f"{self.reading.plan.url} has changed since the training began: {len(ids)} images to learn from "
                f"where there were {expected}",
                "begin the training anew",
            )
        return self.timetable.images(place, ids)

    def step(self, wanted: Wanted) -> Step:
        own = self.images(wanted.step)[self.reading.rank :: self.reading.size]
        epoch = self.timetable.place(wanted.step).epoch
        shards = self.timetable.place(wanted.step).shards
        parts = [own[number :: self.reading.parts] for number in range(self.reading.parts)]
        batches = [self._batch(part, shards, wanted.side, epoch) for part in parts if part]
        notes = self.notes + self.writer.counts
        self.notes.clear()
        self.writer.counts.clear()
        return Step(wanted, [batch for batch in batches if batch is not None], dict(notes))

    def held(self, images: int, side: int) -> Iterator[Batch]:
        """This process's share of up to `images` images that are held out: always the same, asked the same."""
        reading = self.reading
        order = np.random.default_rng([reading.seed, 4]).permutation(len(reading.plan.shards))
        size = max(1, reading.batch // (reading.size * reading.parts))
        left, begun = images, 0
        for number in order.tolist():
            if not left:
                break
            if not reading.plan.shards[number].held:
                continue
            ids = self._shard(number).held[:left]
            left -= len(ids)
            # Turns go on from shard to shard, or the first process would have every small shard.
            own = ids[(reading.rank - begun) % reading.size :: reading.size]
            begun += len(ids)
            for start in range(0, len(own), size):
                batch = self._batch(own[start : start + size], (number,), side, 0)
                if batch is not None:
                    yield batch

    def _batch(self, ids: Sequence[str], shards: Sequence[int], side: int, epoch: int) -> Batch | None:
        """The batch of some images; those that cannot be read, or teach nothing, are left out of it."""
        reading = self.reading
        homes = [next(s for s in (self._shard(n) for n in shards) if image in s.rows) for image in ids]
        rows = [home.pictures[image] for home, image in zip(homes, ids, strict=True)]
        with ByteReader(rows_of=reading.plan.url) as files, ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(lambda row: _picture(files, row, side), rows))
        pixels: list[NDArray[np.uint8]] = []
        dense: list[DenseTargets] = []
        kept: list[str] = []
        images: list[int] = []
        prompts: list[list[int]] = []
        answers: list[list[int]] = []
        for image, home, picture in zip(ids, homes, found, strict=True):
            if isinstance(picture, ImageError):
                self.notes["unreadable"] += 1
                continue
            said = home.statements(image)
            size = home.size(image)
            # A stream of its own for each image: what is asked of it depends on no other.
            rng = np.random.default_rng([reading.seed, 3, epoch, int(image[:12], 16)])
            taught = list(self.writer.taught(said, size, rng))
            if not taught and not reading.dense:
                continue
            images += [len(kept)] * len(taught)
            prompts += [one.prompt for one in taught]
            answers += [one.answer for one in taught]
            pixels.append(picture)
            kept.append(image)
            dense.append(self._dense(said, size, side))
        if not kept:
            return None
        return Batch(np.stack(pixels), joined(dense), images, prompts, answers, tuple(kept))

    def _dense(self, said: Sequence[Annotation], size: tuple[int, int], side: int) -> DenseTargets:
        if not self.reading.dense:
            return dense_targets((), 1, 0)
        shares = np.array([*size, *size], dtype=np.float64)
        things: dict[tuple[float, ...], list[int]] = {}
        for row in said:
            if row.kind == "region" and row.box is not None and row.text and row.mask is None:
                words = [self.index[word] for word in row.text.split() if word in self.index]
                things.setdefault(tuple(row.box), []).extend(words)
        return dense_targets(
            [(words, (np.array(box) / shares).tolist()) for box, words in things.items()],
            side // self.reading.stride,
            len(self.index),
        )

    def _shard(self, number: int) -> _Shard:
        if number not in self._shards:
            self._shards[number] = _Shard(
                self.kept, self.reading.plan.shards[number].name, list(self.reading.weights)
            )
            while len(self._shards) > self.reading.mixed:
                self._shards.popitem(last=False)
        self._shards.move_to_end(number)
        return self._shards[number]


class _Shard:
    """The kept rows of one shard, by image."""

    def __init__(self, kept: Kept, name: str, tasks: Sequence[str]) -> None:
        rows = kept.table(name)
        ids = rows.filter(pa.array(teaches(rows, tasks)))["image_id"].unique()
        out = is_held_out(ids, kept.learn.held_out)
        self.taught: list[str] = ids.filter(pa.array(~out)).to_pylist()
        self.held: list[str] = ids.filter(pa.array(out)).to_pylist()
        coded = rows["image_id"].combine_chunks().dictionary_encode()
        codes = coded.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(coded.dictionary)))
        self.rows = {
            image: (int(end - count), int(end))
            for image, end, count in zip(
                coded.dictionary.to_pylist(), ends, np.diff(ends, prepend=0), strict=True
            )
        }
        self.table = rows.take(pa.array(order))
        self.parents = kept.parents(name, rows)
        self._kept, self._name = kept, name
        self._pictures: dict[str, dict[str, Any]] | None = None

    @property
    def pictures(self) -> dict[str, dict[str, Any]]:
        """Rows of the image index, those that teach, read when the first picture is asked for."""
        if self._pictures is None:
            wanted = pa.array([*self.taught, *self.held], pa.string())
            self._pictures = {}
            for rows in self._kept.dataset.image_batches(self._name, 64, _PICTURE):
                for row in rows.filter(pc.is_in(rows["image_id"], wanted)).to_pylist():
                    self._pictures[row["image_id"]] = row
        return self._pictures

    def statements(self, image: str) -> list[Annotation]:
        start, stop = self.rows[image]
        return statements(self.table.slice(start, stop - start).to_pylist(), self.parents)

    def size(self, image: str) -> tuple[int, int]:
        row = self.pictures[image]
        return row["width"], row["height"]


def _picture(files: ByteReader, row: dict[str, Any], side: int) -> NDArray[np.uint8] | ImageError:
    """(3, side, side), or why there is none. Resized as the released processor does it: squarely, bicubically."""
    try:
        data = files.read(row["uri"], row["offset"], row["length"], row["bytes"], verify=row["image_id"])
        seen = PIL.Image.fromarray(decode(data)).resize((side, side), PIL.Image.Resampling.BICUBIC)
    except ImageError as error:
        return error
    return np.asarray(seen).transpose(2, 0, 1)
