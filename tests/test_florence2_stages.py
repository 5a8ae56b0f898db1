"""The stages that the shipped Florence-2 was trained in: the same ones again, on any machine, as its card tells."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from data_engine.errors import RecipeError
from data_engine.scenes.write import GENERATOR
from specialists.florence2 import scenes_stages
from specialists.florence2.scenes_card import card
from specialists.florence2.scenes_stages import train_in_stages
from specialists.florence2.scratch import Dimensions

SHIPPED = Path(scenes_stages.__file__).parents[1] / "weights" / "scenes-florence2"


def _asked_of_train(
    monkeypatch: pytest.MonkeyPatch, output: Path, gpu: bool, **how: Any
) -> list[dict[str, Any]]:
    """What each stage of the shipped model asks of `train`, on a machine of 8 cores."""
    asked: list[dict[str, Any]] = []

    def note(place: Path, **args: Any) -> None:
        place.mkdir(exist_ok=True)
        asked.append(args)

    monkeypatch.setattr(scenes_stages, "train", note)
    monkeypatch.setattr(scenes_stages, "has_gpu", lambda: gpu)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    train_in_stages(output, **how)
    return asked


def test_the_stages_of_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _asked_of_train(monkeypatch, tmp_path / "f", gpu=False)
    facts = json.loads((SHIPPED / "training.json").read_text())
    runs = [facts["earlier"]["earlier"], facts["earlier"], facts]
    for stage, run in zip(asked, runs, strict=True):
        assert (stage["steps"], stage["scenes"], stage["tasks"], stage["processes"]) == (
            run["steps"],
            run["scenes"],
            run["tasks"],
            run.get("processes", 1),
        )
        kept = {k: tuple(v) if isinstance(v, list) else v for k, v in run["dimensions"].items()}
        assert stage["dimensions"] == Dimensions(**kept)
    # Two processes that learn leave no core for one that draws.
    assert [stage["workers"] for stage in asked] == [1, 0, 1]


def test_a_stage_for_a_gpu_is_left_out_where_minutes_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _asked_of_train(monkeypatch, tmp_path / "f", gpu=False, minutes=10)
    assert [stage["minutes"] for stage in asked] == pytest.approx([4.6, 5.4])
    assert [stage["steps"] for stage in asked] == [None, None]


def test_on_a_gpu_one_process_takes_the_steps_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _asked_of_train(monkeypatch, tmp_path / "f", gpu=True)
    assert [(stage["processes"], stage["scenes"], stage["workers"]) for stage in asked] == [
        (1, 8, 7),
        (1, 32, 7),
        (1, 64, 7),
    ]


def _stage_that_is_there(place: Path, **changed: Any) -> None:
    place.mkdir()
    facts = {
        "world": "pretraining",
        "seed": 0,
        "generator": GENERATOR,
        "length": "6394 steps",
        "dimensions": asdict(scenes_stages.STAGES[0].dimensions),
    }
    (place / "training.json").write_text(json.dumps(facts | changed))


def test_a_stage_that_is_done_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stage_that_is_there(tmp_path / "f.stage-1")
    asked = _asked_of_train(monkeypatch, tmp_path / "f", gpu=False)
    assert [stage["start"] for stage in asked] == [tmp_path / "f.stage-1", tmp_path / "f.stage-2"]


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"world": "target"}, {"length": "0.46 minutes"}, {"generator": 1}, {"dimensions": {}}],
)
def test_a_stage_of_another_training_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    _stage_that_is_there(tmp_path / "f.stage-1", **changed)
    with pytest.raises(RecipeError, match=f"another training: its {next(iter(changed))} is"):
        _asked_of_train(monkeypatch, tmp_path / "f", gpu=False)
    assert (tmp_path / "f.stage-1" / "training.json").is_file()


def test_the_card_tells_each_machine() -> None:
    facts = json.loads((SHIPPED / "training.json").read_text())
    told = card(facts)
    assert "a machine of 2 CPU cores, shared with other work: 196 minutes; then one NVIDIA H100" in told
    assert "Then, from those weights: 3,162 steps of 64 scenes at 240 pixels in 7 minutes." in told
    assert (SHIPPED / "README.md").read_text() == told
