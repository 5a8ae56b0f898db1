"""The toy models in the wheel: small, data only, each with its card, and as good as the card says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from data_engine.scenes.world import TARGET, WORLDS

WEIGHTS = Path(__file__).resolve().parents[1] / "specialists" / "weights"
CARDS = {
    "detector": WEIGHTS / "scenes-detector.md",
    "segmenter": WEIGHTS / "scenes-segmenter.md",
    "florence2": WEIGHTS / "scenes-florence2" / "README.md",
    "scorer": WEIGHTS / "scenes-scorer" / "README.md",
}


def test_together_they_are_smaller_than_20_mb() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 20_000_000


def test_they_hold_data_and_nothing_that_runs() -> None:
    assert {path.suffix for path in WEIGHTS.rglob("*") if path.is_file()} == {".safetensors", ".json", ".md"}


@pytest.mark.parametrize("model", CARDS)
def test_every_card_tells_data_steps_hardware_licence_and_quality_in_both_worlds(model: str) -> None:
    card = CARDS[model].read_text()
    for part in (
        "**Data**",
        "**Run**",
        "**Hardware**",
        "**Make it again**",
        "## Quality",
        "## Limits",
        "## Licence",
    ):
        assert part in card, part
    assert re.search(r"[\d,]+ steps", card)
    assert all(world in card for world in WORLDS)
    assert ("AGPL-3.0" in card) == (model in ("detector", "segmenter"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["detector", "segmenter"])
def test_the_shipped_detectors_are_as_good_as_their_cards_say(model: str) -> None:
    pytest.importorskip("ultralytics")
    from safetensors import safe_open

    from specialists.detector_quality import evaluate

    weights = WEIGHTS / f"scenes-{model}.safetensors"
    with safe_open(weights, "np") as file:
        told = json.loads(file.metadata()["trained"])["unseen"]
    # Other scenes than those of the card, and fewer: a mean over classes is the roughest of these.
    for world, found in evaluate(weights, 100, seed=909, worlds=list(WORLDS.values())).items():
        assert abs(found.located50 - told[world]["located50"]) < 0.05, world
        assert abs(found.map50 - told[world]["map50"]) < 0.1, world
        if model == "segmenter":
            assert abs(found.mask50 - told[world]["mask50"]) < 0.1, world


@pytest.mark.slow
def test_the_shipped_scorer_is_as_good_as_its_card_says() -> None:
    pytest.importorskip("open_clip")
    from specialists.scorer_quality import evaluate

    folder = WEIGHTS / "scenes-scorer"
    told = json.loads((folder / "open_clip_config.json").read_text())["trained"]["unseen"]
    for name, world in WORLDS.items():
        found = evaluate(folder, world, 100, seed=909)
        for measure in ("category", "flip", "caption"):
            assert abs(getattr(found, measure) - told[name][measure]) < 0.08, (name, measure)


@pytest.mark.slow
def test_the_shipped_florence2_is_as_good_as_its_card_says() -> None:
    pytest.importorskip("transformers")
    from specialists.florence2.scenes_quality import measure

    told = json.loads((WEIGHTS / "scenes-florence2" / "training.json").read_text())["unseen"]["pretraining"]
    # Other scenes than those of the card; so few of them are a rough measure.
    found = measure(WEIGHTS / "scenes-florence2", 40, seed=909)
    for name in ("detection_f1", "grounding_recall", "category", "referring_iou"):
        assert getattr(found, name) > told[name] - 0.07, name
    assert found.attributes > told["attributes"] - 0.15


@pytest.mark.slow
def test_the_shipped_florence2_is_worse_in_the_target_world() -> None:
    pytest.importorskip("transformers")
    from specialists.florence2.scenes_quality import measure

    assert measure(WEIGHTS / "scenes-florence2", 12, seed=909, world=TARGET).detection_f1 < 0.2
