"""The model card of a Florence-2 that was trained on drawn scenes, written from the facts of its run."""

from __future__ import annotations

from typing import Any

from specialists.florence2.prompts import TASKS

_MEASURES = {
    "detection_f1": "OD: F1 of boxes with their class, IoU 0.5",
    "grounding_recall": "CAPTION_TO_PHRASE_GROUNDING: recall@1, IoU 0.5",
    "attributes": "CAPTION: number, attributes and kind of every noun phrase are true",
    "quotations": "CAPTION: quotations that are written there",
    "actions": "CAPTION: actions that are true",
    "caption_true": "CAPTION: all of these are true",
    "caption_exact": "CAPTION: the truth's own words (one of several true captions)",
    "category": "REGION_TO_CATEGORY: exact",
    "referring_iou": "REFERRING_EXPRESSION_SEGMENTATION: mean IoU of masks",
    "writing_exact": "OCR: all writing of a scene exact",
}


def card(facts: dict[str, Any]) -> str:
    """Markdown. `facts` is what `scenes_training.train` keeps in `training.json`."""
    unseen = dict(facts["unseen"])
    seed, generator = unseen.pop("seed"), unseen.pop("generator")
    names = list(unseen)
    table = "\n".join(
        f"| {words} | {' | '.join(_share(unseen[name][measure]) for name in names)} |"
        for measure, words in _MEASURES.items()
    )
    size = facts["dimensions"]
    runs = _runs(facts)
    scenes = sum(run["steps"] * run["scenes"] * run.get("processes", 1) for run in runs)
    tasks = max(run["tasks"] for run in runs)
    return f"""# scenes-florence2

A small Florence-2 of drawn scenes (`data_engine/scenes`), trained from nothing. It answers all {len(TASKS)} prompts of
the released models, so that the whole engine runs offline and is judged against exact truth. It knows
nothing of photographs.

- **Model**: transformers' `Florence2ForConditionalGeneration`, {facts["parameters"] / 1e6:.2f} million parameters in float16. Pictures
  are resized to {size["side"]} x {size["side"]} pixels; DaViT stages of {_listed(size["embed_dim"])} channels, {_listed(size["depths"])} blocks; a language
  model of {size["encoder_layers"]} + {size["decoder_layers"]} layers, {size["width"]} wide.
- **Tokenizer**: a byte-level BPE of {facts["words"]} entries, trained on the scenes' texts, with Florence-2's marks and its
  1,000 location tokens.
- **Files**: a plain checkpoint folder, weights in safetensors; `training.json` holds the facts below.

## Training

- **Data**: {"; ".join(dict.fromkeys(run["data"] for run in runs))} (generator {facts["generator"]}): {scenes:,} pictures, with up to {tasks} prompts each. A
  run draws each scene once, from its seed's first on. Seeds from 1,000,000 on are for training; every smaller seed is unseen.
- **Run**: {" ".join(_told(run, place) for place, run in enumerate(runs))}
  AdamW, cosine, {facts["precision"]} arithmetic over float32 weights, exponential average. What helps so small a model learn to locate stands in
  `scratch.py` and `locating.py`: initialisation, smooth location embeddings, soft location targets, and a dense
  head that is thrown away.
- **Hardware**: {_hardware(runs)}.
- **Make it again**: `fde scenes train florence2 OUTPUT`, on any machine: a GPU is used where there is one.

## Quality on unseen scenes

Through `specialists.florence2:Florence2`, greedy decoding where no beams are named, {unseen[names[0]]["images"]} scenes of seed {seed} (generator {generator}) of each world, 320 x 240 pixels,
the files as shipped. Prompts about a caption, a phrase or a region are given the truth.

| measure | {" | ".join(names)} |
|---|{"---|" * len(names)}
{table}

## Limits

- It was trained on one world alone, and has no words for the things of another.
- Writing is small at its input size: take an OCR for it. Its captions quote signs all the same, mostly wrongly.
- How things stand to one another (above, next to) is in its captions and is not judged here.
- The targets of training spread a coordinate over some 25 bins, so that the very bin of a sure box has about 0.03. Its
  scores mean something with the bins around it: `score_window`, as it stands (docs/performance.md).
- Long captions repeat the patterns of the scenes' own language.

## Licence

Apache-2.0, like this project. transformers, whose classes it is built from, is Apache-2.0 too.
"""


def _runs(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The facts of the run and of those that it went on from, the first one first."""
    earlier = facts.get("earlier")
    return [*(_runs(earlier) if earlier else []), facts]


def _hardware(runs: list[dict[str, Any]]) -> str:
    """Each machine that runs were made on, and for how long, in their order."""
    minutes: dict[str, float] = {}
    for run in runs:
        gpu = run.get("gpu")
        machine = (
            f"one {gpu} and {run['cpus']} CPU cores, which drew"
            if gpu
            else f"a machine of {run['cpus']} CPU cores, shared with other work"
        )
        minutes[machine] = minutes.get(machine, 0.0) + run["seconds"] / 60
    return "; then ".join(f"{machine}: {spent:.0f} minutes" for machine, spent in minutes.items())


def _told(run: dict[str, Any], place: int) -> str:
    begun = "Then, from those weights:" if place else f"from random weights (seed {run['seed']}),"
    a_step = run["scenes"] * run.get("processes", 1)
    told = f"{begun} {run['steps']:,} steps of {a_step} scenes at {run['dimensions']['side']} pixels in {run['seconds'] / 60:.0f} minutes."
    return f"{told} {run['note']}" if run.get("note") else told


def _share(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"


def _listed(values: list[int]) -> str:
    return "/".join(map(str, values))
