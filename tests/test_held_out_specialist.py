"""A specialist that is asked about held-out images alone says of them what it says alone, and of others nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError, SpecialistError
from data_engine.held_out import is_held_out
from data_engine.ingest.run import ingest
from data_engine.recipe import Recipe, SpecialistPart
from pipelines.annotate import annotate
from specialists.held_out import HeldOut
from tests.ingested import rows
from tests.toy_sources import write_pictures


def part(use: str, needs: list[str], held_out: float, **args) -> SpecialistPart:
    inner = {"use": use, "args": args, "held_out": held_out}
    return SpecialistPart(use="specialists.held_out:HeldOut", args=inner, needs=needs, batch=7)


def test_held_out_images_are_answered_as_without_and_others_are_not(tmp_path: Path):
    write_pictures(tmp_path / "pictures", 40)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "dataset"), shard_size=20)
    dataset = Dataset.open(str(tmp_path / "dataset"))
    toys = "tests.toy_specialists"
    parts = {
        "numbers": SpecialistPart(use=f"{toys}:Numbers"),
        "echo": SpecialistPart(use=f"{toys}:Echo", needs=["numbers"]),
        "few": part(f"{toys}:Echo", ["numbers"], 0.3),
        "none": part(f"{toys}:Echo", ["numbers"], 0.0),
        "sizes": part(f"{toys}:Sizes", [], 0.3),
    }
    annotate(dataset, Recipe(name="held out", specialists=parts), runner="inline")
    everything = rows(dataset.url, "annotations/echo")
    chosen = is_held_out(pa.array([row["image_id"] for row in everything]), 0.3)
    assert 0 < chosen.sum() < 40
    expected = [(r["image_id"], r["text"]) for r, out in zip(everything, chosen, strict=True) if out]
    assert [(r["image_id"], r["text"]) for r in rows(dataset.url, "annotations/few")] == expected
    assert rows(dataset.url, "annotations/none") == []
    assert len(rows(dataset.url, "annotations/sizes")) == len(expected)


def test_what_is_asked_must_be_there():
    with pytest.raises(RecipeError, match="no module"):
        HeldOut("no_such_package.thing:Thing", {}, 0.1)
    with pytest.raises(SpecialistError, match="cannot be built"):
        HeldOut("tests.toy_specialists:Fails", {}, 0.1)
