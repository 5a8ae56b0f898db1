"""What a merge is told: whose statements are merged, how much each side counts, and from where on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from data_engine.class_names import ClassNames
from data_engine.errors import RecipeError
from data_engine.schema import KINDS

ADD_ABOVE = "add_above"
DOUBT_NAMED = "doubt_below_named"
DOUBT_LOCATED = "doubt_below_located"
RENAME = "rename_below"
SHIFT = "shift_below"
MOVE = "move_below"
REPLACE = "replace_below"
MEND = "mend_below"
WEIGHT = "weight_student"

DEFAULTS: Mapping[str, float] = MappingProxyType(
    {
        ADD_ABOVE: 0.5,
        DOUBT_NAMED: 0.1,
        DOUBT_LOCATED: 0.1,
        RENAME: 0.5,
        SHIFT: 0.5,
        MOVE: 0.1,
        REPLACE: 0.5,
        MEND: 0.005,
        WEIGHT: 1.0,
    }
)
"""What stands where no truth says better (`specialists.merge_calibration`). All are choices of this project.

The likelihoods are relative to what the student would say itself. At 0.1 it finds its own answer ten times
as probable: little enough to take a statement back that only the originals have. A name falls at 0.5,
since there the student has looked at the same place and says another one, and so does a box where it sees the same
thing close by (`shift_below`). `replace_below` is of whole texts:
a mean over tokens that is halved is a text that goes wrong more than once. `mend_below` is of texts that only some words
were exchanged in: at 0.005 the mended text is 200 times as probable as the original. A student's score is a mean
over four coordinates and no probability that there is a thing; 0.5 asks that it is sure of where. Equal
weights say that neither side is known to be better.
"""

UNCHANGED: Mapping[str, float] = MappingProxyType(
    {
        ADD_ABOVE: 2.0,
        DOUBT_NAMED: 0.0,
        DOUBT_LOCATED: 0.0,
        RENAME: 0.0,
        SHIFT: 0.0,
        MOVE: 0.0,
        REPLACE: 0.0,
        MEND: 0.0,
        WEIGHT: 0.0,
    }
)
"""What leaves the originals as they are: no score lies above 2 and no likelihood below 0."""

OF_TEXTS = (REPLACE, MEND)
"""Thresholds of texts about an image; the others are of regions and phrases."""

Threshold = float | Mapping[str, float]


def key_of(kind: str, granularity: str | None) -> str:
    """What thresholds of one kind of statement are filed under: `region/phrase`, `text/brief`, `phrase`."""
    return kind if granularity is None else f"{kind}/{granularity}"


@dataclass(frozen=True)
class Thresholds:
    """Each by its name and, where they differ, by key (`key_of`), or by kind alone. Raises RecipeError."""

    values: Mapping[str, Threshold] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            if name not in DEFAULTS:
                raise RecipeError(f"{name!r} is no threshold of a merge", f"it has {', '.join(DEFAULTS)}")
            for key, number in (value if isinstance(value, Mapping) else {"": value}).items():
                if key and key.split("/")[0] not in KINDS:
                    raise RecipeError(
                        f"{name}: {key!r} is no kind", "write region/phrase, text/brief or phrase"
                    )
                if (
                    isinstance(number, bool)
                    or not isinstance(number, (int, float))
                    or not 0 <= number < math.inf
                ):
                    raise RecipeError(f"{name} is {number!r}", "it must be a number of 0 or more")

    def of(self, name: str, key: str) -> float:
        value = self.values.get(name, DEFAULTS[name])
        if not isinstance(value, Mapping):
            return float(value)
        return float(value.get(key, value.get(key.split("/")[0], DEFAULTS[name])))


@dataclass(frozen=True)
class MergeSettings:
    """Who has which part in a merge, and what of it is one number for all kinds of statements."""

    originals: Sequence[str]
    student: Sequence[str]
    human: Sequence[str] = ("human",)
    doubt: str | None = None
    scorer: str | None = None
    mended: str | None = None
    pointed: str | None = None
    iou: float = 0.5
    near_iou: float = 0.1
    list_above: float = 0.8
    mask_iou: float = 0.5
    inside: float = 0.8
    unscored: float = 1.0
    scorer_margin: float = 0.0
    max_boxes: int = 2000
    names: ClassNames = field(default_factory=ClassNames)
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        if not self.originals or not self.student:
            raise RecipeError("a merge needs `originals` and a `student`", "name sources for both")
        both = {*self.originals, *self.human} & {*self.student}
        both |= {*self.originals, *self.human, *self.student} & {self.doubt, self.scorer}
        if both:
            raise RecipeError(f"{sorted(map(str, both))[0]!r} has two parts in the merge", "name it once")
        if not all(0 < share <= 1 for share in (self.iou, self.near_iou, self.mask_iou, self.inside)):
            raise RecipeError(
                "iou, near_iou, mask_iou and inside must lie above 0, and 1 at most", "correct `args`"
            )
        if not all(0 <= part <= 1 for part in (self.unscored, self.scorer_margin, self.list_above)):
            raise RecipeError("unscored, scorer_margin and list_above must lie in 0..1", "correct `args`")
        if self.max_boxes < 1:
            raise RecipeError("max_boxes must be at least 1", "correct `args`")

    def above(self, name: str, kind: str, granularity: str | None) -> float:
        return self.thresholds.of(name, key_of(kind, granularity))
