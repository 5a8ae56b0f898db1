"""What labels and students are worth on held-out images: every measure that both sides have something to say to.

Labels are held against truth where there is some. Without it a student is held against the held-out statements
that it might have learnt from: then measures say how well it does what its teachers do, errors included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.ingest.scenes import NAME as SCENES
from data_engine.quality.captions import captions_by_image, region_agreement
from data_engine.quality.cider import cider_by_image
from data_engine.quality.coco import ground_truth
from data_engine.quality.detection import average_precision, f1_by_image
from data_engine.quality.grounding import recall_by_image
from data_engine.quality.masks import iou_by_image
from data_engine.quality.selected import Labels, Selected
from data_engine.quality.shares import Shares, change, estimate
from data_engine.quality.text import exact_by_image
from data_engine.quality.triplets import descriptions_by_image, phrases_by_image
from data_engine.recipe_parts import AcceptPart
from data_engine.refine_part import RefinePart
from data_engine.rounds import Measured
from data_engine.scenes.attributes import Reader
from data_engine.scenes.scene import SOURCE as SCENES_TRUTH

_TEXTS = ("brief", "detailed", "more_detailed")

_MASKS, _LINES = "masks: F1", "lines: read exactly, F1"

_MEASURED: dict[tuple[str, str | None, str], str] = {
    ("region", None, "mask"): _MASKS,
    ("region", "ocr", "text"): _LINES,
    **{("text", granularity, "text"): f"{granularity} captions: CIDEr" for granularity in _TEXTS},
}
"""What says how much of the reference's is there, of each sort of statement (`_said`) that labels need not have."""

REFERENCE = "reference"
"""The name by which what is compared with stands in a `Selected`."""


@dataclass(frozen=True)
class Figure:
    """One measure of one subject: a share per image (`shares`), or, where it is none, a plain `value`.

    `decides` marks those by which a round is accepted or rejected.
    """

    subject: str
    measure: str
    decides: bool
    shares: Shares | None = None
    value: float = math.nan
    over: int = 0


def selected(
    dataset: Dataset, section: RefinePart, reference: Labels, labels: Mapping[str, Labels]
) -> Selected:
    """The held-out images that judge (those that calibrate do not), and the subjects by the names of tables."""
    return Selected(dataset, section.held_out, {REFERENCE: reference, **labels}, beyond=section.calibration)


def learnt_from(
    dataset: Dataset, section: RefinePart, reference: Labels, labels: Mapping[str, Labels]
) -> Selected:
    """The same of the images that are not held out."""
    return Selected(dataset, section.held_out, {REFERENCE: reference, **labels}, held_out=False)


def is_scenes_truth(dataset: Dataset, reference: Labels) -> bool:
    """Whether what is compared with is the exact truth of drawn scenes: then words can be judged."""
    return dataset.info.source_format == SCENES and reference.sources == (SCENES_TRUTH,)


def label_figures(
    view: Selected, subject: str, *, scenes: bool, before: Sequence[Figure] = ()
) -> Iterator[Figure]:
    """Measures of a set of labels, or of a student's answers about images, against the reference.

    Of what it does not speak of at all there are none; but those of `before`, the labels that it comes after, are
    taken of it too: what is lost altogether counts as lost.
    """
    said, right = _said(view, subject), _said(view, REFERENCE)
    said |= {sort for sort, measure in _MEASURED.items() if any(measure == one.measure for one in before)}
    if ("region", "phrase", "text") in right:
        yield Figure(subject, "regions: F1", True, f1_by_image(view, subject, REFERENCE))
    if ("region", None, "mask") in right & said:
        masks = f1_by_image(view, subject, REFERENCE, iou_type="segm")
        yield Figure(subject, _MASKS, True, masks)
    for granularity in _TEXTS:
        if ("text", granularity, "text") not in right & said:
            continue
        if scenes:
            whole, phrases = captions_by_image(
                view, subject, REFERENCE, Reader().judge, granularity=granularity
            )
            yield Figure(subject, f"{granularity} captions: all true", True, whole)
            yield Figure(subject, f"{granularity} captions: phrases true", False, phrases)
        likeness = cider_by_image(view, subject, REFERENCE, granularity=granularity)
        yield Figure(subject, f"{granularity} captions: CIDEr", not scenes, likeness)
    if ("region", "ocr", "text") in right & said:
        yield Figure(subject, _LINES, True, exact_by_image(view, subject, REFERENCE))
    if scenes:
        if any(kind == "text" and granularity in _TEXTS for kind, granularity, _ in said):
            grounded = phrases_by_image(view, subject, REFERENCE, Reader().fitting)
            yield Figure(subject, "phrases of captions: recall@1", True, grounded)
        if ("region", "brief", "text") in said:
            described = descriptions_by_image(view, subject, REFERENCE, Reader().fitting)
            yield Figure(subject, "descriptions: true", True, described)


