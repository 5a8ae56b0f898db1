"""The steps of a round of refinement as things that run already: a training, and recipes for `annotate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from data_engine.dataset import Dataset
from data_engine.entry_point import add_import_folder, code_version, load
from data_engine.errors import RecipeError
from data_engine.fingerprint import arguments_digest, digest, shards_fingerprint, verdicts_fingerprint
from data_engine.quality.selected import Labels
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.recipe_parts import FilterPart
from data_engine.refine_part import FILLED, RefinePart, source_of, takes
from data_engine.rounds import read_facts, retire, write_facts
from data_engine.storage import local_path
from data_engine.trainer import Learn, Trainer

_HELD_OUT = "specialists.held_out:HeldOut"


def labels_of(refine: RefinePart, number: int) -> Labels:
    """The labels that a round ends with: of round 0 what is kept of the sources that are learnt from."""
    if number == 0:
        return Labels(refine.learn, 0)
    return Labels((source_of("merged", number),), number)


def reference_of(refine: RefinePart) -> Labels:
    """What held-out images are judged by: truth, or what is kept of the sources that are learnt from."""
    return labels_of(refine, 0) if refine.truth is None else Labels((refine.truth,))


def model_folder(dataset: Dataset, number: int) -> Path:
    return local_path(dataset.url) / "models" / str(number)


def labels_fingerprint(dataset: Dataset, labels: Labels) -> str:
    """A digest of what labels are made of. Raises DatasetError where shards of them are missing."""
    sources = [
        shards_fingerprint(dataset, f"annotations/{s}", f"annotations by {s!r}") for s in labels.sources
    ]
    verdicts = None if labels.verdicts is None else verdicts_fingerprint(dataset, labels.verdicts)
    return digest([dataset.info.fingerprint, labels.sources, sources, verdicts])


def train(dataset: Dataset, recipe: Recipe, number: int, say: Callable[[str], None]) -> Path:
    """The student of a round, trained unless it is there already. Returns its folder.

    A training that was interrupted goes on. Where settings or labels have changed, the rounds from this one on
    are taken back, for they build on the student.
    """
    refine = _refine(recipe)
    labels = labels_of(refine, number - 1)
    start = model_folder(dataset, number - 1) if number > 1 else None
    output = model_folder(dataset, number)
    fingerprint = digest(
        {
            "code": code_version(refine.student.use),
            "args": arguments_digest({**refine.student.args, "start of the round": start and str(start)}),
            "labels": labels_fingerprint(dataset, labels),
            "held_out": refine.held_out,
        }
    )
    facts = read_facts(dataset, number, "student")
    there = (output / "training.json").is_file()
    if facts.get("fingerprint") == fingerprint and facts.get("trained") and there:
        say(f"round {number}: the student is trained already")
        return output
    if facts and facts.get("fingerprint") != fingerprint:
        say(f"round {number}: the student's settings or labels have changed since it was begun")
    # Whether an output, or what is left of an interrupted training, is of these settings, its trainer knows.
    retire(dataset, number)
    write_facts(dataset, number, "student", {"fingerprint": fingerprint, "trained": False})
    say(f"round {number}: training a student on what is kept of {', '.join(labels.sources)}")
    add_import_folder(recipe.folder)
    trainer: Trainer = load(refine.student.use, dict(refine.student.args), "refine.student")
    learn = Learn(labels.sources, labels.verdicts, refine.held_out)
    trainer.train(dataset, learn, output, start, lambda line: say(f"round {number}: {line}"))
    write_facts(dataset, number, "student", {"fingerprint": fingerprint, "trained": True})
    return output


def start_recipe(recipe: Recipe) -> Recipe | None:
    """The start of the first student, asked about held-out images; None where its `start` is not told."""
    start = _refine(recipe).student.args.get("start")
    return None if start is None else _with(recipe, 0, _asked(recipe, 0, str(start), held_out=True))


def relabel_recipe(recipe: Recipe, number: int, model: Path) -> Recipe:
    """The student says what it sees in every image and where the phrases point, mends what was said before, where it
    finds that, and how likely it finds it."""
    refine = _refine(recipe)
    parts = _asked(recipe, number, str(model), held_out=False)
    about = refine.learn
    # Mended texts are grounded like those that they were made from. They come with a score, so nobody doubts them.
    texts = (*about, source_of("mended", number)) if refine.mend is not None else about
    steps = (
        ("point", "pointed", refine.point, about),
        ("mend", "mended", refine.mend, about),
        ("ground", "grounded", refine.ground, texts),
        ("doubt", "doubt", refine.doubt, about),
    )
    for place, step, part, sources in steps:
        if part is not None:
            given = {"model": str(model), "sources": list(sources)}
            parts[source_of(step, number)] = _filled(part, place, given, sources).model_copy(
                update={"kept": 0}
            )
    return _with(recipe, number, parts)


def merge_recipe(recipe: Recipe, number: int, model: Path, chosen: Mapping[str, Any]) -> Recipe:
    """What was said before and what the student says as one set; `chosen` are arguments of calibration."""
    refine = _refine(recipe)
    relabel = relabel_recipe(recipe, number, model)
    sides = _sides(refine, number)
    needs = (*refine.learn, *sides.student, *sides.doubt)
    given = {"originals": list(refine.learn), **sides.arguments, **chosen}
    merge = _filled(refine.merge, "merge", given, needs).model_copy(update={"kept": 0})
    return relabel.model_copy(
        update={"specialists": {**relabel.specialists, source_of("merged", number): merge}}
    )


def calibrate(dataset: Dataset, recipe: Recipe, number: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The arguments of `merge` that calibration finds best on held-out images, as it found them before where
    nothing has changed; none where the recipe has no calibration, or no truth to do it by."""
    refine = _refine(recipe)
    if refine.calibrate is None or refine.truth is None:
        return {}
    sides = _sides(refine, number)
    sources = Labels((*refine.learn, refine.truth, *sides.student, *sides.doubt))
    fingerprint = digest(
        [
            code_version(refine.calibrate.use),
            arguments_digest(refine.calibrate.args),
            labels_fingerprint(dataset, sources),
            verdicts_fingerprint(dataset, 0),
            refine.calibration,
        ]
    )
    facts = read_facts(dataset, number, "merge")
    if facts.get("fingerprint") == fingerprint:
        return dict(facts["arguments"])
    say(f"round {number}: choosing how to merge on held-out images, by {refine.truth}")
    given = {
        "dataset": dataset,
        "truth": refine.truth,
        "originals": list(refine.learn),
        **sides.arguments,
        "held_out": refine.calibration,
        "verdicts": 0,
    }
    if takes(refine.calibrate.use, "untaught"):
        given["untaught"] = refine.held_out
    found = load(refine.calibrate.use, {**given, **refine.calibrate.args}, "refine.calibrate")
    arguments = asdict(found) if is_dataclass(found) and not isinstance(found, type) else dict(found)
    write_facts(dataset, number, "merge", {"fingerprint": fingerprint, "arguments": arguments})
    return arguments


