"""Thresholds of a merge from held-out images whose truth is known: each the best of all cuts.

A student's scores and likelihoods are no probabilities, and differ from student to student and from kind to kind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from data_engine.class_names import ClassNames
from data_engine.dataset import Dataset
from data_engine.entry_point import load
from data_engine.errors import DatasetError, RecipeError
from specialists.merge_choice import best_by_key
from specialists.merge_examples import Examples, link_examples, region_examples, text_examples
from specialists.merge_hanging import Hanging, hanging_examples
from specialists.merge_measure import HeldOut, held_out_images, measure, taught_pages, truths_of
from specialists.merge_settings import DOUBT_NAMED, MergeSettings, Thresholds
from specialists.merge_taught import judged_values, taught_thresholds
from specialists.merge_texts import merge_texts
from specialists.merge_thresholds import text_thresholds, thresholds_of
from specialists.merge_truth import Worth, judged_by, word_f1

VERSION = 10

LEAST = 30
"""With fewer examples than this a threshold is not looked for: the best cut of a handful is chance."""

MOST = 5_000
"""Images that are looked at, the first by id: their statements lie in memory, and more change little."""


@dataclass(frozen=True)
class Measured:
    """What merging is worth on the held-out images, by kind of statement: F1 of regions and phrases at IoU 0.5,
    the mean worth of texts. `originals` as they are, `defaults` and `merged` after a merge by defaults and by the
    thresholds found. `truths` is how many statements truth has."""

    key: str
    originals: float
    defaults: float
    merged: float
    truths: int


@dataclass(frozen=True)
class Calibration:
    """`thresholds` by name and key, as `specialists.merge:Merge` takes them; those that are not here keep their
    defaults. `taught` are those for the images that the student learnt from, beyond the share `untaught`. `examples` is
    how many each was found from. `images` were looked at."""

    thresholds: dict[str, dict[str, float]]
    taught: dict[str, dict[str, float]]
    untaught: float
    examples: dict[str, dict[str, int]]
    measured: tuple[Measured, ...]
    images: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Raises DatasetError for what `to_json` has not written."""
        try:
            found = json.loads(text)
            Thresholds(found["thresholds"])
            Thresholds(found["taught"])
            return cls(
                found["thresholds"],
                found["taught"],
                float(found["untaught"]),
                found["examples"],
                tuple(Measured(**row) for row in found["measured"]),
                found["images"],
            )
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"these are no thresholds of a merge: {error}", "calibrate again") from error


def calibrated_arguments(
    dataset: Dataset, truth: str, untaught: float | None = None, **settings: Any
) -> dict[str, Any]:
    """The thresholds of `calibrate` as arguments of `specialists.merge:Merge`."""
    found = calibrate(dataset, truth, untaught=untaught, **settings)
    return {**found.thresholds, "taught": found.taught, "untaught": found.untaught}


def calibrate(
    dataset: Dataset,
    truth: str,
    originals: Sequence[str],
    student: str | Sequence[str],
    doubt: str | None = None,
    scorer: str | None = None,
    mended: str | None = None,
    pointed: str | None = None,
    held_out: float = 0.1,
    untaught: float | None = None,
    verdicts: int | None = None,
    human: Sequence[str] = ("human",),
    iou: float = 0.5,
    same: dict[str, list[str]] | None = None,
    judge: str | None = None,
    least: int = LEAST,
    most: int = MOST,
) -> Calibration:
    """Find the thresholds that make merged statements most right on held-out images.

    - `held_out`: the share of images by whose truth thresholds are found (`data_engine.held_out`); the student did not
      learn from them. `untaught`: the share of all that it did not learn from; by default the same.
    - `verdicts`: of the originals only what that round of filters kept.
    - `judge`: `module:Class` with a method `judge(text, descriptions)` that tells which noun phrases of a text are
      true (data_engine.scenes.attributes:Reader does so for drawn scenes). Without, texts are compared
      with truth's, word for word.
    - All else as in `specialists.merge:Merge`.

    Thresholds of regions and phrases maximise F1 at IoU 0.5, and so do those of texts that hang on regions; those of
    places the mean IoU, those of texts about the image their mean worth. A kind of which defaults, or the originals as
    they are, would be worth more has those (`merge_choice`). On images that the student learnt from the same shares of
    statements are parted off (`merge_taught`). Raises DatasetError when a source is missing, and RecipeError when
    `untaught` is less than `held_out`.
    """
    settings = MergeSettings(
        [source for source in originals if source not in human],
        (student,) if isinstance(student, str) else tuple(student),
        tuple(source for source in human if source != truth),
        doubt,
        scorer,
        mended,
        pointed,
        iou,
        names=ClassNames(same),
    )
    untaught = held_out if untaught is None else untaught
    if untaught < held_out:
        raise RecipeError(
            f"untaught is {untaught}, and {held_out} are held out",
            "images that choose thresholds taught nothing: `untaught` is at least `held_out`",
        )
    worth: Worth = word_f1 if judge is None else judged_by(load(judge, {}, "judge").judge)
    images = list(held_out_images(dataset, truth, settings, held_out, verdicts, most))
    chosen, examples = _texts(images, worth, settings, least)
    by_text = _with(settings, chosen)
    found = _boxes(images, by_text)
    for key in sorted(found):
        values, counts = thresholds_of(found[key], least)
        for name, value in values.items():
            chosen.setdefault(name, {})[key] = value
            examples.setdefault(name, {})[key] = counts[name]
    for key, hanging in _hanging(images, by_text).items():
        if len(hanging.rows) >= least and key not in chosen.get(DOUBT_NAMED, {}):
            chosen.setdefault(DOUBT_NAMED, {})[key] = hanging.threshold()
            examples.setdefault(DOUBT_NAMED, {})[key] = len(hanging.rows)
    before = measure(images, settings, worth, merged=False)
    chosen, default = best_by_key(chosen, images, settings, worth)
    after = measure(images, _with(settings, chosen), worth)
    truths = truths_of(images)
    found_by = _with(settings, chosen)
    untaught_values = judged_values((image.page() for image in images), found_by)
    others = judged_values(taught_pages(dataset, found_by, untaught, verdicts, most), found_by)
    return Calibration(
        chosen,
        taught_thresholds(chosen, untaught_values, others, least),
        untaught,
        examples,
        tuple(
            Measured(key, before.get(key, 0.0), default.get(key, 0.0), after[key], truths.get(key, 0))
            for key in sorted(after)
        ),
        len(images),
    )


def _with(settings: MergeSettings, chosen: dict[str, dict[str, float]]) -> MergeSettings:
    return replace(settings, thresholds=Thresholds(chosen))


def _texts(
    images: Sequence[HeldOut], worth: Worth, settings: MergeSettings, least: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for image in images:
        text_examples(image.page(), image.truth, worth, settings, found)
    return text_thresholds(found, least)


def _boxes(images: Sequence[HeldOut], settings: MergeSettings) -> dict[str, Examples]:
    found: dict[str, Examples] = {}
    for image in images:
        page = image.page()
        region_examples(page, image.truth, settings, found)
        link_examples(page, merge_texts(page, settings), image.truth, settings, found)
    # Without a truth of a kind nothing of it is known.
    return {key: examples for key, examples in found.items() if examples.truths}


def _hanging(images: Sequence[HeldOut], settings: MergeSettings) -> dict[str, Hanging]:
    found: dict[str, Hanging] = {}
    for image in images:
        hanging_examples(image.page(), image.truth, settings, found)
    return found