def precision_figures(view: Selected, subject: str) -> Iterator[Figure]:
    """COCO's average precision, with the scores as they are. It is no share per image, so it has no interval."""
    if ground_truth(view, REFERENCE)["annotations"]:
        found = average_precision(view, subject, REFERENCE, threshold=0.0)
        yield Figure(subject, "boxes: AP", False, value=found.ap, over=found.images)
        yield Figure(subject, "boxes: AP50", False, value=found.ap50, over=found.images)


def asked_figures(view: Selected, student: str, asked: str) -> Iterator[Figure]:
    """Measures of what a student (`student` names it in tables) says when it is asked about the reference."""
    said = _said(view, asked)
    if ("phrase", None, "text") in said:
        recall = recall_by_image(view, asked, REFERENCE)
        yield Figure(student, "phrases of the reference: recall@1", True, recall)
    for kind in ("phrase", "region"):
        if (kind, None, "mask") in said:
            masks = iou_by_image(view, asked, REFERENCE, kind)
            yield Figure(student, f"masks of the reference's {kind}s: mean IoU", True, masks)
    for granularity in ("phrase", "brief", "ocr"):
        if ("region", granularity, "text") in said:
            same = region_agreement(view, asked, REFERENCE, granularity)
            name = f"texts of the reference's regions ({granularity}): exact"
            yield Figure(student, name, False, value=same.same, over=same.texts)


def measured(figures: Sequence[Figure], before: Sequence[Figure], accept: AcceptPart) -> list[Measured]:
    """Figures with their intervals, and how they differ from what the round began with.

    `before` are the figures of those labels, or of that student: one of the same measure is compared with.
    """
    earlier = {figure.measure: figure for figure in before}
    settings = (accept.confidence, accept.draws, accept.seed)
    rows = []
    for figure in figures:
        if figure.shares is None:
            rows.append(
                Measured(figure.subject, figure.measure, figure.value, math.nan, math.nan, figure.over)
            )
            continue
        shares = figure.shares
        found = estimate(shares, *settings)
        images = int((shares.whole > 0).sum())
        row = Measured(figure.subject, figure.measure, found.value, found.low, found.high, images)
        old = earlier.get(figure.measure)
        if old is not None and old.shares is not None:
            moved = change(old.shares, shares, *settings)
            row = replace(
                row,
                decides=figure.decides and not math.isnan(moved.value),
                change=moved.value,
                change_low=moved.low,
                change_high=moved.high,
            )
        rows.append(row)
    return rows


def _said(view: Selected, source: str) -> set[tuple[str, str | None, str]]:
    """The sorts of statements that a source makes here: kind, granularity, and text, mask or other.

    Granularities count for texts of images and regions; phrases and masks have none here.
    """
    found: set[tuple[str, str | None, str]] = set()
    for shard in view.shards:
        rows = view.annotations(source, shard, ["kind", "granularity", "text", "mask"])
        kinds = pa.table(
            {
                "kind": rows["kind"],
                "granularity": rows["granularity"],
                "text": rows["text"].is_valid(),
                "mask": rows["mask"].is_valid(),
            }
        )
        for row in kinds.group_by(kinds.column_names).aggregate([]).to_pylist():
            what = "mask" if row["mask"] else "text" if row["text"] else "other"
            plain = row["mask"] or row["kind"] == "phrase"
            found.add((row["kind"], None if plain else row["granularity"], what))
    return found
