"""The ledger saves looking into files, and is never believed against the listing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.ledger import FOLDER, Ledger, _believed, _table, find
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.plan import Plan, Unit, make_plan
from data_engine.runner.progress import Reporter
from data_engine.schema import ANNOTATIONS
from data_engine.storage import Stamp, Store
from pipelines.annotate import annotate
from tests.toy_sources import write_pictures

HERE = "annotations/numbers"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", 12)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=2)
    return Dataset.open(str(tmp_path / "ds"))


def recipe(word: str = "number") -> Recipe:
    part = SpecialistPart(use="tests.toy_specialists:Numbers", args={"word": word})
    return Recipe(name="toy", specialists={"numbers": part})


def run(dataset: Dataset, word: str = "number") -> int:
    """Units done."""
    summary = annotate(dataset, recipe(word), runner="inline", reporter=Reporter(terminal=False))
    return summary.stages[0].units_done


def write(dataset: Dataset, shard: str, fingerprint: str) -> Stamp:
    return dataset.write_annotations(
        "numbers", shard, ANNOTATIONS.empty_table(), {"fingerprint": fingerprint}
    )


def test_after_a_run_no_file_is_looked_into(dataset: Dataset) -> None:
    assert run(dataset) == 6
    found = find(dataset.store, HERE)
    assert found.read == 0 and len(found.fingerprints) == 6
    assert len(set(found.fingerprints.values())) == 1
    assert run(dataset) == 0 and run(dataset, "other") == 6 and run(dataset, "other") == 0
    assert find(dataset.store, HERE).read == 0


def test_without_a_ledger_the_footers_say_the_same_and_it_is_there_again(dataset: Dataset) -> None:
    run(dataset)
    before = find(dataset.store, HERE)
    dataset.store.delete_folder(FOLDER)
    without = find(dataset.store, HERE)
    assert without.read == 6 and without.fingerprints == before.fingerprints
    assert run(dataset) == 0
    assert find(dataset.store, HERE).read == 0


def test_a_shard_that_was_replaced_or_touched_is_looked_into(dataset: Dataset) -> None:
    run(dataset)
    path = Path(dataset.store.path(f"{HERE}/00001.parquet"))
    wanted = find(dataset.store, HERE).fingerprints["00001"]
    os.utime(path, ns=(1, 1))
    found = find(dataset.store, HERE)
    assert found.read == 1 and found.fingerprints["00001"] == wanted
    write(dataset, "00002", "another")
    assert find(dataset.store, HERE).fingerprints["00002"] == "another"
    path.unlink()
    assert "00001" not in find(dataset.store, HERE).fingerprints
    assert run(dataset) == 2


def test_a_wrong_a_damaged_and_a_strange_ledger_cost_time_only(dataset: Dataset) -> None:
    run(dataset)
    truth = find(dataset.store, HERE).fingerprints
    folder = Path(dataset.store.path(f"{FOLDER}/{HERE}"))
    (folder / "broken.parquet").write_bytes(b"PAR1 no")
    (folder / "strange.parquet").write_bytes(Path(dataset.store.path("images/00000.parquet")).read_bytes())
    stamp = dataset.store.stamps(HERE)["00003.parquet"]
    liar = Ledger(dataset.store)
    liar.add(HERE, "00003", "a lie about the right file", stamp)
    liar.add(HERE, "00004", "a lie about another file", Stamp(stamp.size + 1, stamp.mtime))
    liar.add(HERE, "99999", "of no shard", stamp)
    liar.flush()
    found = find(dataset.store, HERE)
    assert found.fingerprints == truth and found.read == 1, "two rows that disagree are none"


def test_a_ledger_that_cannot_be_written_ends_no_run(dataset: Dataset) -> None:
    Path(dataset.store.path(FOLDER)).write_text("in the way")
    assert run(dataset) == 6 and run(dataset) == 0


def test_many_files_become_one(dataset: Dataset) -> None:
    run(dataset)
    for shard in dataset.shards * 4:
        ledger = Ledger(dataset.store)
        ledger.add(HERE, shard, "old", Stamp(1, 1))
        ledger.flush()
    assert len(dataset.store.files(f"{FOLDER}/{HERE}")) > 16
    assert run(dataset) == 0
    assert len(dataset.store.files(f"{FOLDER}/{HERE}")) == 1
    assert find(dataset.store, HERE).read == 0 and run(dataset) == 0


def test_a_file_that_is_damaged_is_looked_into_each_time_and_made_again(dataset: Dataset) -> None:
    run(dataset)
    Path(dataset.store.path(f"{HERE}/00000.parquet")).write_bytes(b"PAR1 no")
    for _ in range(2):
        found = find(dataset.store, HERE)
        assert found.fingerprints["00000"] is None and found.read == 1
        ledger = Ledger(dataset.store)
        ledger.keep(found)
        ledger.flush()
    assert run(dataset) == 1


def test_a_listed_shard_that_is_gone_counts_as_not_written(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale listing: a deletion that it does not show yet."""
    run(dataset)
    dataset.store.delete_folder(FOLDER)
    stale = dataset.store.stamps(HERE)
    dataset.store.delete(f"{HERE}/00005.parquet")
    monkeypatch.setattr(Store, "stamps", lambda self, folder, suffix=".parquet": stale)
    plan = make_plan(recipe(), dataset)
    assert plan.stages["numbers"].todo == ["00005"]


def test_refresh_names_what_others_finished_and_that_once(dataset: Dataset) -> None:
    write(dataset, "00001", "stale")
    plan = make_plan(recipe(), dataset)
    wanted = plan.stages["numbers"].fingerprint
    assert plan.units == 6 and plan.refresh() == []
    other: Plan = make_plan(recipe(), dataset)
    for shard in ("00001", "00004"):
        other.finished(Unit("numbers", shard), write(dataset, shard, wanted))
    write(dataset, "00002", "of another recipe")
    plan.finished(Unit("numbers", "00003"), write(dataset, "00003", wanted))
    assert plan.refresh() == [("numbers", "00001"), ("numbers", "00004")]
    assert plan.refresh() == []
    other.flush()
    write(dataset, "00002", wanted)
    assert plan.refresh() == [("numbers", "00002")]


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from("fg"), st.integers(1, 2), st.integers(1, 2) | st.none()
        )
    ),
    listing=st.dictionaries(
        st.sampled_from("abc"), st.tuples(st.integers(1, 2), st.integers(1, 2) | st.none())
    ),
)
def test_only_what_the_listing_confirms_and_nothing_denies_is_believed(
    rows: list[tuple[str, str, int, int | None]],
    listing: dict[str, tuple[int, int | None]],
) -> None:
    there = {shard: Stamp(*facts) for shard, facts in listing.items()}
    found = _believed(_table([(s, f, Stamp(size, mtime)) for s, f, size, mtime in rows]), there)
    expected = {}
    for shard, (size, mtime) in listing.items():
        said = {f for s, f, *facts in rows if s == shard and facts == [size, mtime] and mtime is not None}
        if len(said) == 1:
            expected[shard] = said.pop()
    assert found == expected
