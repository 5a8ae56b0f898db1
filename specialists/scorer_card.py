"""The model card of a trained scorer, written from the facts of its run."""

from __future__ import annotations

from typing import Any


def card(facts: dict[str, Any]) -> str:
    """Markdown. `facts` is what `scorer_training.train` keeps in the configuration under `trained`."""
    unseen = dict(facts["unseen"])
    seed = unseen.pop("seed")
    names = [facts["world"], *sorted(set(unseen) - {facts["world"]})]
    found = [unseen[name] for name in names]
    threads = (
        "PyTorch's own number of threads" if facts["threads"] is None else _count(facts["threads"], "thread")
    )
    rows = [
        ("Scenes / regions / distinct descriptions", [_sizes(one) for one in found]),
        ("Description among all of them (top 1)", [_percent(one["description"]) for one in found]),
        ("Best description is true of the region", [_percent(one["true_description"]) for one in found]),
        ("Category among the world's class names", [_percent(one["category"]) for one in found]),
        ("Description against one with a swapped attribute", [_percent(one["flip"]) for one in found]),
        *[
            (f"... the {name} swapped", [_percent(one["flips"].get(name)) for one in found])
            for name in sorted({name for one in found for name in one["flips"]})
        ],
        ("Brief caption against another picture's", [_percent(one["caption"]) for one in found]),
    ]
    table = "\n".join(f"| {name} | {' | '.join(values)} |" for name, values in rows)
    return f"""# scenes-scorer

A small CLIP of drawn scenes (`data_engine/scenes`): how well a text fits a region or a picture. It lets the
engine judge texts offline, against exact truth. It knows nothing of photographs.

- **Model**: open_clip's CLIP; a ModifiedResNet of one block a stage and a text transformer of two layers,
  {facts["embed_dim"]} dimensions, {facts["parameters"]:,} parameters in float16. Crops and pictures are squashed to
  {facts["side"]} x {facts["side"]} pixels; texts have at most {facts["context"]} tokens of a byte-level BPE in lower case ({facts["vocabulary"]} entries).
- **Files**: `open_clip_config.json`, `open_clip_model.safetensors`, `tokenizer.json`,
  `tokenizer_config.json`; no pickle. `Scorer(pretrained=FOLDER)` and open_clip's
  `local-dir:FOLDER` read them without a network; the tokenizer needs `transformers`.

## Training

- **Data**: {facts["data"]} (`scenes.json` generator {facts["generator"]}), half of them 320 x 240 pixels, the others
  upright or square: {facts["crops"]:,} regions with their descriptions, shorter texts and phrases, and the pictures
  with their captions. Seeds from 1,000,000 on are for training; every smaller seed is unseen.
- **Loss**: UniCL's (Yang et al., CVPR 2022, arXiv 2204.03610): a text belongs to every region of which all
  of its words were said, a caption to every picture with that caption.
- **Run**: from random weights (seed {facts["seed"]}), {facts["steps"]:,} steps of {facts["batch"]} regions and a quarter as many
  pictures ({facts["epochs"]} epochs of regions), AdamW, cosine.
- **Hardware**: a CPU, {threads}; {facts["seconds"] / 60:.1f} minutes, without drawing the scenes.
- **Make it again**: `specialists.scorer_training.train(output, {_arguments(facts)})`.

## Quality on unseen scenes

Through `Scorer`, on scenes of seed {seed}, 320 x 240 pixels, the files as shipped. Equal scores count as
wrong. Chance is 50 % against one other text, and below 5 % otherwise.

| measure | {" | ".join(f"{name} world" for name in names)} |
|---|{"---|" * len(names)}
{table}

## Limits

- It was trained on the {facts["world"]} world alone; what it scores on any other shows what is foreign to it.
- A crop is squashed to one size, so how large a thing is shows only in how sharp its crop is.
- The writing on signs is not read.
- Scores are cosine similarities. They order texts of one kind; their size is not a probability.

## Licence

Apache-2.0, like this project. open_clip, whose classes it is built from, is MIT-licensed.
"""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _sizes(quality: dict[str, Any]) -> str:
    return f"{quality['images']} / {quality['regions']} / {quality['descriptions']}"


def _count(number: int, noun: str) -> str:
    return f"{'one' if number == 1 else number} {noun}{'' if number == 1 else 's'}"


def _arguments(facts: dict[str, Any]) -> str:
    named = {name: facts[name] for name in ("steps", "images", "batch", "seed", "threads")}
    return ", ".join(f"{name}={value}" for name, value in named.items())
