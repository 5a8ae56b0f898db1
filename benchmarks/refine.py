"""Refinement on drawn scenes with noisy labels: what the labels are worth before and after, against exact truth.

python benchmarks/refine.py run [--levels 10 30 50] [--noise independent] [--seeds 102 103 104] [--images 3000] ...
python benchmarks/refine.py table
python benchmarks/refine.py sparse [--labelled 80] ...

A cell is one level and sort of noise, one seed and one variant. Scenes are of the target world, which no shipped model
has seen, and of seeds that no training drew. Labels are judged on the images that are learnt from, whose truth
nothing ever looks at; truth of the held-out ones chooses thresholds and accepts rounds. Students are judged on
held-out images. Every row is appended to refine.jsonl when its cell is done; a cell that is there is not run again,
and one that was interrupted goes on. `table` prints the mean and spread over seeds, and draws them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refine_sparse import TASKS, sparse

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.quality.selected import Labels
from data_engine.quality.shares import estimate
from data_engine.recipe import Recipe
from data_engine.recipe_parts import FilterPart
from data_engine.refine_part import source_of
from data_engine.rounds import last_accepted, read_facts
from data_engine.runner.progress import Reporter
from data_engine.scenes.world import find_world
from data_engine.scenes.write import make_scenes
from data_engine.shards import read_table
from pipelines.recipe_files import find_recipe
from pipelines.refine import refine
from pipelines.refine_quality import label_figures, learnt_from
from pipelines.refine_steps import labels_of, reference_of

WORLD = find_world("target")
SIZE = (256, 192)
VARIANTS = ("full", "no-filter")
"""`no-filter`: refinement alone. What filters do alone is the stage `after filter` of `full`."""

SHARES = {
    "missed": 0.25, "mislabelled": 0.25, "jittered": 0.25, "invented": 0.25,
    "attribute_flipped": 1.0, "wrong_link": 0.375, "dropped_link": 0.375, "jittered_link": 0.25,
}  # fmt: skip
"""A level is divided so: at 0.3 about three things in ten have an error, three captions, three phrases."""

KEEPS_ALL = FilterPart(use="filters.box_size:MinimumSide", args={"pixels": 0})


def noise(sort: str, level: float, seed: int) -> dict[str, Any]:
    """Arguments of `specialists.noise:Noise` for a level of 0..1.

    `class`: kinds in the first half of the world's list have twice the errors, the others none, and each kind is
    taken for one other. `systematic`: three kinds are always called by another's name, small things are always
    missed, and every box is shifted, beside half as much independent noise.
    """
    names = list(WORLD.class_names)
    half = names[: len(names) // 2]
    rates = {name: share * level for name, share in SHARES.items()}
    args: dict[str, Any] = {"seed": seed, "sigma": 0.3, "classes": names}
    if sort == "class":
        regions = ("missed", "mislabelled", "jittered", "invented")
        args["class_factors"] = {name: dict.fromkeys(regions, 2.0 if name in half else 0.0) for name in names}
        args["confusions"] = {name: names[(place + 1) % len(names)] for place, name in enumerate(names)}
    if sort == "systematic":
        rates = {name: rate / 2 for name, rate in rates.items()}
        args["systematic"] = {
            "called": {"cat": "snail", "bottle": "lamp", "oval": "drop"},
            "missed_below": 12 + 30 * level,
            "corner": "bottom_right",
            "shift": 0.2,
        }
    return {**args, "rates": rates}


def recipe_of(options: argparse.Namespace, sort: str, level: int, seed: int, variant: str) -> Recipe:
    """The shipped recipe with a cell's noise and size."""
    recipe = find_recipe(options.recipe)
    assert recipe.refine is not None
    noisy = recipe.specialists["noisy"].model_copy(update={"args": noise(sort, level / 100, seed)})
    given = {"steps": options.steps, "threads": options.threads}
    student = {**recipe.refine.student.args, **{k: v for k, v in given.items() if v is not None}}
    section = recipe.refine.model_copy(
        update={
            "rounds": options.rounds,
            "held_out": options.held_out,
            "student": recipe.refine.student.model_copy(update={"args": student}),
            **({"filters": {"all": KEEPS_ALL}} if variant == "no-filter" else {}),
        }
    )
    filters = {"all": KEEPS_ALL} if variant == "no-filter" else recipe.filters
    return recipe.model_copy(
        update={"specialists": {**recipe.specialists, "noisy": noisy}, "filters": filters, "refine": section}
    )


def scenes(options: argparse.Namespace, seed: int, count: int, name: str) -> Dataset:
    """A data set of so many scenes of a seed; ingested once and then copied, since its images are the same."""
    pictures = options.folder / f"scenes-{count}-of-seed-{seed}"
    whole, copy = pictures / "dataset", options.folder / name
    if not (whole / "dataset.json").is_file():
        make_scenes(pictures / "scenes", count, seed, size=SIZE, world=WORLD)
        ingest(str(pictures / "scenes"), str(whole), shard_size=100)
    if not (copy / "dataset.json").is_file():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy, ignore=shutil.ignore_patterns("dataset.json"))
        shutil.copy(whole / "dataset.json", copy)
    return Dataset.open(str(copy))


def cell(options: argparse.Namespace, sort: str, level: int, seed: int, variant: str) -> list[dict[str, Any]]:
    """Run one cell, and measure every stage of it."""
    name = f"{sort}-{level}-seed-{seed}-{variant}"
    dataset = scenes(options, seed, options.images, name)
    recipe = recipe_of(options, sort, level, seed, variant)
    assert recipe.refine is not None
    began = time.monotonic()
    summary = refine(dataset, recipe, runner="inline", reporter=Reporter(), say=lambda s: say(f"{name}: {s}"))
    facts = {
        "noise": sort, "level": level, "seed": seed, "variant": variant, "images": options.images,
        "steps": options.steps, "seconds": round(time.monotonic() - began), "used": last_accepted(dataset),
    }  # fmt: skip
    return [{**facts, **row} for row in _stages(dataset, recipe, len(summary.verdicts))]


