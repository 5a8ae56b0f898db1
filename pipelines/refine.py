"""Refine: train a student on what is kept, let it label again, merge, filter, and keep the round if it gained.

A round is a chain of steps that each know whether they are done: annotation shards by their fingerprints, a
training by that of its labels and settings, the round itself by `rounds/<round>/round.json`, which is written
last. So it can be interrupted anywhere, and the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, RecipeError
from data_engine.fingerprint import digest
from data_engine.held_out import is_held_out
from data_engine.quality.selected import Labels, Selected
from data_engine.recipe import Recipe
from data_engine.refine_part import RefinePart, source_of
from data_engine.rounds import Verdict, read_facts, retire, write_round
from data_engine.runner.progress import Reporter
from data_engine.shards import read_table
from pipelines.acceptance import verdict_of
from pipelines.annotate import Runner, annotate
from pipelines.filter import filter_dataset
from pipelines.refine_quality import (
    REFERENCE,
    Figure,
    asked_figures,
    is_scenes_truth,
    label_figures,
    learnt_from,
    measured,
    precision_figures,
    selected,
)
from pipelines.refine_steps import (
    calibrate,
    filters_of,
    labels_fingerprint,
    labels_of,
    merge_recipe,
    reference_of,
    relabel_recipe,
    start_recipe,
    train,
)

VERSION = 2
"""Raised when the same labels would be judged otherwise."""


@dataclass(frozen=True)
class RefineSummary:
    """The verdicts of the rounds that were run, in their order, and the round whose labels are to be used."""

    verdicts: tuple[Verdict, ...]
    used: int


@dataclass(frozen=True)
class _Worth:
    """Figures of a round's labels, where there is truth to tell them by, and of its student."""

    labels: Sequence[Figure]
    student: Sequence[Figure]


@dataclass(frozen=True)
class _Run:
    """How the annotation steps of one call are run."""

    dataset: Dataset
    recipe: Recipe
    refine: RefinePart
    runner: Runner
    address: str | None
    reporter: Reporter
    say: Callable[[str], None]

    def annotate(self, recipe: Recipe) -> None:
        annotate(self.dataset, recipe, runner=self.runner, address=self.address, reporter=self.reporter)

    def filter(self, recipe: Recipe, number: int) -> None:
        filter_dataset(
            self.dataset,
            recipe,
            round_=number,
            runner=self.runner,
            address=self.address,
            reporter=self.reporter,
        )


def refine(
    dataset: Dataset,
    recipe: Recipe,
    *,
    rounds: int | None = None,
    runner: Runner = "auto",
    address: str | None = None,
    reporter: Reporter | None = None,
    say: Callable[[str], None],
) -> RefineSummary:
    """Annotate and filter where that is not done, then run rounds until one gains nothing or all are done.

    `rounds` stands before the recipe's own number. Raises RecipeError for a recipe without a section
    `refine`, DatasetError for a data set that cannot be refined (not on a local disk, nothing kept, no
    image on one side of the split, truth that says nothing of held-out images), and what the steps raise.
    """
    section = recipe.refine
    if section is None:
        raise RecipeError(
            f"the recipe {recipe.name!r} has no section `refine`",
            "see a recipe that has one: fde recipe show refine-scenes",
        )
    if not dataset.store.local:
        raise DatasetError(
            f"{dataset.url} is no local folder, and students are trained into and loaded from one",
            "copy the data set to a disk that every worker sees, and refine it there",
        )
    run = _Run(dataset, recipe, section, runner, address, reporter or Reporter(), say)
    run.annotate(recipe)
    if recipe.filters:
        run.filter(recipe, 0)
    else:
        raise RecipeError(f"the recipe {recipe.name!r} has no filters", "add some under `filters:`")
    _check(dataset, section)
    worth = _start(run)
    verdicts: list[Verdict] = []
    used = 0
    for number in range(1, (rounds or section.rounds) + 1):
        verdict, worth = _round(run, number, worth)
        verdicts.append(verdict)
        used = number if verdict.accepted else used
        say(f"round {number}: {verdict.reason}")
        if not verdict.gained:
            break
    return RefineSummary(tuple(verdicts), used)


def _check(dataset: Dataset, section: RefinePart) -> None:
    """What can be told before any training: is there something to learn from, and something to judge by."""
    learnt = held = told = known = 0
    labels, reference = labels_of(section, 0), reference_of(section)
    others = learnt_from(dataset, section, reference, {"kept": labels})
    judging = selected(dataset, section, reference, {})
    for shard in dataset.shards:
        for batch in dataset.image_batches(shard, 4096, ["image_id"]):
            out = int(np.count_nonzero(is_held_out(batch["image_id"], section.held_out)))
            held, learnt = held + out, learnt + batch.num_rows - out
        told += others.annotations("kept", shard, ["annotation_id"]).num_rows
        known += judging.annotations(REFERENCE, shard, ["annotation_id"]).num_rows
    if not held or not learnt:
        raise DatasetError(
            f"of {held + learnt} images {held} are held out (refine.held_out is {section.held_out:g}): there must be "
            "some to learn from and some to judge by",
            "set another held_out, or refine a larger data set",
        )
    if not told:
        raise DatasetError(
            f"nothing that {', '.join(section.learn)} says of the {learnt:,} images to learn from is kept",
            "loosen the filters: fde filter DATASET --explain shows what each dropped",
        )
    if not known:
        raise DatasetError(
            f"{', '.join(reference.sources)} says nothing of the {held:,} held-out images, so no round can be judged",
            "name another `truth` in the recipe's section refine, or hold out more images",
        )


