"""Training a Florence-2 from nothing: what it starts from, what it is taught by, and what is left on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, StorageError
from data_engine.image import Image
from data_engine.scenes.claims import ClaimReader
from data_engine.scenes.scene import Scene, make_scene
from specialists.florence2 import Florence2, scenes_stages, scenes_training
from specialists.florence2.dense_targets import dense_targets
from specialists.florence2.prompts import TASKS
from specialists.florence2.scenes_examples import TASK_WEIGHTS, Drawing, batches
from specialists.florence2.scenes_quality import Quality, _Counts, _Truth, measure
from specialists.florence2.scenes_stages import Stage, train_in_stages
from specialists.florence2.scenes_training import _Losses, train
from specialists.florence2.scratch import (
    Dimensions,
    make_model,
    make_processor,
    make_tokenizer,
    wrap_tokenizer,
)
from specialists.florence2.shared_steps import Team
from specialists.florence2.training.batch import Batch

# pycocotools' decode still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = Dimensions(
    side=64, embed_dim=(16, 16, 32, 32), depths=(1, 1, 1, 1), patch_stride=(4, 2, 2, 1), window=4,
    head_width=16, width=32, encoder_layers=1, decoder_layers=1, feed_forward=64,
)  # fmt: skip
SETTINGS: dict[str, Any] = {
    "dimensions": TINY, "words": 300, "scenes": 2, "tasks": 3, "workers": 0, "threads": 1, "evaluate_on": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_scenes_for_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes_training, "_TOKENIZER_SCENES", 30)


@cache
def _tokenizer() -> Any:
    return make_tokenizer(["a small red star", "two large wooden cups"], words=400)


def _drawing(**changes: Any) -> Drawing:
    values: dict[str, Any] = {
        "seed": 1_000_000, "world": "pretraining", "scenes": 2, "tasks": 3, "side": 64, "grid": 4,
        "words": ("red", "small", "star"), "tokenizer": _tokenizer().backend_tokenizer.to_str(),
    }  # fmt: skip
    return Drawing(**(values | changes))


def _first(drawing: Drawing, count: int, **how: int) -> list[Batch]:
    made = batches(drawing, **how)
    try:
        return [next(made) for _ in range(count)]
    finally:
        made.close()  # type: ignore[attr-defined]


# What it starts from


def test_the_default_model_is_small_enough_to_ship() -> None:
    tokenizer = _tokenizer()
    model = make_model(tokenizer, Dimensions())
    missing = 1000 + 1025 - len(tokenizer)  # of the words of a full corpus
    parameters = sum(p.numel() for p in model.parameters()) + missing * Dimensions().width
    assert 5_000_000 < parameters < 6_000_000
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_neighbouring_locations_and_features_start_near_each_other() -> None:
    tokenizer = _tokenizer()
    model = make_model(tokenizer, TINY, seed=3)
    first = tokenizer.convert_tokens_to_ids("<loc_0>")
    table = model.get_input_embeddings().weight.detach().numpy()
    places = table[first : first + 1000]
    near = np.linalg.norm(places[1:] - places[:-1], axis=1)
    far = np.linalg.norm(places[200:] - places[:-200], axis=1)
    assert near.max() < far.min() / 4
    # As strong as any other token, so that the output layer prefers neither.
    assert places.std() == pytest.approx(table[:400].std(), rel=0.2)
    positions = model.model.multi_modal_projector.image_position_embed
    assert positions.row_embeddings.weight[:4].std().item() == pytest.approx(0.6, rel=0.3)
    assert model.model.language_model.encoder.layers[0].fc1.weight.std().item() == pytest.approx(
        0.06, rel=0.1
    )


def test_a_seed_gives_one_model_and_leaves_the_caller_s_chance_alone() -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(1).item()
    torch.manual_seed(5)
    one, same, other = (make_model(_tokenizer(), TINY, seed).lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.rand(1).item() == expected


@pytest.mark.parametrize(
    "changes", [{"side": 60}, {"depths": (1, 1)}, {"patch_size": (6, 3, 3, 3)}, {"width": 48}]
)
def test_dimensions_that_fit_no_model_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        Dimensions(**({"head_width": 32} | changes)).check()
    assert caught.value.hint


def test_training_sees_an_image_as_the_processor_shows_it() -> None:
    pixels = make_scene(3, 1, (320, 240)).pixels
    shown = make_processor(_tokenizer(), TINY).image_processor([pixels], return_tensors="np")["pixel_values"][
        0
    ]
    side = (TINY.side, TINY.side)
    seen = np.asarray(PIL.Image.fromarray(pixels).resize(side, PIL.Image.Resampling.BICUBIC)) / 255
    normal = (seen - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    assert np.abs(shown - normal.transpose(2, 0, 1)).max() < 0.05  # a level is 0.017


# What it is taught by


def test_location_targets_sum_to_one_and_peak_at_the_true_bin() -> None:
    from specialists.florence2.locating import SoftLocations

    targets = SoftLocations(first=10).targets.numpy()
    assert targets.sum(axis=1) == pytest.approx(np.ones(1000), abs=1e-5)
    assert (targets.argmax(axis=1) == np.arange(1000)).all()
    assert targets[500, 512] / targets[500, 500] == pytest.approx(np.exp(-0.5), rel=1e-4)


def test_a_near_miss_costs_less_than_a_far_one_and_text_is_not_softened() -> None:
    import torch

    from specialists.florence2.locating import SoftLocations

    soft = SoftLocations(first=10)
    logits = torch.full((4, 1020), -40.0)
    for row, bin_ in enumerate((500, 510, 700)):
        at = torch.arange(1000)
        logits[row, 10:1010] = -((at - bin_) ** 2) / (2 * 12.0**2)
    logits[3, 1015] = 40
    text, places = soft.token_losses(logits, torch.tensor([510, 510, 510, 1015]))
    right, near, far = places.tolist()
    assert right == pytest.approx(0, abs=1e-3)
    assert 0.1 < near < far / 10
    assert text.tolist() == pytest.approx([0], abs=1e-3)


def test_everything_lies_under_some_feature_and_the_smallest_thing_on_top() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = rng.uniform(0, 0.95, 2)
        high = np.minimum(low + rng.uniform(0.01, 0.4, 2), 1)
        made = dense_targets([([1], [*low, *high])], grid=8, words=3)
        assert made.covered.any()
        cells = made.covered.reshape(8, 8)
        ys, xs = np.nonzero(cells)
        # No feature is further than half of one from the box.
        assert (xs + 1 > low[0] * 8 - 0.5).all() and (xs < high[0] * 8 + 0.5).all()
        assert (ys + 1 > low[1] * 8 - 0.5).all() and (ys < high[1] * 8 + 0.5).all()
    made = dense_targets([([0], [0.4, 0.4, 0.6, 0.6]), ([1, 2], [0.0, 0.0, 1.0, 1.0])], grid=8, words=3)
    words = made.words.reshape(8, 8, 3)
    assert made.covered.all()
    assert words[3, 3].tolist() == words[4, 4].tolist() == [True, False, False]
    assert words[0, 0].tolist() == [False, True, True]
    assert made.boxes.reshape(8, 8, 4)[3, 4].tolist() == [400, 400, 600, 600]


def test_every_task_is_taught() -> None:
    assert TASK_WEIGHTS.keys() == TASKS.keys()
    assert min(TASK_WEIGHTS.values()) > 0
    # All of a scene's tasks at once: each prompt of the released models comes up within a few scenes.
    made = _first(_drawing(tasks=15), 8, workers=0)
    asked = {_tokenizer().decode(prompt[1:-1]) for batch in made for prompt in batch.prompts}
    for task in TASKS.values():
        assert any(text.startswith(task.sentence.split("{")[0]) for text in asked), task.name


def test_batches_depend_on_their_number_alone_not_on_where_they_are_drawn() -> None:
    here = _first(_drawing(), 3, workers=0)
    later = _first(_drawing(), 2, start=1, workers=0)
    elsewhere = _first(_drawing(), 3, workers=1)
    assert _first(_drawing(), 2, workers=0, stride=2)[1].prompts == here[2].prompts
    for one, other in zip(here + here[1:], elsewhere + later, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.dense.words, other.dense.words)
        assert (one.images, one.prompts, one.answers) == (other.images, other.prompts, other.answers)
    assert not np.array_equal(here[0].pixels, here[1].pixels)
    assert here[0].pixels.shape == (2, 3, 64, 64)
    assert all(ids[0] == 0 and ids[-1] == 2 for ids in here[0].prompts + here[0].answers)


# What is left on disk


def _weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(str(folder / "model.safetensors"))


def test_a_training_leaves_a_checkpoint_that_the_specialist_loads(tmp_path: Path) -> None:
    output = tmp_path / "made" / "florence2"
    quality = train(output, steps=3, **SETTINGS)
    weights = _weights(output)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float16)}
    assert all(np.isfinite(array).all() for array in weights.values())
    assert [p.name for p in output.parent.iterdir()] == ["florence2"]  # the working file is gone
    facts = json.loads((output / "training.json").read_text())
    assert (facts["steps"], facts["unseen"]["pretraining"]["images"]) == (3, 1)
    assert quality == measure(output, 1)
    specialist = Florence2(
        str(output), tasks=["OD", "CAPTION", "OCR_WITH_REGION"], num_beams=1, max_new_tokens=8
    )
    pixels = make_scene(0, 0).pixels
    assert len(specialist([Image("0" * 32, pixels)], None)) == 1


def test_a_killed_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", steps=5, **SETTINGS)

    def killed(drawing: Drawing, start: int, workers: int, stride: int) -> Iterator[Batch]:
        for number, batch in enumerate(batches(drawing, start, workers, stride), start):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(scenes_training, "_SAVE_SECONDS", 0.0)
        patch.setattr(scenes_training, "batches", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", steps=5, **SETTINGS)
    working = tmp_path / "parts.training"
    assert working.is_file()
    with pytest.raises(RecipeError, match="other settings"):
        train(tmp_path / "parts", steps=5, **(SETTINGS | {"tasks": 2}))
    shutil.copy(working, tmp_path / "kept")
    train(tmp_path / "parts", steps=5, **SETTINGS)
    whole, parts = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    assert not working.exists()


@pytest.fixture
def started(tmp_path: Path) -> Path:
    train(tmp_path / "started", steps=2, **SETTINGS)
    return tmp_path / "started"


def test_a_training_goes_on_from_another_at_a_higher_resolution(tmp_path: Path, started: Path) -> None:
    from specialists.florence2.start import load_start

    # Before a single step it is the model that it starts from, but for the stretched positions.
    larger = replace(TINY, side=96, window=3)
    tokenizer = wrap_tokenizer((started / "tokenizer.json").read_text())
    model = make_model(tokenizer, larger, seed=9)
    load_start(model, started, larger)
    kept = _weights(started)
    for name, array in model.state_dict().items():
        if "image_position_embed" in name:
            table = kept[name].astype(np.float32)
            assert not np.array_equal(array[4:6].numpy(), table[4:6])
            ends = array[:6].numpy()
            assert (ends >= table[:4].min(0) - 1e-6).all()  # between what was there
            assert (ends <= table[:4].max(0) + 1e-6).all()
            assert np.allclose(ends[[0, -1]], table[[0, 3]], atol=1e-6)
        elif name in kept:
            assert np.array_equal(array.numpy().astype(np.float16), kept[name]), name
    train(tmp_path / "larger", steps=2, start=started, **(SETTINGS | {"dimensions": larger}))
    facts = json.loads((tmp_path / "larger" / "training.json").read_text())
    assert facts["earlier"]["steps"] == 2
    assert facts["dimensions"]["side"] == 96
    assert (tmp_path / "larger" / "tokenizer.json").read_text() == (started / "tokenizer.json").read_text()
    assert "Then, from those weights" in (tmp_path / "larger" / "README.md").read_text()


def test_only_a_training_of_like_dimensions_can_be_gone_on_from(tmp_path: Path, started: Path) -> None:
    with pytest.raises(RecipeError, match="other dimensions"):
        train(
            tmp_path / "out", steps=1, start=started, **(SETTINGS | {"dimensions": replace(TINY, width=64)})
        )
    (started / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(RecipeError, match="no checkpoint of a training"):
        train(tmp_path / "out", steps=1, start=started, **SETTINGS)
    with pytest.raises(RecipeError, match=r"no tokenizer\.json"):
        train(tmp_path / "out", steps=1, start=tmp_path / "nowhere", **SETTINGS)


@pytest.mark.slow
def test_processes_that_train_together_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # other processes take a whole vocabulary
    from specialists.florence2.scenes_training import _Run

    together = SETTINGS | {"processes": 2, "scenes": 1, "workers": 0, "precision": "float32"}
    train(tmp_path / "two", steps=3, **together)
    train(tmp_path / "again", steps=3, **together)
    two, again = _weights(tmp_path / "two"), _weights(tmp_path / "again")
    assert all(np.array_equal(two[name], again[name]) for name in two)
    assert json.loads((tmp_path / "two" / "training.json").read_text())["processes"] == 2

    # The same by hand: the mean of two gradients, each of one process's scenes.
    settings: dict[str, Any] = {
        "seed": 0,
        "world": "pretraining",
        "words": 300,
        "precision": "float32",
        "start": None,
    }
    run = _Run(settings, TINY, tmp_path / "none", Team())
    drawing = _drawing(scenes=1, tokenizer=run.definition, words=run.words)
    drawn = _first(drawing, 6, workers=0)
    for step in range(3):
        run.learner.set_rates(step / 3, 0.02, 0.04)
        for batch in drawn[2 * step : 2 * step + 2]:
            (run._loss(batch, step / 3 >= 0.04, _Losses()) / 2).backward()  # type: ignore[no-untyped-call]
        run._learn(sum(p.sum() * 0 for p in run.learner.used))
        run.step += 1
    run.save(tmp_path / "hand")
    hand = _weights(tmp_path / "hand")
    assert all(np.allclose(two[n], hand[n], atol=2e-3) for n in two)


def test_small_pictures_come_first_and_an_interruption_costs_no_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (
        Stage(0.5, 2, scenes=2, tasks=2, processes=1, dimensions=TINY),
        Stage(0.5, 3, scenes=1, tasks=1, processes=1, dimensions=replace(TINY, side=96, window=3)),
    )
    how: dict[str, Any] = {"stages": stages, "words": 300, "evaluate_on": 1, "threads": 1}
    plain = scenes_stages.train

    def broken(output: Path, **args: Any) -> Quality:
        if args["start"] is not None:
            raise KeyboardInterrupt
        return plain(output, **args)

    monkeypatch.setattr(scenes_stages, "train", broken)
    with pytest.raises(KeyboardInterrupt):
        train_in_stages(tmp_path / "f", **how)
    first = tmp_path / "f.stage-1" / "model.safetensors"
    made = first.stat().st_mtime_ns
    again: list[Path] = []
    monkeypatch.setattr(
        scenes_stages, "train", lambda output, **args: (again.append(output), plain(output, **args))[1]
    )
    train_in_stages(tmp_path / "f", **how)
    assert again == [tmp_path / "f"] and made
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    facts = json.loads((tmp_path / "f" / "training.json").read_text())
    assert (facts["steps"], facts["earlier"]["steps"]) == (3, 2)
    assert (facts["dimensions"]["side"], facts["earlier"]["dimensions"]["side"]) == (96, 64)


def test_a_file_that_is_no_working_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.training").write_bytes(b"no torch file")
    with pytest.raises(RecipeError) as caught:
        train(tmp_path / "out", steps=1, **SETTINGS)
    assert "remove" in caught.value.hint


@pytest.mark.parametrize(
    "arguments",
    [{"minutes": 0}, {"steps": 0}, {"scenes": 0}, {"tasks": 0}, {"workers": -1}, {"precision": "float16"}],
)
def test_arguments_that_cannot_train_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        train(tmp_path / "out", **arguments)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        train(tmp_path / "file" / "out", steps=1, **SETTINGS)


def test_learning_lowers_the_loss(tmp_path: Path) -> None:
    # The same few scenes over and over must become likely: gradients reach every part that is used.
    from specialists.florence2.scenes_training import _Run

    settings = {"format": 1, "seed": 0, "world": "pretraining", "words": 300, "scenes": 2, "tasks": 3, "precision": "float32", "start": None}  # fmt: skip
    run = _Run(settings, TINY, tmp_path / "none", Team())
    (batch,) = _first(_drawing(tokenizer=run.definition, words=run.words), 1, workers=0)
    losses = []
    for _ in range(20):
        run.learner.set_rates(0.2, 0.02, 0.04)
        loss = run._loss(batch, True, _Losses())
        losses.append(loss.item())
        run._learn(loss)
    assert losses[-1] < 0.85 * losses[0]
    # A weight that no gradient ever reached has no state in the optimizer.
    learner = run.learner
    assert all(master in learner.optimizer.state for master, name in zip(learner.masters, learner.names, strict=True) if "embed_positions" not in name)  # fmt: skip


# How it is measured


def _said_by_an_oracle(scene: Scene, asked: dict[str, Annotation]) -> list[Annotation]:
    """The truth, in the rows that a specialist makes of it."""
    ids = {id(row): key for key, row in asked.items()}
    rows = []
    for row in scene.annotations:
        if row.kind == "text" and row.granularity in ("brief", "ocr"):
            rows.append(Annotation("text", row.text, row.granularity, score=0.5))
        elif row.kind == "region" and row.granularity == "phrase":
            rows.append(Annotation("region", row.text, "phrase", box=row.box, score=0.5))
            rows.append(Annotation("region", row.text, "phrase", ids[id(row)], box=row.box, score=0.5))
        elif row.kind == "phrase" and id(row) in ids:
            rows.append(
                Annotation("phrase", row.text, None, ids[id(row.parent)], row.span, row.box, score=0.5)
            )
        elif row.kind == "phrase" and id(row.parent) in ids:
            rows.append(Annotation("phrase", None, None, ids[id(row.parent)], box=row.box, mask=row.mask))
    return rows


def _judged(change: Callable[[list[Annotation]], list[Annotation]]) -> Quality:
    counts = _Counts()
    for index in range(12):
        scene = make_scene(11, index)
        truth = _Truth(scene.annotations)
        asked = {f"{i:032x}": row for i, row in enumerate(truth.asked)}
        counts.add(truth, asked, change(_said_by_an_oracle(scene, asked)), ClaimReader())
    return counts.quality(12)


def test_the_truth_is_without_fault_and_silence_without_merit() -> None:
    assert astuple(_judged(lambda rows: rows)) == pytest.approx((1,) * 10 + (12,))
    silent = _judged(lambda rows: [])
    assert (silent.quotations, silent.actions) == (-1, -1), "nothing was said, so nothing can be false"
    assert astuple(replace(silent, quotations=0, actions=0)) == (0,) * 10 + (12,)


def test_each_measure_is_of_its_own_task() -> None:
    def moved(rows: list[Annotation]) -> list[Annotation]:
        # Every box with a score and no place in a text: what OD says, and it alone is judged by its box.
        return [
            Annotation("region", r.text, "phrase", r.parent, box=(0, 0, 1, 1), score=0.5)
            if r.kind == "region"
            else r
            for r in rows
        ]

    quality = _judged(moved)
    assert quality.detection_f1 == 0
    assert quality.grounding_recall == quality.category == quality.referring_iou == 1

    def reworded(rows: list[Annotation]) -> list[Annotation]:
        return [
            Annotation("text", "Nine hearts and a red star.", "brief") if r.granularity == "brief" else r
            for r in rows
        ]

    quality = _judged(reworded)
    assert quality.attributes == quality.caption_exact == quality.caption_true == 0
    assert quality.writing_exact == 1

    def written_upon(rows: list[Annotation]) -> list[Annotation]:
        return [
            Annotation("text", (r.text or "")[:-1] + ' and "NOWHERE".', "brief")
            if r.granularity == "brief"
            else r
            for r in rows
        ]

    quality = _judged(written_upon)
    assert quality.attributes == quality.actions == 1
    assert 0 < quality.quotations < 0.9 and quality.caption_true == 0


def test_only_the_best_scored_box_of_a_phrase_counts() -> None:
    def with_surer_mistakes(rows: list[Annotation]) -> list[Annotation]:
        wrong = [
            Annotation("phrase", r.text, None, r.parent, r.span, (0, 0, 1, 1), score=0.9)
            for r in rows
            if r.span is not None
        ]
        return [*rows, *wrong]

    assert _judged(with_surer_mistakes).grounding_recall == 0