def _stages(dataset: Dataset, recipe: Recipe, rounds: int) -> Iterator[dict[str, Any]]:
    section = recipe.refine
    assert section is not None
    stages = {"before filter": Labels(section.learn), "after filter": labels_of(section, 0)}
    stages |= {f"round {number}": labels_of(section, number) for number in range(1, rounds + 1)}
    view = learnt_from(dataset, section, reference_of(section), stages)
    for stage in stages:
        for figure in label_figures(view, stage, scenes=True):
            if figure.shares is not None:
                found = estimate(figure.shares)
                yield {"of": "labels", "stage": stage, "measure": figure.measure,
                       "value": found.value, "low": found.low, "high": found.high}  # fmt: skip
    for number in range(rounds + 1):
        accepted = read_facts(dataset, number, "round").get("accepted")
        for row in read_table(dataset.store, f"rounds/{number}/quality.parquet").to_pylist():
            if row["subject"] == source_of("student", number):
                yield {"of": "student", "stage": f"round {number}" if number else "zero-shot",
                       "measure": row["measure"], "accepted": accepted,
                       "value": row["value"], "low": row["low"], "high": row["high"]}  # fmt: skip


def run(options: argparse.Namespace) -> None:
    done = {_key(row) for row in read(options)}
    for sort in options.noise:
        for level in options.levels:
            for seed in options.seeds:
                for variant in options.variants:
                    key = {"noise": sort, "level": level, "seed": seed, "variant": variant}
                    if _key({**key, "images": options.images, "steps": options.steps}) in done:
                        say(f"{key} is there")
                        continue
                    rows = cell(options, sort, level, seed, variant)
                    with (options.folder / "refine.jsonl").open("a") as file:
                        file.writelines(json.dumps(row) + "\n" for row in rows)
    table(options)


def read(options: argparse.Namespace) -> list[dict[str, Any]]:
    path = options.folder / "refine.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("noise", "level", "seed", "variant", "images", "steps"))


def table(options: argparse.Namespace) -> None:
    """Markdown: a row per measure, a column per stage; mean and the spread (least to most) over seeds.

    Cells of other sizes stand apart.
    """
    found: dict[tuple[Any, ...], dict[str, dict[str, list[float]]]] = {}
    for row in read(options):
        place = (-row["images"], row["noise"], row["level"], row["variant"], row["of"])
        if row["value"] is not None and row["value"] == row["value"]:
            values = found.setdefault(place, {}).setdefault(row["measure"], {})
            values.setdefault(row["stage"], []).append(row["value"])
    lines = []
    for (images, sort, level, variant, of), measures in sorted(found.items()):
        stages = list(dict.fromkeys(stage for values in measures.values() for stage in values))
        lines += [f"\n{of}, {sort} noise at {level} %, {variant}, {-images:,} images\n"]
        lines += ["| measure | " + " | ".join(stages) + " |", "|---|" + "---|" * len(stages)]
        for measure, values in measures.items():
            cells = [_cell(values.get(stage, [])) for stage in stages]
            lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    (options.folder / "refine.md").write_text(text)
    say(text)
    if found:
        plot(options)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    return f"{mean:.3f}" + (f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else "")


def plot(options: argparse.Namespace) -> None:
    """refine.svg and refine.png: labels stage by stage, a panel per measure that decides about rounds."""
    import altair

    measures = ("regions: F1", "brief captions: all true", "phrases of captions: recall@1")
    rows = [
        {**row, "noise": f"{row['noise']} {row['level']} %, {row['images']:,}"}
        for row in read(options)
        if row["of"] == "labels" and row["measure"] in measures and row["variant"] == "full"
    ]
    order = ["before filter", "after filter", *(f"round {number}" for number in range(1, 10))]
    base = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X("stage:N", sort=order, title=None),
        color=altair.Color("noise:N", title="noise, images", sort=None),
    )
    line = base.mark_line(point=True).encode(
        y=altair.Y("mean(value):Q", title="value", scale={"zero": False})
    )
    spread = base.mark_errorbar(extent="stdev").encode(y=altair.Y("value:Q", title="value"))
    chart = (line + spread).properties(width=220, height=200).facet(altair.Facet("measure:N", title=None))
    chart = chart.resolve_scale(y="independent")
    for suffix in ("svg", "png"):
        chart.save(options.folder / f"refine.{suffix}", scale_factor=2)


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "sparse"))
    parser.add_argument("--folder", type=Path, default=Path("refine-benchmark"))
    parser.add_argument("--recipe", default="refine-scenes")
    parser.add_argument(
        "--noise", nargs="+", default=["independent"], choices=("independent", "class", "systematic")
    )
    parser.add_argument("--levels", nargs="+", type=int, default=[10, 30, 50], help="per cent")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[104, 105, 106], help="100 to 103 were for trying things out"
    )
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=None, help="of each student; by default the recipe's")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--task", default=next(iter(TASKS)), choices=list(TASKS), help="sparse: what has few labels"
    )
    parser.add_argument("--labelled", type=int, default=80, help="sparse: how many images have labels")
    parser.add_argument(
        "--start", default=None, help="sparse: the trained student; by default that of the first cell"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.what == "run":
        run(options)
    elif options.what == "table":
        table(options)
    else:
        sparse(options, scenes, say)


if __name__ == "__main__":
    main()
