"""The originals' statements and a student's, merged into one new set: what both say, and what one says likely enough.

FLD-5B's iterative refinement relabels with a trained model and merges what it says "with the original ones"
(arXiv 2311.06242, section 4.2); how is not published. Here each kind of statement has a rule of its own, in
`merge_boxes`, `merge_texts`, `merge_phrases` and `merge_carried`; docs/merging.md tells them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.annotation import Annotation
from data_engine.class_names import ClassNames
from data_engine.errors import ImageError, RecipeError, SpecialistError
from data_engine.held_out import is_held_out
from data_engine.image import Image
from data_engine.recipe import RESERVED
from specialists.merge_boxes import merge_regions
from specialists.merge_carried import merge_outside
from specialists.merge_phrases import merge_phrases
from specialists.merge_rows import Page, pages
from specialists.merge_settings import MergeSettings, Threshold, Thresholds
from specialists.merge_texts import merge_texts

VERSION = 10  # raised too when the output of the other files of the merge changes


class Merge:
    """Texts, regions, phrases and masks, each with its `member` rows and a `change` row that says why it is there.

    A member's text is the `annotation_id` of a row that the statement was made from, a change's the reason. Each
    statement of the originals is a member of something, or has a change `doubted` hanging on it. The views
    `members` and `changes` show both. What was merged stays as it is.

    - `originals`, `student`: the sources merged; a student may have said what it says in several.
    - `human`: people's sources. Their statements stay as they are, and so does what they hang on. `[]`: people
      count as any other source that is named in `originals`.
    - `doubt`: the source of the student's likelihoods (`named`, `located`, `told`), `scorer` that of image-text
      scores. Without `doubt` no statement of the originals is dropped, renamed or moved.
    - `mended`: that of the student's sources whose texts are the originals' with some words exchanged
      (`specialists.florence2.mending`). Such a text stands before one that was written anew.
    - `pointed`: that of the student's sources whose regions are where phrases point (`specialists.florence2.pointing`). Of an
      image that has such, the regions that the student listed itself take part elsewhere alone, with a score of
      `list_above` or more.
    - `iou`: from which two boxes are one place; 0.5 is what detections are matched with everywhere.
    - `near_iou`: a student's box that overlaps an original of its name by less than `iou` and at least by this is the same
      thing somewhere else, where both are left over.
    - `weight_student`: how much its boxes count in a mean where an original's count 1, each times its score and, of
      an original, how likely the student finds its place.
    - It and `add_above`, `doubt_below_named`, `doubt_below_located`, `rename_below`, `shift_below`, `move_below`, `replace_below`,
      `mend_below`: a number, or numbers by kind and granularity, `{region/phrase: 0.4, phrase: 0.6}`; `merge_settings.DEFAULTS`
      has those that hold otherwise and their reasons, `merge_calibration` finds them where there is truth.
    - `taught`: other values of these, by their names, for the images that the student learnt from: those beyond the share
      `untaught` (`data_engine.held_out`). It finds its own lessons likely.
    - `mask_iou`: a mask follows a box that moved no further than this. At 0.5 it may still be the thing's by the usual
      measure; nearer boxes alone (0.8) cost more right masks than wrong ones (docs/merging.md).
    - `inside`: the share of a box that lies in another of which it is a part; 0.8 is our choice. `scorer_margin`: less
      is no preference.
    - `unscored`: what a box without a score counts for. `same`: other names of a class.
    - `max_boxes`: of each side of a kind in an image, the strongest are held against the other's; it bounds
      memory. Originals beyond stay unless doubted, the student's are left out: a failure of reason `too_many`.

    Raises RecipeError.
    """

    needs_pixels = False

    def __init__(
        self,
        originals: Sequence[str],
        student: str | Sequence[str],
        doubt: str | None = None,
        scorer: str | None = None,
        mended: str | None = None,
        pointed: str | None = None,
        human: Sequence[str] = ("human",),
        iou: float = 0.5,
        near_iou: float = 0.1,
        list_above: float = 0.8,
        weight_student: Threshold | None = None,
        add_above: Threshold | None = None,
        doubt_below_named: Threshold | None = None,
        doubt_below_located: Threshold | None = None,
        rename_below: Threshold | None = None,
        shift_below: Threshold | None = None,
        move_below: Threshold | None = None,
        replace_below: Threshold | None = None,
        mend_below: Threshold | None = None,
        taught: Mapping[str, Threshold] | None = None,
        untaught: float = 0.0,
        mask_iou: float = 0.5,
        inside: float = 0.8,
        scorer_margin: float = 0.0,
        unscored: float = 1.0,
        max_boxes: int = 2000,
        same: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if isinstance(originals, str) or isinstance(human, str):
            raise RecipeError("`originals` and `human` are lists of sources", "write them in brackets")
        given = {
            "add_above": add_above,
            "doubt_below_named": doubt_below_named,
            "doubt_below_located": doubt_below_located,
            "rename_below": rename_below,
            "shift_below": shift_below,
            "move_below": move_below,
            "replace_below": replace_below,
            "mend_below": mend_below,
            "weight_student": weight_student,
        }
        if taught and not 0 < untaught < 1:
            raise RecipeError(
                f"untaught is {untaught}",
                "`taught` needs the share of images that taught nothing, above 0 and below 1",
            )
        self.untaught = untaught
        self.settings = MergeSettings(
            [source for source in originals if source not in human],
            (student,) if isinstance(student, str) else tuple(student),
            tuple(human),
            doubt,
            scorer,
            mended,
            pointed,
            iou,
            near_iou,
            list_above,
            mask_iou,
            inside,
            unscored,
            scorer_margin,
            max_boxes,
            ClassNames(same),
            Thresholds({name: value for name, value in given.items() if value is not None}),
        )
        both = {**self.settings.thresholds.values, **(taught or {})}
        self.taught = replace(self.settings, thresholds=Thresholds(both))

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation | ImageError]]:
        """Each image's merged statements, then what says where they come from."""
        if said is None:
            raise SpecialistError(
                "there is nothing to merge", "name the originals and the student under `needs`"
            )
        self._check_sources(said)
        found = pages(said, self.settings)
        ids = pa.array([image.image_id for image in images], pa.string())
        apart = is_held_out(ids, self.untaught).tolist() if self.untaught else [True] * len(ids)
        merged: list[list[Annotation | ImageError]] = []
        for image, is_untaught in zip(images, apart, strict=True):
            page = found.get(image.image_id)
            if page is not None:
                merge_page(page, self.settings if is_untaught else self.taught)
            merged.append([] if page is None else list(page.annotations()))
        return merged

    def _check_sources(self, said: pa.Table) -> None:
        """A misspelt source would be one that says nothing, and all that others say would be doubted or added."""
        s = self.settings
        known = {*s.originals, *s.student, *s.human, s.doubt, s.scorer, *RESERVED}
        for source in pc.unique(said["source"]).to_pylist():
            if source not in known:
                raise SpecialistError(
                    f"{source!r} is needed, but has no part in the merge",
                    "name it under `originals`, `student`, `doubt`, `scorer` or `human`, or leave it out of `needs`",
                )


def merge_page(page: Page, settings: MergeSettings) -> None:
    """Merge one image's statements."""
    told = merge_texts(page, settings)
    merge_regions(page, settings)
    merge_phrases(page, told, settings)
    merge_outside(page)
