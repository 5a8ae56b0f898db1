"""The model card of a detector of drawn scenes, written from what its file says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_engine.errors import ModelLoadError
from specialists.detector_weights import read_metadata

_CARD = """\
# {name}

The {what} of this project's embedded {world} world of drawn scenes (`data_engine/scenes`): it lets
the whole engine run offline, and be judged against exact truth. It is of no use on photographs.

- **Network**: YOLO11{suffix} with a width multiple of 0.125 (half of `n`), {parameters:.2f} million parameters,
  {megabytes:.1f} MB in float16; input {imgsz} pixels on the longer side.
- **Classes** ({classes}): {names}.
- **Format**: safetensors with a JSON description (`specialists/detector_weights.py`); no pickle.

## Training

- **Data**: {images:,} drawn scenes of the {world} world, seed {scenes_seed:,}, scene generator {generator}:
  half {imgsz} x {short}, a quarter {short} x {imgsz}, a quarter {imgsz} x {imgsz}, as stored in JPEG.
  Seeds from {training_seed:,} on are for training; every smaller seed is unseen.
- **Run**: from random weights (seed {seed}), {steps:,} steps of batch {batch} ({epochs} epochs), AdamW, cosine
  from 4e-3; most batches at half size in the first 70 % of the run; mirrored, light and tint varied;
  exponential average of the weights.
- **Hardware**: a machine of {cpus} CPU cores, PyTorch threads: {threads}; {minutes:.0f} minutes. torch {torch}, ultralytics {ultralytics}.
- **Make it again**: `specialists.detector_training.train(output, {call})`.

## Quality on unseen scenes

{count} scenes of seed {unseen_seed} of each world, {imgsz} x {short}, COCO average precision by pycocotools, the
file as shipped. A class that it does not know counts as missed; "any class" is mAP50 of boxes whatever
they are called.

{table}

mAP50 of the boxes of each class, {world} world:

{per_class}

## Limits

- It knows these drawn things in these colours, surfaces and backgrounds, and nothing else: what it is
  worth in the {others} world is in the table.
- Objects below about 20 pixels at its input size, and scenes far from {imgsz} pixels in detail, were not trained.
- Scores are those of one run on one world; they are not calibrated.

## Licence

AGPL-3.0. Architecture, loss and training code are ultralytics' (AGPL-3.0), whose makers hold that
models trained with it fall under the same licence. The rest of this project does not need this file.
"""


def write_card(weights: Path) -> Path:
    """Write the card beside weights that `train` made, and return its path.

    Raises ModelLoadError for a file without the facts of its training.
    """
    path = weights.with_suffix(".md")
    path.write_text(card_text(weights), encoding="utf-8")
    return path


def card_text(weights: Path) -> str:
    """The card of weights that `train` made. Raises ModelLoadError."""
    facts = read_metadata(weights)
    try:
        return _filled(weights, facts, facts["trained"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(
            f"{weights} does not say how it was trained", "give a file written by detector_training.train"
        ) from error


def _filled(weights: Path, facts: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    segment = facts["task"] == "segment"
    world = trained["world"]
    unseen = {name: quality for name, quality in trained["unseen"].items() if name != "seed"}
    own = unseen[world]
    columns = {"mAP50": "map50", "mAP50-95": "map50_95", "any class": "located50"}
    if segment:
        columns |= {"mask mAP50": "mask50", "mask mAP50-95": "mask50_95"}
    rows = [
        [name, *(f"{quality[key]:.3f}" for key in columns.values())]
        for name, quality in sorted(unseen.items(), key=lambda item: item[0] != world)
    ]
    classes = sorted(own["per_class"].items(), key=lambda item: -item[1])
    call = {
        "task": facts["task"],
        "steps": trained["steps"],
        "seed": trained["seed"],
        "images": trained["images"],
        "imgsz": facts["imgsz"],
        "batch": trained["batch"],
        "threads": trained["threads"],
    }
    return _CARD.format(
        **{key: trained[key] for key in _COPIED},
        name=weights.stem,
        what="segmenter (boxes and masks)" if segment else "detector",
        suffix="-seg" if segment else "",
        world=world,
        others=" and ".join(name for name in unseen if name != world),
        parameters=trained["parameters"] / 1e6,
        megabytes=weights.stat().st_size / 1e6,
        imgsz=facts["imgsz"],
        short=facts["imgsz"] * 3 // 4,
        classes=len(facts["names"]),
        names=", ".join(facts["names"].values()),
        training_seed=trained["scenes_seed"] - trained["seed"],
        minutes=trained["seconds"] / 60,
        **trained["libraries"],
        call=", ".join([*(f"{k}={v!r}" for k, v in call.items()), f"world=find_world({world!r})"]),
        count=own["images"],
        unseen_seed=trained["unseen"]["seed"],
        table=_table(["world", *columns], rows),
        per_class=_table(["class", "value"], [[name, f"{value:.3f}"] for name, value in classes]),
    )


_COPIED = (
    "images", "scenes_seed", "generator", "seed", "steps", "batch", "epochs", "cpus", "threads",
)  # fmt: skip


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
