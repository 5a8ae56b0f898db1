"""What a student is shown: the kept rows of the shards, as token ids, in the order of a timetable."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tokenizers")
pytest.importorskip("transformers")

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, RecipeError
from data_engine.held_out import is_held_out
from data_engine.ingest.run import ingest
from data_engine.schema import ANNOTATIONS, VERDICTS
from data_engine.shards import write_shard
from data_engine.trainer import Learn
from specialists.florence2.prompts import TASKS
from specialists.florence2.scratch import make_tokenizer
from specialists.florence2.sequences import sequences
from specialists.florence2.training.examples import DEFAULT_WEIGHTS, Writer
from specialists.florence2.training.kept import LOOKED_AT, Kept, statements, teaches
from specialists.florence2.training.plan import Plan, Shard, read_plan, survey
from specialists.florence2.training.prefetch import prefetched
from specialists.florence2.training.reader import Reader, Reading, Step, Wanted, reader
from specialists.florence2.training.timetable import Timetable
from tests.scenes_dataset import scenes_dataset

# pycocotools' decode still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRUTH = Learn(("truth",), None, 0.2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scenes_dataset(tmp_path_factory.mktemp("student"))


@cache
def _tokenizer() -> str:
    definition: str = make_tokenizer(
        ["a small red star", "two large cups"], words=300
    ).backend_tokenizer.to_str()
    return definition


def _plan(dataset: Dataset, learn: Learn = TRUTH) -> Plan:
    return replace(survey(dataset, learn, TASKS), tokenizer=_tokenizer())


def _reading(plan: Plan, **changes: Any) -> Reading:
    values: dict[str, Any] = {
        "plan": plan, "batch": 5, "mixed": 2, "seed": 0, "rank": 0, "size": 1, "parts": 1, "weights": DEFAULT_WEIGHTS,
        "prompts": 3, "prompt_room": 200, "answer_room": 200, "shuffled": False, "stride": 16, "dense": True,
    }  # fmt: skip
    return Reading(**(values | changes))


# The timetable


def _toy_plan(counts: list[int]) -> Plan:
    shards = tuple(Shard(f"{i:05d}", count, 0) for i, count in enumerate(counts))
    return Plan("nowhere", TRUTH, shards, (), {}, "")


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=9).filter(any),
    st.integers(1, 7), st.integers(1, 4), st.integers(0, 3),
)  # fmt: skip
def test_every_image_comes_once_in_an_epoch(counts: list[int], batch: int, mixed: int, seed: int) -> None:
    plan = _toy_plan(counts)
    table = Timetable(plan, batch, mixed, seed)
    ids = [[f"{shard}-{i}" for i in range(count)] for shard, count in enumerate(counts)]
    seen: list[list[str]] = [[], []]
    for step in range(table.steps(2)):
        place = table.place(step)
        images = table.images(place, [one for shard in place.shards for one in ids[shard]])
        assert 1 <= len(images) <= batch
        seen[place.epoch] += images
        # Known from its number alone: another timetable says the same.
        assert Timetable(plan, batch, mixed, seed).place(step) == place
    for epoch in seen:
        assert sorted(epoch) == sorted(one for shard in ids for one in shard)


def test_epochs_differ_and_a_part_of_one_is_a_part_of_its_steps() -> None:
    table = Timetable(_toy_plan([40, 40, 40]), 8, 1, 0)
    orders = [[table.place(epoch * 15 + i * 5).shards for i in range(3)] for epoch in range(6)]
    assert len({tuple(order) for order in orders}) > 1
    assert (table.steps(1), table.steps(2), table.steps(0.5), table.steps(1e-9)) == (15, 30, 8, 1)


# What is kept


def _verdicts(dataset: Dataset, dropped: set[str], round_: int = 0) -> None:
    for shard in dataset.shards:
        rows = dataset.annotations("truth", shard)
        ids = rows["annotation_id"].to_pylist()
        table = pa.table(
            {
                "annotation_id": ids, "image_id": rows["image_id"], "source": rows["source"],
                "kept": [one not in dropped for one in ids], "dropped_by": pa.nulls(len(ids), pa.string()),
                "value": pa.nulls(len(ids), pa.float32()), "round": np.full(len(ids), round_, np.int32),
            },
            schema=VERDICTS,
        )  # fmt: skip
        write_shard(dataset.store, f"verdicts/{round_}/{shard}.parquet", table, VERDICTS, {})


def test_what_a_filter_dropped_is_not_learnt_and_without_verdicts_nothing_is(dataset: Dataset) -> None:
    rows = dataset.annotations("truth", "00000")
    briefs = rows.filter(pa.array([g == "brief" for g in rows["granularity"].to_pylist()]))
    dropped = set(briefs["annotation_id"].to_pylist())
    _verdicts(dataset, dropped)
    learn = replace(TRUTH, verdicts=0)
    left = Kept(dataset, learn).table("00000")["annotation_id"].to_pylist()
    assert set(left) == set(rows["annotation_id"].to_pylist()) - dropped
    assert survey(dataset, learn, TASKS).data != survey(dataset, TRUTH, TASKS).data
    with pytest.raises(DatasetError, match="no verdicts of round 7") as caught:
        Kept(dataset, replace(TRUTH, verdicts=7)).table("00000")
    assert "fde filter" in caught.value.hint


@pytest.mark.parametrize("task", TASKS)
def test_an_image_teaches_a_task_where_the_task_has_something_to_say_of_it(
    dataset: Dataset, task: str
) -> None:
    kept = Kept(dataset, TRUTH)
    for shard in dataset.shards[:2]:
        rows = kept.table(shard)
        counted = rows.filter(pa.array(teaches(kept.table(shard, LOOKED_AT), [task])))
        found = set(counted["image_id"].to_pylist())
        for image in rows["image_id"].unique().to_pylist():
            own = rows.filter(pa.array([one == image for one in rows["image_id"].to_pylist()]))
            said = sequences(statements(own.to_pylist(), {}), (160, 120), (task,))
            assert bool(said) == (image in found)


def test_a_plan_counts_what_there_is_and_can_be_read_again(dataset: Dataset, tmp_path: Path) -> None:
    plan = _plan(dataset)
    ids = pa.chunked_array(
        [i for s in dataset.shards for i in dataset.annotations("truth", s)["image_id"].chunks]
    )
    held = is_held_out(ids.unique(), 0.2)
    assert (plan.images, plan.held) == (int((~held).sum()), int(held.sum()))
    assert plan.statements["text brief"] == plan.images
    assert "red" in " ".join(plan.words) or plan.words
    plan.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == replace(plan, corpus=[])


def test_nothing_to_learn_is_said_in_one_line(dataset: Dataset) -> None:
    everything = {
        one for s in dataset.shards for one in dataset.annotations("truth", s)["annotation_id"].to_pylist()
    }
    _verdicts(dataset, everything, 3)
    for learn, tasks, words in (
        (replace(TRUTH, verdicts=3), list(TASKS), "keeps nothing of truth"),
        (replace(TRUTH, held_out=0.9999999), list(TASKS), "are held out"),
        (TRUTH, ["REGION_TO_OCR"], "teaches one of the tasks"),
    ):
        with pytest.raises(DatasetError, match=words) as caught:
            survey(dataset, learn, tasks)
        assert caught.value.hint and "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="did you mean 'truth'"):
        Kept(dataset, replace(TRUTH, sources=("trut",)))


def test_what_hangs_on_another_source_s_statement_is_learnt_without_learning_that(dataset: Dataset) -> None:
    # A sparse source: phrases of texts that the truth has, and nothing else.
    for shard in dataset.shards:
        rows = AnnotationRows("sparse")
        said = dataset.annotations("truth", shard).to_pylist()
        for text in (row for row in said if row["granularity"] == "brief" and row["kind"] == "text"):
            box = next(row["box"] for row in said if row["box"] and row["image_id"] == text["image_id"])
            rows.add(text["image_id"], [Annotation("phrase", text["text"][:4], parent=text["annotation_id"], span=(0, 4), box=box)])  # fmt: skip
        write_shard(dataset.store, f"annotations/sparse/{shard}.parquet", rows.table(), ANNOTATIONS, {})
    learn = Learn(("sparse",), None, 0.0)
    made = Reader(_reading(_plan(dataset, learn), dense=False)).step(Wanted(0, 64))
    asked = {example for batch in made.batches for example in map(tuple, batch.prompts)}
    writer = Writer(_tokenizer(), DEFAULT_WEIGHTS, 1, 200, 200, False)
    sentences = [writer.tokenizer.decode(list(ids)) for ids in asked]
    assert sentences and all(s.startswith("Locate the phrases in the caption:") for s in sentences)


# What becomes of it


def _writer(**changes: Any) -> Writer:
    values: dict[str, Any] = {
        "tokenizer": _tokenizer(), "weights": DEFAULT_WEIGHTS, "prompts": 15, "prompt_room": 400, "answer_room": 400,
        "shuffled": False,
    }  # fmt: skip
    return Writer(**(values | changes))


def _caption(text: str, phrases: list[tuple[int, int]]) -> list[Annotation]:
    caption = Annotation("text", text, "more_detailed")
    boxes = [Annotation("phrase", text[a:b], parent=caption, span=(a, b), box=(1, 1, 50 + a % 40, 60)) for a, b in phrases]  # fmt: skip
    return [caption, *boxes]


def test_an_answer_without_room_is_cut_and_its_end_is_not_taught() -> None:
    rows = _caption("a small red star and two large cups " * 9, [])
    (whole,) = _writer().taught(rows, (100, 100), np.random.default_rng(0))
    writer = _writer(answer_room=20)
    (cut,) = writer.taught(rows, (100, 100), np.random.default_rng(0))
    assert cut.answer == whole.answer[:20]
    assert whole.answer[-1] == 2 and cut.answer[-1] != 2
    assert writer.counts["cut"] == 1


def test_a_text_without_room_is_grounded_sentence_by_sentence() -> None:
    pytest.importorskip("spacy")
    sentences = [f"A red star number {i} stands near the cup." for i in range(12)]
    text = " ".join(sentences)
    starts = [text.index(s) for s in sentences]
    rows = _caption(text, [(s, s + len("A red star")) for s in starts])
    room = 150
    writer = _writer(weights={"CAPTION_TO_PHRASE_GROUNDING": 1.0}, prompt_room=room)
    prompts = set()
    for seed in range(40):
        for one in writer.taught(rows, (100, 100), np.random.default_rng(seed)):
            assert len(one.prompt) <= room
            said = writer.tokenizer.decode(one.prompt)
            # As many phrases as the part has sentences, all in it.
            assert writer.tokenizer.decode(one.answer, skip_special_tokens=False).count("A red star") == said.count("A red star")  # fmt: skip
            prompts.add(said)
    assert len(prompts) > 1
    assert writer.counts["split"] == 40 and not writer.counts["left out"]


def test_a_drawn_order_says_the_same_things(dataset: Dataset) -> None:
    kept = Kept(dataset, TRUTH)
    rows = kept.table("00000")
    image = rows["image_id"].to_pylist()[0]
    said = statements(
        rows.filter(pa.array([one == image for one in rows["image_id"].to_pylist()])).to_pylist(), {}
    )
    plain = {(e.task, e.said): e.answer for e in sequences(said, (160, 120))}
    orders = set()
    for seed in range(5):
        drawn = {
            (e.task, e.said): e.answer
            for e in sequences(said, (160, 120), shuffled=np.random.default_rng(seed))
        }
        assert drawn.keys() == plain.keys()
        for key, answer in drawn.items():
            assert sorted(answer) == sorted(plain[key])
        orders.add(drawn["DENSE_REGION_CAPTION", ""])
        same = "CAPTION", ""
        assert drawn[same] == plain[same]
    assert len(orders) > 1


# Batches


def _flat(step: Step) -> list[tuple[str, bytes, list[tuple[list[int], list[int]]]]]:
    """Of each image its id, its pixels and what is asked, in an order of ids."""
    found = []
    for batch in step.batches:
        for i, image in enumerate(batch.ids):
            asked = [
                (p, a) for at, p, a in zip(batch.images, batch.prompts, batch.answers, strict=True) if at == i
            ]
            found.append((image, batch.pixels[i].tobytes(), asked))
    return sorted(found, key=lambda f: f[0])


def test_a_step_is_the_same_for_any_number_of_processes_and_parts(dataset: Dataset) -> None:
    plan = _plan(dataset)
    alone = Reader(_reading(plan))
    shares = [Reader(_reading(plan, rank=rank, size=3, parts=2)) for rank in range(3)]
    for number in (0, 3, 1):
        whole = _flat(alone.step(Wanted(number, 64)))
        spread = [one for share in shares for one in _flat(share.step(Wanted(number, 64)))]
        assert whole == sorted(spread, key=lambda f: f[0])
    held = [one for batch in alone.held(4, 64) for one in batch.ids]
    assert sorted(held) == sorted(one for share in shares for batch in share.held(4, 64) for one in batch.ids)
    assert is_held_out(pa.array(held), 0.2).all()


def test_batches_made_in_another_process_are_those_made_here(dataset: Dataset) -> None:
    reading = _reading(_plan(dataset))
    wanted = [Wanted(2, 64), Wanted(3, 96)]
    here = list(prefetched(reader, reading, wanted, 0))
    there = list(prefetched(reader, reading, wanted, 1))
    assert [_flat(step) for step in here] == [_flat(step) for step in there]
    assert here[1].batches[0].pixels.shape[2:] == (96, 96)
    assert here[1].batches[0].dense.covered.shape[1] == 36


def test_an_image_that_is_gone_is_left_out_and_counted(dataset: Dataset, tmp_path: Path) -> None:
    own = scenes_dataset(tmp_path, 3)
    plan = _plan(own, replace(TRUTH, held_out=0.0))
    next((tmp_path / "scenes" / "images").glob("*.jpg")).unlink()
    step = Reader(_reading(plan)).step(Wanted(0, 64))
    assert sum(len(batch.ids) for batch in step.batches) == 2
    assert step.notes["unreadable"] == 1


def test_embedded_images_are_read_from_their_shards(dataset: Dataset, tmp_path: Path) -> None:
    folder = Path(dataset.url).parent
    ingest(str(folder / "scenes"), str(tmp_path / "embedded"), shard_size=4, embed=True)
    embedded = Dataset.open(str(tmp_path / "embedded"))
    assert embedded.info.embedded
    linked, held = (Reader(_reading(_plan(one))).step(Wanted(1, 64)) for one in (dataset, embedded))
    assert _flat(linked) == _flat(held)


def test_data_that_changes_under_a_training_ends_it(dataset: Dataset) -> None:
    plan = _plan(dataset)
    other = replace(plan, shards=tuple(replace(s, taught=s.taught + 1) for s in plan.shards))
    with pytest.raises(DatasetError, match="has changed since the training began"):
        Reader(_reading(other)).step(Wanted(0, 64))


@settings(max_examples=20)
@given(st.text(max_size=40))
def test_no_text_becomes_a_location_or_an_end(text: str) -> None:
    taught = _writer().taught([Annotation("text", text, "brief")], (10, 10), np.random.default_rng(0))
    first = json.loads(_tokenizer())
    marks = {t["id"] for t in first["added_tokens"]}
    for one in taught:
        assert not marks & set(one.answer[1:-1])
