"""The recipe of the paper's workflow, run whole: toy checkpoints stand where it names hubs, and each makes its part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("open_clip")
pytest.importorskip("ultralytics")
pytest.importorskip("rapidocr")
pytest.importorskip("spacy")

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import read_recipe
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from pipelines.recipe_files import recipe_text
from tests import (
    toy_blip,
    toy_florence2,
    toy_grounding_dino,
    toy_language_models,
    toy_object_detectors,
    toy_owl,
    toy_sam,
)
from tests.test_scorer import save_toy_clip

ROOT = Path(__file__).resolve().parents[1]


def with_toys(folder: Path) -> str:
    """The recipe as written, with a toy checkpoint in place of each name on a hub. Nothing else is changed, but
    that random weights are never sure of anything: thresholds go down, and every image is in the sample."""
    written = yaml.safe_load(recipe_text("fld5b"))
    args: dict[str, dict[str, Any]] = {n: p.setdefault("args", {}) for n, p in written["specialists"].items()}
    for part in written["specialists"].values():
        part.pop("gpus", None)
    args["brief"]["model"] = args["descriptions"]["model"] = str(toy_blip.blip(folder / "blip"))
    args["florence2"] |= {"model": str(toy_florence2.overfitted(folder / "florence2")), "max_new_tokens": 40}
    llama = str(toy_language_models.llama(folder / "llama", positions=1024))
    for name in ("detailed", "more_detailed"):
        args[name] |= {
            "model": llama,
            "share": 1,
            "max_new_tokens": 24,
            "max_statements": 2,
            "unfinished": "cut",
        }
    args["yolo"]["weights"] = str(ROOT / "specialists" / "weights" / "scenes-detector.safetensors")
    args["yolo"]["confidence"] = 0.001
    args["rtdetr"] |= {
        "model": str(toy_object_detectors.rt_detr_v2(folder / "rtdetr")),
        "threshold": 0.0,
        "max_boxes": 3,
    }
    args["rare"] |= {
        "model": str(toy_owl.owlv2(folder / "owl")),
        "classes": ["hat", "bag"],
        "threshold": 0.0,
        "max_boxes": 2,
    }
    dino = toy_grounding_dino.checkpoint(folder)
    args["grounding"] |= {
        "model": str(dino),
        "box_threshold": 0.01,
        "text_threshold": 0.01,
        "max_boxes_per_phrase": 2,
    }
    args["masks"]["model"] = str(toy_sam.sam2(folder / "sam2"))
    args["scorer"]["pretrained"] = str(save_toy_clip(folder))
    args["scorer"].pop("model")
    return yaml.safe_dump(written, sort_keys=False)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_every_specialist_of_the_workflow_makes_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "toys").mkdir()
    for number, pixels in enumerate(toy_florence2.pictures()[:3]):
        PIL.Image.fromarray(np.asarray(pixels)).save(tmp_path / "photos" / f"{number}.png")
    ingest(str(tmp_path / "photos"), str(tmp_path / "ds"))
    dataset = Dataset.open(str(tmp_path / "ds"))
    recipe = read_recipe(with_toys(tmp_path / "toys"), "fld5b.yaml")
    reporter = Reporter(terminal=False)
    notes: list[str] = []
    monkeypatch.setattr(reporter, "note", notes.append)
    summary = annotate(dataset, recipe, runner="inline", reporter=reporter)
    assert [note.split()[0] for note in notes] == ["student"]
    assert {stage.name for stage in summary.stages} == set(recipe.specialists) - {"student"}

    rows = sql(
        dataset,
        "SELECT source, kind, coalesce(granularity, '') AS granularity, count(*) AS n, count(mask) AS masks, "
        "count(score) AS scores FROM annotations GROUP BY ALL",
    ).to_pylist()
    found = {(row["source"], row["kind"], row["granularity"]): row for row in rows}
    for kind in (
        ("brief", "text", "brief"),
        ("florence2", "text", "detailed"),
        ("detailed", "text", "detailed"),
        ("more_detailed", "text", "more_detailed"),
        ("rtdetr", "region", "phrase"),
        ("objects", "region", "phrase"),
        ("objects", "region", "member"),
        ("rare", "region", "phrase"),
        ("descriptions", "region", "brief"),
        ("grounding", "phrase", ""),
        ("scorer", "text", "brief"),
    ):
        assert kind in found, (kind, sorted(found))
    masks = Counter(row["kind"] for row in rows if row["source"] == "masks" for _ in range(row["masks"]))
    assert masks["region"] and masks["phrase"]
    judged = filter_dataset(dataset, recipe)
    assert judged.seen == judged.kept + sum(judged.dropped.values())
    assert judged.dropped["fused"] and judged.dropped["best-region-text"]
