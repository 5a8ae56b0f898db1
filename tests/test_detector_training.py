"""The toy detectors: that training really trains, and that the shipped weights are as good as their cards say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from data_engine.annotation import Annotation
from data_engine.errors import ModelLoadError, RecipeError, StorageError
from data_engine.image import Image, decode
from data_engine.scenes.scene import TRAINING_SEED, Scene, make_scene
from data_engine.scenes.world import PRETRAINING, TARGET
from specialists.detector_card import card_text
from specialists.detector_quality import Quality, evaluate, measure
from specialists.detector_scenes import batches, draw, halved
from specialists.detector_training import train
from specialists.detector_weights import load_weights, read_metadata
from specialists.training_arithmetic import training_arithmetic

# Looked for, not imported: only the modules tested here know how to import it quietly.
if importlib.util.find_spec("ultralytics") is None:
    pytest.skip("ultralytics is not installed", allow_module_level=True)

# pycocotools still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = PRETRAINING.class_names
WEIGHTS = Path(__file__).resolve().parents[1] / "specialists" / "weights"
TINY: dict[str, Any] = {"images": 8, "imgsz": 128, "batch": 4, "evaluate_on": 2, "threads": 1}


def things(scene: Scene) -> list[Annotation]:
    return [a for a in scene.annotations if a.kind == "region" and a.granularity == "phrase"]


def masks_of(scene: Scene) -> list[dict[str, Any]]:
    """One of each thing, in their order."""
    rles = {id(a.parent): a.mask for a in scene.annotations if a.kind == "region" and a.mask is not None}
    return [rles[id(thing)] for thing in things(scene)]


# Training


@pytest.mark.parametrize(("task", "largest"), [("detect", 2_000_000), ("segment", 2_400_000)])
def test_a_few_steps_give_a_small_file_that_loads_and_predicts(
    task: str, largest: int, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "toy.safetensors"
    quality = train(output, task, steps=3, **TINY)
    assert quality.images == 2 and 0 <= quality.map50_95 <= quality.map50 <= 1
    assert (quality.mask50 is None) == (task == "detect")
    facts = read_metadata(output)
    assert tuple(facts["names"].values()) == NAMES
    assert (facts["task"], facts["imgsz"], facts["trained"]["steps"]) == (task, 128, 3)
    assert facts["trained"]["unseen"]["pretraining"]["map50"] == pytest.approx(quality.map50)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["toy.md", "toy.safetensors"]
    assert output.stat().st_size <= largest
    again = evaluate(output, count=2, imgsz=128, worlds=[PRETRAINING, TARGET])
    assert again["pretraining"] == quality
    # Another world's classes have other names: nothing crashes, and they are missed.
    assert again["target"].map50 == 0 and set(again["target"].per_class) <= set(TARGET.class_names)


def test_the_same_arguments_give_the_same_weights(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    for name in ("one", "other"):
        train(tmp_path / f"{name}.safetensors", "segment", steps=2, **TINY)
    one, other = (load_file(str(tmp_path / f"{name}.safetensors")) for name in ("one", "other"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_steps_on_the_same_pictures_lower_every_loss() -> None:
    import torch

    from specialists.detector_training import _network, _start

    sets = draw(8, 0, 128, 1, PRETRAINING, masks=True)
    losses = []
    with training_arithmetic(1):
        run = _start(_network("segment", NAMES, 0))
        run.model.train()
        for _, batch in zip(range(20), batches(sets[:1], 4, np.random.default_rng(0)), strict=False):
            loss, items = run.model.loss(batch)
            run.optimizer.zero_grad()
            loss.sum().backward()
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), 10.0)
            run.optimizer.step()
            losses.append([float(items[name]) for name in ("box_loss", "seg_loss", "cls_loss", "dfl_loss")])
    first, last = np.mean(losses[:4], axis=0), np.mean(losses[-4:], axis=0)
    assert (last < 0.9 * first).all()


def test_a_killed_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import specialists.detector_training as training

    class KilledError(Exception):
        pass

    def stored_and_killed(run: Any, path: Path, recipe: dict[str, Any]) -> None:
        store(run, path, recipe)
        if run.done == 2:
            raise KilledError

    store = training.store
    monkeypatch.setattr(training, "_STORED_EVERY", 0.0)
    monkeypatch.setattr(training, "store", stored_and_killed)
    with pytest.raises(KilledError):
        train(tmp_path / "toy.safetensors", steps=4, world=TARGET, **TINY)
    begun: list[int] = []
    monkeypatch.setattr(training, "store", lambda run, path, recipe: begun.append(run.done))
    train(tmp_path / "toy.safetensors", steps=4, world=TARGET, **TINY)
    assert begun == [3, 4]
    assert tuple(load_weights(tmp_path / "toy.safetensors").names.values()) == TARGET.class_names
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.md", "toy.safetensors"]


def test_the_state_of_a_training_survives_the_disk_and_no_other_is_taken(tmp_path: Path) -> None:
    import torch

    from specialists.detector_checkpoint import restore, store
    from specialists.detector_training import _network, _start

    run = _start(_network("detect", NAMES, 0))
    sets = draw(4, 0, 128, 1, PRETRAINING, masks=False)
    run.model.train()
    run.model.loss(next(batches(sets, 2, np.random.default_rng(0))))[0].sum().backward()
    run.optimizer.step()
    run.average.update(run.model)
    run.done, run.seconds = 7, 1.5
    path = tmp_path / "toy.partial"
    store(run, path, {"seed": 0})
    again = _start(_network("detect", NAMES, 1))
    assert not restore(again, tmp_path / "absent", {"seed": 0}) and not restore(again, path, {"seed": 1})
    assert restore(again, path, {"seed": 0})
    assert (again.done, again.seconds, again.average.updates) == (7, 1.5, 1)
    for one, other in ((run.model, again.model), (run.average.ema, again.average.ema)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    states = again.optimizer.state_dict()["state"]
    for index, state in run.optimizer.state_dict()["state"].items():
        assert all(torch.equal(tensor, states[index][name]) for name, tensor in state.items())
    path.write_bytes(path.read_bytes()[:100])
    assert not restore(again, path, {"seed": 0})


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "toy.pt"},
        {"task": "pose"},
        {"imgsz": 300},
        {"imgsz": 64},
        {"images": 3},
        {"batch": 0},
        {"minutes": 0},
        {"steps": 0},
        {"evaluate_on": 0},
    ],
)
def test_arguments_that_cannot_train_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        train(tmp_path / arguments.pop("name", "toy.safetensors"), **arguments)
    assert caught.value.hint


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        train(tmp_path / "file" / "toy.safetensors", steps=1, **TINY)


# Its data


def test_labels_and_masks_lie_on_the_things_that_they_name() -> None:
    wide, upright, square = draw(8, 0, 320, 1, PRETRAINING, masks=True)
    assert [p.pixels.shape[2:] for p in (wide, upright, square)] == [(256, 320), (320, 256), (320, 320)]
    assert [len(p.boxes) for p in (wide, upright, square)] == [4, 2, 2]
    scene = make_scene(TRAINING_SEED, 0, (320, 240))
    # Shares of the padded picture, back in pixels, are the truth's boxes.
    for row, a in zip(wide.boxes[0], things(scene), strict=True):
        assert NAMES[int(row[0])] == a.text
        x, y, w, h = row[1:] * (320, 256, 320, 256)
        assert [x - w / 2, y - h / 2 - 8, x + w / 2, y + h / 2 - 8] == pytest.approx(list(a.box), abs=0.01)
    assert wide.masks is not None
    for cover, rle in zip(wide.masks[0], masks_of(scene), strict=True):
        assert cover.shape == (64, 80)
        full = pycocotools.mask.decode(rle).reshape(60, 4, 80, 4).mean(axis=(1, 3))
        assert cover[2:-2] / 255 == pytest.approx(full, abs=0.005) and not cover[:2].any()
    # What is learnt from is the file, with JPEG's traces.
    shown = wide.pixels[0][:, 8:-8].transpose(1, 2, 0)
    assert np.array_equal(shown, decode(scene.jpeg()))


def test_boxes_and_masks_stay_together_when_pictures_are_mirrored_and_halved() -> None:
    """The box of each mask is its thing's box, to a cell or two: mirrored or not, halved or not."""
    sets = draw(8, 0, 128, 1, PRETRAINING, masks=True)
    seen = 0
    for _, whole in zip(range(6), batches(sets, 4, np.random.default_rng(0)), strict=False):
        for batch in (whole, halved(whole)):
            height, width = batch["img"].shape[2:]
            down, across = batch["masks"].shape[1:]
            assert (height // 4, width // 4) == (down, across)
            for mask, box in zip(batch["masks"].numpy(), batch["bboxes"].numpy(), strict=True):
                rows, columns = np.nonzero(mask)
                x, y, w, h = box * (across, down, across, down)
                expected = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert edges == pytest.approx(expected, abs=1.01)
                seen += 1
    assert seen > 40


# Its measure


def oracle(seed: int, miss: int = 0, rename: bool = False, invert: bool = False) -> Callable[..., Any]:
    """A detector that knows the truth, but leaves out the last `miss` things of every scene, gives all
    of them another name, or masks of all that they are not."""

    def detect(images: Sequence[Image], _: None) -> list[list[Annotation]]:
        made: list[list[Annotation]] = []
        for image in images:
            scene = make_scene(seed, int(image.image_id))
            assert np.array_equal(image.pixels, decode(scene.jpeg()))
            rows = []
            for thing, rle in list(zip(things(scene), masks_of(scene), strict=True))[: -miss or None]:
                mask = pycocotools.mask.encode(pycocotools.mask.decode(rle) ^ invert) if invert else rle
                name = "thing" if rename else thing.text
                region = Annotation("region", name, "phrase", box=thing.box, score=0.9)
                rows += [region, Annotation("region", parent=region, box=thing.box, mask=mask, score=0.9)]
            made.append(rows)
        return made

    return detect


def measured(detect: Callable[..., Any], count: int = 20) -> Quality:
    scenes = (make_scene(5, index) for index in range(count))
    return measure(detect, scenes, NAMES, masks=True)


def test_the_measure_is_one_for_the_truth_and_less_where_things_are_missed() -> None:
    perfect = measured(oracle(5))
    assert perfect.images == 20
    whole = (perfect.map50, perfect.map50_95, perfect.located50, perfect.mask50, perfect.mask50_95)
    assert whole == pytest.approx((1, 1, 1, 1, 1)) and min(perfect.per_class.values()) > 0.999
    missing = measured(oracle(5, miss=1))
    assert 0.2 < missing.map50 < 0.98 and missing.mask50 == pytest.approx(missing.map50)
    nothing = measured(oracle(5, miss=99), count=3)
    assert (nothing.map50, nothing.located50, nothing.mask50) == (0, 0, 0)
    assert nothing.per_class and not any(nothing.per_class.values())


def test_things_under_other_names_are_located_but_missed() -> None:
    quality = measured(oracle(5, rename=True), count=5)
    assert (quality.map50, quality.mask50) == (0, 0) and quality.located50 == pytest.approx(1)


def test_masks_are_judged_by_themselves() -> None:
    quality = measured(oracle(5, invert=True), count=5)
    assert quality.map50 == pytest.approx(1) and quality.mask50 == 0


# What is shipped

PICTURES_SINCE = 2
"""Generator 3 words captions otherwise; its pictures, boxes and masks are those of 2."""


@pytest.fixture(scope="module", params=["scenes-detector", "scenes-segmenter"])
def shipped(request: pytest.FixtureRequest) -> Path:
    path: Path = WEIGHTS / f"{request.param}.safetensors"
    return path


def test_the_shipped_weights_find_things_on_unseen_scenes(shipped: Path) -> None:
    seed = 424_242
    assert seed < TRAINING_SEED
    quality = evaluate(shipped, count=30, seed=seed)["pretraining"]
    said = read_metadata(shipped)["trained"]["unseen"]["pretraining"]
    assert quality.map50 >= said["map50"] - 0.06 and quality.map50_95 >= said["map50_95"] - 0.06
    assert said["map50"] >= 0.85
    if said["mask50"] is not None:
        assert quality.mask50 is not None and quality.mask50 >= said["mask50"] - 0.06


def test_the_shipped_card_says_what_the_file_says(shipped: Path) -> None:
    facts = read_metadata(shipped)
    card = shipped.with_suffix(".md").read_text(encoding="utf-8")
    assert card == card_text(shipped)
    assert tuple(facts["names"].values()) == NAMES and facts["trained"]["generator"] >= PICTURES_SINCE
    assert shipped.stat().st_size <= 2_400_000
    assert f"| pretraining | {facts['trained']['unseen']['pretraining']['map50']:.3f} |" in card
    assert "AGPL-3.0" in card


def test_a_file_without_its_history_gets_no_card(tmp_path: Path) -> None:
    from specialists.detector_training import _network
    from specialists.detector_weights import save_weights

    save_weights(_network("detect", NAMES, 0), tmp_path / "toy.safetensors", {"task": "detect"})
    with pytest.raises(ModelLoadError) as caught:
        card_text(tmp_path / "toy.safetensors")
    assert caught.value.hint
