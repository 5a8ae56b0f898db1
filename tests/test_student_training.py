"""Training a student on a data set: what is left on disk, whatever happens in between."""

from __future__ import annotations

import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tensorboardX")

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, FdeError, ModelLoadError, RecipeError, StorageError
from data_engine.image import Image
from data_engine.scenes.scene import make_scene
from data_engine.schema import ANNOTATIONS
from data_engine.shards import write_shard
from data_engine.trainer import Learn
from specialists.florence2 import Florence2
from specialists.florence2.shared_steps import Team
from specialists.florence2.student import Student
from specialists.florence2.training import loop, run
from specialists.florence2.training.loop import Loop
from specialists.florence2.training.state import Working, read_tensors
from tests.scenes_dataset import TINY, scenes_dataset

# pycocotools' decode still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRUTH = Learn(("truth",), None, 0.2)


def student(**changes: Any) -> Student:
    values: dict[str, Any] = {
        "model": TINY, "steps": 6, "batch": 4, "prompts": 3, "threads": 1, "readers": 0, "precision": "float32",
        "evaluations": 2, "evaluate_on": 4, "runner": "inline",
    }  # fmt: skip
    return Student(**(values | changes))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scenes_dataset(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing interrupted."""
    output = tmp_path_factory.mktemp("students") / "whole"
    student().train(dataset, TRUTH, output, None, lambda _: None)
    return output


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return found


def curve(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def held_out(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["held_out"]) for line in lines if "held_out" in line]


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(str(folder / "model.safetensors"))


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process ends when it asks for a step."""
    plain: Callable[..., Iterable[Any]] = loop.prefetched

    def broken(*args: Any) -> Iterator[Any]:
        for made in plain(*args):
            if made.wanted.step == step:
                raise KeyboardInterrupt
            yield made

    with monkeypatch.context() as patch:
        patch.setattr(loop, "prefetched", broken)
        with pytest.raises(KeyboardInterrupt):
            yield


# What is left on disk


def test_a_training_leaves_a_plain_checkpoint_its_facts_and_its_log(whole: Path, dataset: Dataset) -> None:
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

    assert [p.name for p in whole.parent.iterdir()] == ["whole"]  # the working folder is gone
    assert {array.dtype for array in weights(whole).values()} == {np.dtype(np.float16)}
    told = facts(whole)
    assert (told["steps"], told["side"], told["data"]["sources"]) == (6, 64, ["truth"])
    assert told["data"]["images"] + told["data"]["images_held_out"] == dataset.info.images
    assert told["loss_held_out"] > 0
    assert [step for step, _ in curve(whole)] == list(range(6))
    assert list(whole.glob("events.out.tfevents.*"))
    Florence2ForConditionalGeneration.from_pretrained(whole)
    assert Florence2Processor.from_pretrained(whole).num_image_tokens == 17
    specialist = Florence2(str(whole), tasks=["OD", "CAPTION"], num_beams=1, max_new_tokens=8)
    assert len(specialist([Image("0" * 32, make_scene(0, 0).pixels)], None)) == 1


def test_what_is_trained_is_not_trained_again(whole: Path, dataset: Dataset) -> None:
    made = (whole / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    student(readers=2, workers=1, save_steps=1).train(dataset, TRUTH, whole, None, said.append)
    assert (whole / "model.safetensors").stat().st_mtime_ns == made
    assert said == [f"{whole} is trained already"]


# Interruptions


def test_an_interrupted_training_gives_what_it_would_have_given(
    whole: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "parts"
    with killed_at(4, monkeypatch):
        # Saved at 3, so that step 3 is done twice.
        student(save_steps=3).train(dataset, TRUTH, output, None, lambda _: None)
    assert not output.exists()
    with pytest.raises(RecipeError, match="other settings") as caught:
        student(prompts=2).train(dataset, TRUTH, output, None, lambda _: None)
    assert "remove" in caught.value.hint
    said: list[str] = []
    student(save_steps=3).train(dataset, TRUTH, output, None, said.append)
    assert any("going on from step 3" in line for line in said)
    assert curve(output) == curve(whole)
    assert [step for step, _ in held_out(whole)] == [3, 6] and held_out(output) == held_out(whole)
    assert same_weights(output, whole)


def test_a_finished_training_whose_folder_was_not_put_in_place_is_only_exported(
    whole: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_network", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            student().train(dataset, TRUTH, tmp_path / "s", None, lambda _: None)
        patch.undo()
        patch.setattr(run, "learn", lambda *_: pytest.fail("it is trained already"))
        student().train(dataset, TRUTH, tmp_path / "s", None, lambda _: None)
    assert same_weights(tmp_path / "s", whole)


def test_a_full_disk_during_a_checkpoint_loses_nothing_that_was_kept(
    whole: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "full"
    with killed_at(3, monkeypatch):
        student(save_steps=2, evaluations=0).train(dataset, TRUTH, output, None, lambda _: None)
    state = Working.of(output).state
    kept = state.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, limits[1]))
    try:
        with pytest.raises(StorageError, match="no space left") as caught:
            student(save_steps=2, evaluations=0).train(dataset, TRUTH, output, None, lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in caught.value.message and caught.value.hint
    assert state.read_bytes() == kept
    assert not list(state.parent.glob("*.partial"))
    student(save_steps=2, evaluations=0).train(dataset, TRUTH, output, None, lambda _: None)
    assert curve(output) == curve(whole)


def test_a_loss_that_is_no_number_stops_the_training_and_names_the_images(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = loop.Forward.loss

    def broken(self: Any, batch: Any, counts: Any, speaks: bool, sums: Any) -> Any:
        loss = plain(self, batch, counts, speaks, sums)
        if self.steps_done == 4:
            sums.add(text=float("nan"))
        self.steps_done += 1
        return loss

    output = tmp_path / "nan"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Forward, "steps_done", 0, raising=False)
        patch.setattr(loop.Forward, "loss", broken)
        with pytest.raises(FdeError, match="the loss of step 4 is not a number, on the images [0-9a-f]{32}") as caught:  # fmt: skip
            student(save_steps=3, evaluations=0).train(dataset, TRUTH, output, None, lambda _: None)
    assert "the weights of step 3 are a checkpoint in" in caught.value.hint
    assert not output.exists()
    Florence2(str(Working.of(output).last_good), tasks=["CAPTION"], num_beams=1)


def test_weights_that_are_no_numbers_replace_no_state(dataset: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "wild"
    with pytest.raises(FdeError, match="is not a number"):
        student(rate=1e38, warm_up=0.5, save_steps=1, locating=False, evaluations=0).train(
            dataset, TRUTH, output, None, lambda _: None
        )
    saved = read_tensors(Working.of(output).state)
    import torch

    assert saved is None or all(bool(torch.isfinite(m).all()) for m in saved["masters"])


# Several processes


class Together(Team):
    """Teams of threads of one process, so that what two processes do is seen without starting any."""

    def __init__(self, rank: int, size: int, shared: dict[str, Any]) -> None:
        super().__init__(rank, size)
        self.shared = shared

    def _all(self, value: Any) -> list[Any]:
        self.shared["values"][self.rank] = value
        self.shared["meet"].wait()
        found = list(self.shared["values"])
        self.shared["meet"].wait()
        return found

    def agreed(self, value: float) -> float:
        return float(self._all(value)[0])

    def total(self, tensors: Any) -> None:
        for own in tensors:
            parts = self._all(own.clone())
            own.copy_(sum(parts[1:], parts[0]))


def test_two_processes_learn_as_one_does(dataset: Dataset, tmp_path: Path) -> None:
    settings = student(evaluations=1, steps=8, accumulate=2)
    jobs = [run.begin(settings, dataset, TRUTH, tmp_path / name, None) for name in ("one", "two")]
    Loop(jobs[0], Team()).run()
    shared = {"values": [None, None], "meet": threading.Barrier(2, timeout=120)}
    loops = [Loop(jobs[1], Together(rank, 2, shared)) for rank in range(2)]
    threads = [threading.Thread(target=one.run) for one in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, two = (curve(job.working.student) for job in jobs)
    assert [step for step, _ in one] == [step for step, _ in two] == list(range(8))
    assert np.allclose([loss for _, loss in one], [loss for _, loss in two], rtol=1e-4)
    ours, theirs = (read_tensors(job.working.state) for job in jobs)
    assert ours is not None and theirs is not None
    assert ours["best"]["loss"] == pytest.approx(theirs["best"]["loss"], rel=1e-4)
    for a, b in zip(ours["average"], theirs["average"], strict=True):
        assert np.allclose(a.numpy(), b.numpy(), atol=1e-3)


# What it begins with


def test_a_student_goes_on_from_another_at_a_higher_resolution_with_its_tokenizer(
    whole: Path, dataset: Dataset, tmp_path: Path
) -> None:
    output = tmp_path / "next"
    student(steps=4, resolution=[[0, 64], [0.5, 96]], evaluations=1).train(dataset, TRUTH, output, whole, lambda _: None)  # fmt: skip
    told = facts(output)
    assert (told["side"], told["dimensions"]["side"], told["dimensions"]["window"]) == (96, 96, 6)
    assert told["settings"]["start"] == str(whole)
    assert (output / "tokenizer.json").read_text() == (whole / "tokenizer.json").read_text()
    sides = [json.loads(line).get("side") for line in (output / "log.jsonl").read_text().splitlines()]
    assert [side for side in sides if side] == [64, 64, 96, 96]
    Florence2(str(output), tasks=["OD"], num_beams=1, max_new_tokens=4)


def test_adapters_are_merged_into_weights_of_which_nothing_else_has_changed(
    whole: Path, dataset: Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    output = tmp_path / "adapted"
    student(steps=3, lora=2, rate=0.05, warm_up=0.0, locating=False).train(dataset, TRUTH, output, whole, lambda _: None)  # fmt: skip
    before, after = weights(whole), weights(output)
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert any("q_proj" in name for name in changed) and any("vision_tower" in name for name in changed)
    assert not any("embed" in name or "norm" in name or "conv" in name for name in changed)


def test_a_frozen_vision_tower_stays_as_it_was(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "frozen"
    student(steps=2, freeze_vision=True, checkpointing=True, precision="bfloat16").train(dataset, TRUTH, output, whole, lambda _: None)  # fmt: skip
    before, after = weights(whole), weights(output)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed and not any("vision_tower" in name for name in changed)


def test_a_checkpoint_with_another_s_tokenizer_is_refused(
    whole: Path, dataset: Dataset, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(whole, foreign)
    text = (foreign / "tokenizer.json").read_text()
    definition = json.loads(text)
    merges = definition["model"]["merges"]
    definition["model"]["merges"] = merges[::-1]
    (foreign / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(ModelLoadError, match="not the one that it learnt with") as caught:
        student().train(dataset, TRUTH, tmp_path / "out", foreign, lambda _: None)
    assert caught.value.hint
    (foreign / "tokenizer.json").write_text(text.replace("<loc_7>", "<lok_7>"))
    with pytest.raises(ModelLoadError, match="has no <loc_7>"):
        student().train(dataset, TRUTH, tmp_path / "out", foreign, lambda _: None)
    config = json.loads((whole / "config.json").read_text())
    config["text_config"]["vocab_size"] = config["vocab_size"] = 900
    (foreign / "tokenizer.json").write_text(text)
    (foreign / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match=r"its tokenizer has \d+ tokens, its model 900"):
        student().train(dataset, TRUTH, tmp_path / "out", foreign, lambda _: None)
    assert not (tmp_path / "out").exists()


# What there may be to learn from


def _source(dataset: Dataset, name: str, say: Callable[[int], list[Annotation]]) -> Learn:
    count = 0
    for shard in dataset.shards:
        rows = AnnotationRows(name)
        for image in next(dataset.image_batches(shard, 1000, ["image_id"]))["image_id"].to_pylist():
            rows.add(image, say(count), (160, 120))
            count += 1
        write_shard(dataset.store, f"annotations/{name}/{shard}.parquet", rows.table(), ANNOTATIONS, {"fingerprint": name})  # fmt: skip
    return Learn((name,), None, 0.0)


def _box(label: str) -> Annotation:
    return Annotation("region", label, "phrase", box=(10, 10, 60, 50))


def _text(text: str) -> Annotation:
    return Annotation("text", text, "brief")


@pytest.mark.parametrize(
    ("name", "say"),
    [
        ("one_image", lambda i: [_text("a red star"), _box("star")] if i == 0 else []),
        ("seen_once", lambda i: [_box("cup" if i == 3 else "star")]),
        ("no_objects", lambda i: [_text("nothing but grass")]),
    ],
)
def test_little_is_enough(
    dataset: Dataset, tmp_path: Path, whole: Path, name: str, say: Callable[[int], list[Annotation]]
) -> None:
    learn = _source(dataset, name, say)
    said: list[str] = []
    student(steps=2).train(dataset, learn, tmp_path / "s", whole, said.append)
    assert any("no image is held out" in line for line in said)
    assert facts(tmp_path / "s")["steps"] == 2


def test_nothing_kept_is_one_clear_line_and_leaves_nothing(dataset: Dataset, tmp_path: Path) -> None:
    learn = _source(dataset, "silent", lambda _: [])
    with pytest.raises(DatasetError, match="silent said nothing") as caught:
        student().train(dataset, learn, tmp_path / "s", None, lambda _: None)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_sparse_task_is_learnt_by_a_student_of_other_tasks(
    dataset: Dataset, tmp_path: Path, whole: Path
) -> None:
    learn = _source(
        dataset, "few", lambda i: [Annotation("text", "a long story", "detailed")] if i < 3 else []
    )
    student(steps=2, tasks=["DETAILED_CAPTION"]).train(dataset, learn, tmp_path / "s", whole, lambda _: None)
    assert facts(tmp_path / "s")["prompts"] == {"DETAILED_CAPTION": 6}


def test_a_training_whose_held_out_loss_rises_is_stopped_and_its_best_kept(dataset: Dataset, tmp_path: Path, whole: Path) -> None:  # fmt: skip
    said: list[str] = []
    student(steps=40, evaluations=20, patience=2, rate=3.0, warm_up=0.0, average=0.0, locating=False).train(
        dataset, replace(TRUTH, held_out=0.4), tmp_path / "s", whole, said.append
    )
    told = facts(tmp_path / "s")
    assert told["steps"] < 40 and told["kept_step"] < told["steps"]
    assert any("has not fallen 2 times" in line for line in said)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": None}, {"epochs": 1.0}, {"steps": 0}, {"batch": 0}, {"workers": 5}, {"order": "sorted"},
        {"precision": "float16"}, {"runner": "spark"}, {"tasks": ["OT"]}, {"weights": {"OT": 1}}, {"model": "huge"},
        {"model": {"sied": 64}}, {"resolution": [[0.5, 64]]}, {"resolution": "high"}, {"rate": 0}, {"lora": -1},
        {"tasks": ["OD"], "weights": {"OD": 0.0}},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        student(**settings)
    assert caught.value.hint


def test_a_side_that_does_not_fit_the_model_is_refused(dataset: Dataset, tmp_path: Path, whole: Path) -> None:
    for side, words in ((70, "do not fit the model"), (1600, "too large")):
        with pytest.raises(RecipeError, match=words):
            student(resolution=side).train(dataset, TRUTH, tmp_path / "s", whole, lambda _: None)


def test_the_recipe_s_reader_knows_the_settings() -> None:
    from data_engine.entry_point import check_arguments

    use = "specialists.florence2.student:Student"
    check_arguments(use, {"start": "model", "epochs": 1.5, "lora": 8}, "refine.student")
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        check_arguments(use, {"epoch": 1}, "refine.student")
    with pytest.raises(RecipeError, match="epochs is 'two'"):
        check_arguments(use, {"epochs": "two"}, "refine.student")


def test_images_that_are_held_out_stay_so_for_every_student(dataset: Dataset) -> None:
    # What one student may be judged on, the next has not seen: the share is by the image alone.
    from data_engine.held_out import is_held_out

    ids = pa.array([row["image_id"] for s in dataset.shards for b in dataset.image_batches(s, 99, ["image_id"]) for row in b.to_pylist()])  # fmt: skip
    assert np.array_equal(is_held_out(ids, 0.2), is_held_out(ids, 0.2) & is_held_out(ids, 0.4))
