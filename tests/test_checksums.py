"""Bits that turn over in stored pages: told wherever they are read, and never taken for what was said."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_engine.dataset import Dataset
from data_engine.errors import DamagedError
from data_engine.ingest import run
from data_engine.ingest.run import ingest
from data_engine.qa.scope import find_scope
from data_engine.runner.pictures import read_pictures
from data_engine.shards import iter_batches, read_table, write_shard
from data_engine.storage import Store
from pipelines.cli import main
from pipelines.qa import qa
from tests.damage import flip_bit, flip_unseen_bit
from tests.picture_files import encoded, jpeg
from tests.qa_sets import hand_made

ROWS = pa.table(
    {
        "annotation_id": [f"a{n * 7919 % 10_007:05d}" for n in range(3000)],
        "text": [None if n % 7 == 0 else f"a {n % 11} of {n % 13}" for n in range(3000)],
        "box": [[n * 0.37, n * 0.11, n * 0.53, n / 3] for n in range(3000)],
    }
)
CHANCE = st.floats(0, 1, exclude_max=True)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("shard")))
    write_shard(store, "whole.parquet", ROWS, ROWS.schema, {})
    return store


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chance=CHANCE, streamed=st.booleans())
def test_a_bit_that_turns_over_is_damage_and_no_other_value(
    shard: Store, chance: float, streamed: bool
) -> None:
    shutil.copy(shard.path("whole.parquet"), shard.path("flipped.parquet"))
    flip_bit(Path(shard.path("flipped.parquet")), chance)
    try:
        if streamed:
            names = ROWS.schema.names
            found = pa.Table.from_batches(iter_batches(shard, "flipped.parquet", 100, names))
        else:
            found = read_table(shard, "flipped.parquet")
    except DamagedError as error:
        assert "flipped.parquet is damaged" in error.message
    else:  # the headers of pages have bits that say nothing
        assert found.combine_chunks().equals(ROWS)


@pytest.mark.parametrize("seed", range(5))
def test_what_others_read_as_another_value_is_damage_here(shard: Store, seed: int) -> None:
    shutil.copy(shard.path("whole.parquet"), shard.path("flipped.parquet"))
    flip_unseen_bit(Path(shard.path("flipped.parquet")), seed)
    with pytest.raises(DamagedError, match="CRC"):
        read_table(shard, "flipped.parquet")
    with pytest.raises(DamagedError, match="CRC"):
        list(iter_batches(shard, "flipped.parquet", 100, ROWS.schema.names))


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Dataset]:
    """Eight images of noise in one shard: zstd stores what it cannot shrink as it is."""
    source = tmp_path / "in"
    source.mkdir()
    for n in range(8):
        noise = np.random.default_rng(n).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        (source / f"{n}.png").write_bytes(encoded(noise, "PNG"))
    ingest(str(source), str(tmp_path / "ds"), embed=True)
    yield Dataset.open(str(tmp_path / "ds"))


def fde_qa(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["fde", "qa", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_a_bit_in_an_embedded_picture_costs_that_picture_and_is_told_by_qa(
    embedded: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Path(embedded.store.path("images/00000.parquet"))
    data = bytearray(file.read_bytes())
    picture = read_table(embedded.store, "images/00000.parquet")["bytes"][5].as_py()
    data[bytes(data).index(picture[len(picture) // 2 :][:64]) + 9] ^= 4
    assert fde_qa(monkeypatch, embedded.url, "--checksums") in (0, None)
    file.write_bytes(bytes(data))
    pictures = [one for batch in read_pictures(embedded, "00000", batch=3, threads=2) for one in batch]
    assert [one.error and one.error.reason for one in pictures] == [None] * 5 + ["changed"] + [None] * 2
    capfd.readouterr()
    assert fde_qa(monkeypatch, embedded.url) in (0, None)
    assert fde_qa(monkeypatch, embedded.url, "--checksums") == 7
    out, err = capfd.readouterr()
    assert "damaged_shards (1)" in err and "images/00000.parquet" in out and "CRC" in out


@pytest.mark.parametrize("name", ["annotations/detector/00000", "verdicts/1/00001", "images/00000"])
def test_qa_reads_the_checksums_of_every_table(tmp_path: Path, name: str) -> None:
    dataset = hand_made(tmp_path)
    sound = qa(dataset, find_scope(dataset), checksums=True)
    assert sound.failed == []
    flip_unseen_bit(Path(dataset.store.path(f"{name}.parquet")))
    found = qa(dataset, find_scope(dataset), checksums=True)
    damaged = next(check for check in found.checks if check.query.name == "damaged_shards")
    assert damaged.sample is not None and damaged.sample["file"].to_pylist() == [f"{name}.parquet"]


@pytest.mark.parametrize("seed", range(3))
def test_what_was_staged_and_is_damaged_before_it_is_merged_is_staged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for n in range(20):
        (source / f"{n}.jpg").write_bytes(jpeg(n))
    merge = run.merge

    def after_damage(plan: run.Plan, *rest: object) -> object:
        flip_unseen_bit(Path(plan.store.path(".ingest/00000000.parquet")), seed)
        return merge(plan, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(run, "merge", after_damage)
        with pytest.raises(DamagedError) as raised:
            ingest(str(source), str(tmp_path / "ds"))
    assert "\n" not in raised.value.message and "same command again" in str(raised.value.hint)
    summary = ingest(str(source), str(tmp_path / "ds"))
    assert (summary.images, summary.resumed_units) == (20, 0)
    assert len(read_table(Dataset.open(str(tmp_path / "ds")).store, "images/00000.parquet")) == 20