def _start(run: _Run) -> _Worth:
    """Round 0: what the labels are worth before any student, and what its start says without training."""
    section = run.refine
    started = start_recipe(run.recipe)
    if started is not None:
        run.say("round 0: asking the start of the student about held-out images")
        run.annotate(started)
    view = selected(
        run.dataset,
        section,
        reference_of(section),
        {"raw": Labels(section.learn), "kept": labels_of(section, 0)},
    )
    scenes = is_scenes_truth(run.dataset, reference_of(section))
    raw = list(label_figures(view, "raw", scenes=scenes)) if section.truth else []
    kept = list(label_figures(view, "kept", scenes=scenes, before=raw)) if section.truth else []
    student = _student_figures(view, section, 0, scenes=scenes) if started is not None else []
    fingerprint = _fingerprint(run, 0, asked=started is not None)
    if read_facts(run.dataset, 0, "round").get("fingerprint") != fingerprint:
        rows = measured(raw, [], section.accept)
        rows += measured(kept, raw, section.accept)
        rows += measured(student, [], section.accept)
        write_round(run.dataset, 0, rows, Verdict(True, "the labels before refinement", True), fingerprint)
    return _Worth(kept, student)


def _round(run: _Run, number: int, before: _Worth) -> tuple[Verdict, _Worth]:
    """One round, or what is left of it. Returns its verdict, and what its labels and student are worth."""
    section, dataset = run.refine, run.dataset
    model = train(dataset, run.recipe, number, run.say)
    run.say(f"round {number}: labelling again")
    run.annotate(relabel_recipe(run.recipe, number, model))
    chosen = calibrate(dataset, run.recipe, number, run.say)
    run.say(f"round {number}: merging")
    run.annotate(merge_recipe(run.recipe, number, model, chosen))
    run.filter(run.recipe.model_copy(update={"filters": filters_of(run.recipe, number)}), number)
    merged = source_of("merged", number)
    view = selected(dataset, section, reference_of(section), {merged: labels_of(section, number)})
    scenes = is_scenes_truth(dataset, reference_of(section))
    after = _Worth(
        list(label_figures(view, merged, scenes=scenes, before=before.labels)),
        _student_figures(view, section, number, scenes=scenes),
    )
    fingerprint = _fingerprint(run, number, asked=True)
    facts = read_facts(dataset, number, "round")
    if facts.get("fingerprint") == fingerprint:
        return Verdict(facts["accepted"], facts["reason"], facts["gained"]), after
    retire(dataset, number)
    # Without truth what was merged is held against what it was made of: that says how much it was changed.
    labels = measured(after.labels, before.labels if section.truth else [], section.accept)
    student = measured(after.student, before.student, section.accept)
    verdict = verdict_of(labels if section.truth else student, section.accept)
    # Labels that are worth more are the aim: where they can be measured, the student alone decides nothing.
    if section.truth:
        student = [replace(row, decides=False) for row in student]
    write_round(dataset, number, [*labels, *student], verdict, fingerprint)
    return verdict, after


def _student_figures(view: Selected, section: RefinePart, number: int, *, scenes: bool) -> list[Figure]:
    """What a student itself says of held-out images, and of the statements that it was asked about."""
    student, asked = source_of("student", number), source_of("asked", number)
    found = [*label_figures(view, student, scenes=scenes), *precision_figures(view, student)]
    if section.ask is not None:
        found += asked_figures(view, student, asked)
    return found


def _fingerprint(run: _Run, number: int, *, asked: bool) -> str:
    """What a round's verdict depends on: the labels before and after, the student's answers, and the rules."""
    section = run.refine
    steps = ["student", *(["asked"] if section.ask is not None else [])] if asked else []
    return digest(
        [
            VERSION,
            section.accept.model_dump(),
            section.calibration,
            labels_fingerprint(run.dataset, reference_of(section)),
            labels_fingerprint(run.dataset, labels_of(section, max(0, number - 1))),
            labels_fingerprint(run.dataset, labels_of(section, number)),
            labels_fingerprint(run.dataset, Labels(tuple(source_of(step, number) for step in steps))),
        ]
    )


def table(dataset: Dataset, rounds: int) -> Iterator[str]:
    """Lines of one table: each measure of the labels and of the students, a column per round."""
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for number in range(rounds + 1):
        name = f"rounds/{number}/quality.parquet"
        for row in read_table(dataset.store, name).to_pylist() if dataset.store.exists(name) else []:
            step = row["subject"].partition("-")[0]
            of = {"raw": "raw labels", "student": "student"}.get(step, "labels")
            shown = "-" if row["value"] is None else f"{row['value']:.3f}"
            cells.setdefault((of, row["measure"]), {})[number] = shown
    width = max((len(measure) for _, measure in cells), default=0)
    yield f"  {'':<10}  {'':<{width}}" + "".join(f"  round {number}" for number in range(rounds + 1))
    for (of, measure), values in sorted(cells.items()):
        yield f"  {of:<10}  {measure:<{width}}" + "".join(
            f"  {values.get(number, '-'):>7}" for number in range(rounds + 1)
        )
