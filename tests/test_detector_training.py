"""The toy detector: that training really trains, and that the shipped weights are as good as their card says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_engine.errors import RecipeError, StorageError
from data_engine.scenes.scene import make_scene
from data_engine.scenes.world import CLASS_NAMES
from specialists.detector_training import TRAINING_SEED, _draw, evaluate, train
from specialists.detector_weights import load_weights, read_metadata

# Looked for, not imported: only the modules tested here know how to import it quietly.
if importlib.util.find_spec("ultralytics") is None:
    pytest.skip("ultralytics is not installed", allow_module_level=True)

# pycocotools still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHIPPED = Path(__file__).resolve().parents[1] / "specialists" / "weights" / "scenes-detector.safetensors"


def test_a_few_steps_give_a_file_that_loads_and_predicts(tmp_path: Path) -> None:
    output = tmp_path / "new" / "toy.safetensors"
    quality = train(output, steps=3, images=8, imgsz=128, batch=4, evaluate_on=2)
    assert quality.images == 2
    assert 0 <= quality.map50_95 <= quality.map50 <= 1
    facts = read_metadata(output)
    assert list(facts["names"].values()) == list(CLASS_NAMES)
    assert (facts["task"], facts["imgsz"], facts["trained"]["steps"]) == ("detect", 128, 3)
    assert facts["trained"]["unseen"]["map50"] == pytest.approx(quality.map50)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["toy.safetensors"]  # and nothing else
    again = evaluate(load_weights(output), count=2, imgsz=128)
    assert again == quality


def test_the_same_arguments_give_the_same_weights(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    for name in ("one", "other"):
        train(tmp_path / name, steps=2, images=8, imgsz=128, batch=4, evaluate_on=1, threads=1)
    one, other = load_file(str(tmp_path / "one")), load_file(str(tmp_path / "other"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_labels_lie_on_the_things_that_they_name() -> None:
    # Shares of the padded picture, back in pixels, are the truth's boxes.
    wide, upright, square = _draw(8, seed=0, imgsz=320, workers=1)
    assert [p.pixels.shape[2:] for p in (wide, upright, square)] == [(256, 320), (320, 256), (320, 320)]
    assert [len(p.boxes) for p in (wide, upright, square)] == [4, 2, 2]
    scene = make_scene(TRAINING_SEED, 0, (320, 240))
    truth = [a for a in scene.annotations if a.kind == "region" and a.granularity == "phrase"]
    for row, a in zip(wide.boxes[0], truth, strict=True):
        assert CLASS_NAMES[int(row[0])] == a.text
        x, y, w, h = row[1:] * (320, 256, 320, 256)
        assert [x - w / 2, y - h / 2 - 8, x + w / 2, y + h / 2 - 8] == pytest.approx(list(a.box), abs=0.01)
    shown = wide.pixels[0][:, 8:-8].transpose(1, 2, 0)
    assert np.abs(shown.astype(int) - scene.pixels).mean() < 4


class _Oracle:
    """A detector that knows the truth, but leaves out the last `miss` things of every scene."""

    def __init__(self, seed: int, miss: int = 0) -> None:
        self.seed, self.miss, self.at = seed, miss, 0

    def predict(self, pictures: list[np.ndarray], **_: object) -> list[SimpleNamespace]:
        return [self._one(picture) for picture in pictures]

    def _one(self, picture: np.ndarray) -> SimpleNamespace:
        scene = make_scene(self.seed, self.at, (picture.shape[1], picture.shape[0]))
        assert np.array_equal(picture[..., ::-1], scene.pixels)  # blue first
        self.at += 1
        truth = [a for a in scene.annotations if a.kind == "region" and a.granularity == "phrase"]
        seen = truth[: max(0, len(truth) - self.miss)]
        boxes = SimpleNamespace(
            xyxy=np.array([a.box for a in seen]).reshape(-1, 4),
            conf=np.full(len(seen), 0.9),
            cls=np.array([CLASS_NAMES.index(a.text) for a in seen]),
        )
        return SimpleNamespace(boxes=boxes)


def test_the_measure_is_one_for_the_truth_and_less_where_things_are_missed() -> None:
    perfect = evaluate(_Oracle(5), count=20, seed=5)
    assert (perfect.map50, perfect.map50_95) == pytest.approx((1, 1))
    missing = evaluate(_Oracle(5, miss=1), count=20, seed=5)
    assert 0.2 < missing.map50 < 0.95
    assert evaluate(_Oracle(5, miss=9), count=3, seed=5).map50 == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"imgsz": 300},
        {"imgsz": 64},
        {"images": 3},
        {"batch": 0},
        {"minutes": 0},
        {"steps": 0},
        {"evaluate_on": 0},
    ],
)
def test_arguments_that_cannot_train_are_refused(tmp_path: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(RecipeError) as caught:
        train(tmp_path / "toy.safetensors", **arguments)
    assert caught.value.hint


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        train(tmp_path / "file" / "toy", steps=1, images=4, imgsz=128, batch=4, evaluate_on=1)


def test_the_shipped_weights_find_things_on_unseen_scenes() -> None:
    seed = 424_242
    assert seed < TRAINING_SEED
    quality = evaluate(load_weights(SHIPPED), count=50, seed=seed)
    assert quality.map50 >= 0.85
    assert quality.map50_95 >= 0.65


def test_the_shipped_card_says_what_the_file_says() -> None:
    facts = read_metadata(SHIPPED)
    card = SHIPPED.with_suffix(".md").read_text(encoding="utf-8")
    assert SHIPPED.stat().st_size <= 2_000_000
    assert tuple(facts["names"].values()) == CLASS_NAMES
    unseen = facts["trained"]["unseen"]
    shown = {name: float(value) for name, value in re.findall(r"\| (mAP\S+) \| ([0-9.]+) \|", card)}
    assert shown == {"mAP50": round(unseen["map50"], 3), "mAP50-95": round(unseen["map50_95"], 3)}
    assert f"{facts['trained']['steps']:,} steps" in card
    assert "AGPL-3.0" in card
