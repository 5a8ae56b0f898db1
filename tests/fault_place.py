"""A small data set for one fault, with what it must hold in the end; a fault is a function of such a place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_engine.shards import shard_name
from tests.fault_children import Child, Said, fde
from tests.fault_compare import differences, shards, twins
from tests.toy_sources import write_pictures

IMAGES, SHARD = 40, 10

RECIPE = """
name: faults
specialists:
  looks: {{use: "tests.fault_specialists:Looks", batch: 5, args: {{pause: {pause}}}}}
  counts: {{use: "tests.fault_specialists:Counts", batch: 5, needs: [looks], args: {{pause: {pause}}}}}
"""


class SkipError(Exception):
    """This machine cannot make that fault; the message says why."""


@dataclass(frozen=True)
class Place:
    """`source` holds 40 pictures, `calm` is their data set annotated undisturbed, `dataset` not yet annotated."""

    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "pictures"

    @property
    def calm(self) -> Path:
        return self.folder / "calm"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    @property
    def recipe(self) -> Path:
        return self.folder / "faults.yaml"

    @classmethod
    def make(cls, folder: Path) -> Place:
        place = cls(folder)
        folder.mkdir(parents=True)
        folder.chmod(0o755)  # one of the faults comes as another user
        write_pictures(place.source, IMAGES)
        place.recipe.write_text(RECIPE.format(pause=0))
        ingest = Child(
            lambda: fde("ingest", place.source, place.dataset, "--shard-size", SHARD), folder / "said"
        ).ended()
        assert ingest.code == 0, ingest.text
        shutil.copytree(place.dataset, place.calm)
        made = place.annotate(dataset=place.calm)
        assert made.code == 0, made.text
        return place

    def child(self, work: Callable[[], object], name: str = "said") -> Child:
        return Child(work, self.folder / name)

    def fde(self, *arguments: object, first: Callable[[], object] | None = None) -> Said:
        """Run a command to its end; `first` is called in its process before it begins."""
        return self.start(*arguments, first=first).ended()

    def start(
        self, *arguments: object, first: Callable[[], object] | None = None, name: str = "said"
    ) -> Child:
        def work() -> None:
            if first is not None:
                first()
            fde(*arguments)

        return self.child(work, name)

    def annotate(
        self,
        *options: object,
        dataset: Path | None = None,
        recipe: Path | None = None,
        first: Callable[[], object] | None = None,
    ) -> Said:
        options = options or ("--runner", "inline")
        return self.fde(
            "annotate", dataset or self.dataset, "-r", recipe or self.recipe, *options, first=first
        )

    def slow_recipe(self, pause: float) -> Path:
        """The same recipe, so slow that something can happen meanwhile; what it says is the same."""
        path = self.folder / "slow.yaml"
        path.write_text(RECIPE.format(pause=pause))
        return path

    def other_recipe(self, specialist: str) -> Path:
        """A recipe of one specialist called `looks`, given in YAML."""
        path = self.folder / "other.yaml"
        path.write_text(f"name: other\nspecialists:\n  looks: {specialist}\n")
        return path

    def undo(self) -> None:
        """Back to the data set as it was ingested, whatever a fault left."""
        shutil.rmtree(self.dataset, ignore_errors=True)
        shutil.copytree(self.calm, self.dataset)
        for made in ("annotations", "failures", "runs", "live", "ledger"):
            shutil.rmtree(self.dataset / made, ignore_errors=True)

    def done(self) -> int:
        """Shards of annotations that stand."""
        return len(shards(self.dataset, ["annotations"]))

    def whole(self) -> None:
        """Nothing is lost and nothing is there twice: every row as in the undisturbed data set."""
        found = differences(self.calm, self.dataset)
        assert not found, found
        assert twins(self.dataset) == 0

    def sound(self) -> None:
        """What stands is right, though not all need be there."""
        found = differences(self.calm, self.dataset, finished=False)
        assert not found, found

    def reasons(self, stage: str = "looks") -> dict[str, int]:
        """Each image has been annotated once or failed once; the failures by reason."""
        reasons: dict[str, int] = {}
        for number in range(-(-IMAGES // SHARD)):
            name = f"{shard_name(number)}.parquet"
            images = pq.read_table(self.dataset / "images" / name, columns=["image_id"])["image_id"]
            said = pq.read_table(self.dataset / "annotations" / stage / name, columns=["image_id"])[
                "image_id"
            ]
            failed = []
            if (self.dataset / "failures" / stage / name).exists():
                rows = pq.read_table(self.dataset / "failures" / stage / name)
                failed = rows["image_id"].to_pylist()
                for reason in rows["reason"].to_pylist():
                    reasons[reason] = reasons.get(reason, 0) + 1
            assert sorted([*pc.unique(said).to_pylist(), *failed]) == sorted(images.to_pylist())
        return reasons

    def refused(self) -> dict[str, int]:
        """What `reasons` are undisturbed: of the images that the specialist itself refuses."""
        rows = [pq.read_table(path).num_rows for path in (self.calm / "failures/looks").glob("*.parquet")]
        return {"too_odd": sum(rows)} if rows else {}


def damage(path: Path, place: float = 0.5, count: int = 64) -> None:
    """Turn over some bytes of a file, from a share of its length on; its size stays."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * place)
    for i in range(start, min(len(data), start + count)):
        data[i] ^= 0xFF
    path.write_bytes(data)


def is_root() -> bool:
    return os.geteuid() == 0