def filters_of(recipe: Recipe, number: int) -> dict[str, FilterPart]:
    """A round's filters, with its own source where the section says `merged`.

    A section without filters means the recipe's own, with what was merged in place of what is learnt from.
    """
    refine = _refine(recipe)
    names = dict.fromkeys(["merged"] if refine.filters else refine.learn, source_of("merged", number))

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    return {
        name: rule.model_copy(
            update={
                "args": {key: named(value) for key, value in rule.args.items()},
                "where": rule.where.model_copy(update={"source": named(rule.where.source)}),
            }
        )
        for name, rule in (refine.filters or recipe.filters).items()
    }


@dataclass(frozen=True)
class _Sides:
    """The sources of a student's statements; of those the texts that it mended and the places that it was shown; and of
    its doubts: one, or none."""

    student: tuple[str, ...]
    mended: str | None
    pointed: str | None
    doubt: tuple[str, ...]

    @property
    def arguments(self) -> dict[str, Any]:
        """As a merge takes them: a single student is no list, since not every merge takes several."""
        student = self.student[0] if len(self.student) == 1 else list(self.student)
        parts = {"mended": self.mended, "pointed": self.pointed}
        told = {name: source for name, source in parts.items() if source is not None}
        return {"student": student, **told, "doubt": self.doubt[0] if self.doubt else None}


def _sides(refine: RefinePart, number: int) -> _Sides:
    def source(part: SpecialistPart | None, step: str) -> str | None:
        return None if part is None else source_of(step, number)

    pointed, mended = source(refine.point, "pointed"), source(refine.mend, "mended")
    grounded, doubt = source(refine.ground, "grounded"), source(refine.doubt, "doubt")
    student = [source_of("student", number), pointed, grounded, mended]
    return _Sides(tuple(filter(None, student)), mended, pointed, tuple(filter(None, [doubt])))


def _refine(recipe: Recipe) -> RefinePart:
    if recipe.refine is None:
        raise RecipeError(
            f"the recipe {recipe.name!r} has no section `refine`",
            "see a recipe that has one: fde recipe show refine-scenes",
        )
    return recipe.refine


def _asked(recipe: Recipe, number: int, model: str, *, held_out: bool) -> dict[str, SpecialistPart]:
    """The student as a specialist; and asked about the statements of the reference, on held-out images."""
    refine = _refine(recipe)
    relabel = _filled(refine.relabel, "relabel", {"model": model}, ())
    parts = {source_of("student", number): _on_held_out(relabel, refine.held_out) if held_out else relabel}
    if refine.ask is not None:
        reference = reference_of(refine)
        given = {"model": model, "sources": list(reference.sources)}
        ask = _filled(refine.ask, "ask", given, reference.sources)
        ask = ask.model_copy(update={"kept": reference.verdicts})
        parts[source_of("asked", number)] = _on_held_out(ask, refine.held_out)
    return parts


def _filled(
    part: SpecialistPart, place: str, given: Mapping[str, Any], needs: tuple[str, ...]
) -> SpecialistPart:
    """A part of the section with what the round gives; arguments that the recipe writes stand."""
    args = {
        name: value
        for name, value in given.items()
        if value is not None and (name not in FILLED[place] or takes(part.use, name))
    }
    return part.model_copy(
        update={"args": {**args, **part.args}, "needs": list(dict.fromkeys([*needs, *part.needs]))}
    )


def _on_held_out(part: SpecialistPart, share: float) -> SpecialistPart:
    args = {"use": part.use, "args": part.args, "held_out": share, "version": code_version(part.use)}
    return part.model_copy(update={"use": _HELD_OUT, "args": args})


def _with(recipe: Recipe, number: int, parts: Mapping[str, SpecialistPart]) -> Recipe:
    """The recipe's own specialists too: what they said is an input, and its fingerprint counts."""
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}, round {number}",
            "specialists": {**recipe.specialists, **parts},
            "filters": {},
            "refine": None,
        }
    )
