"""Which errors are made and how often: what a recipe says of noise, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError
from data_engine.noise.words import ATTRIBUTES

BOX_CHANGES = ("invented", "missed", "merged", "split", "jittered", "mislabelled")
PHRASE_CHANGES = ("dropped_link", "wrong_link", "jittered_link")
CAPTION_CHANGES = ("swapped", "alt_text", "attribute_flipped", "truncated", "repeated", "boilerplate")
"""Each in the order in which it is applied."""

SYSTEMATIC_MISSED = "systematic_missed"
SYSTEMATIC_SHIFTED = "systematic_shifted"
SYSTEMATIC_MISLABELLED = "systematic_mislabelled"

REANCHORED = "reanchored"
"""No error: a phrase of a changed caption that still stands there, at another place."""

CHANGES = (
    *BOX_CHANGES, *PHRASE_CHANGES, *CAPTION_CHANGES,
    SYSTEMATIC_MISSED, SYSTEMATIC_SHIFTED, SYSTEMATIC_MISLABELLED, REANCHORED,
)  # fmt: skip
"""Every text that a label may have."""

Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]
Rate = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rates(_Part):
    """The share of all rows that could have an error which get it, by error; 0..1. docs/noise.md says which could."""

    invented: Rate = 0
    missed: Rate = 0
    merged: Rate = 0
    split: Rate = 0
    jittered: Rate = 0
    mislabelled: Rate = 0
    dropped_link: Rate = 0
    wrong_link: Rate = 0
    jittered_link: Rate = 0
    swapped: Rate = 0
    alt_text: Rate = 0
    attribute_flipped: Rate = 0
    truncated: Rate = 0
    repeated: Rate = 0
    boilerplate: Rate = 0


class Systematic(_Part):
    """Errors by rule instead of by chance: every region that a rule fits has them.

    `missed_below`: regions whose box has a smaller square root of its area, in pixels, are missed.
    `corner`: this corner of every box is moved outwards by `shift` of the box's sides (inwards where
    negative). `called`: regions of a class (key) always bear another's name (value).
    """

    missed_below: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    corner: Corner | None = None
    shift: Annotated[float, Field(ge=-0.9, le=2)] = 0.2
    called: dict[str, str] = {}


class NoiseModel(_Part):
    """All that decides what is done to an image's rows, but for its id and its size.

    `sigma`: a jittered box has each edge moved by a normal deviate of this share of its own side.
    `classes`: names that a mislabelled or invented region may get. `class_factors`: for a class, the
    factors of its rates (at most 1 comes out). `confusions`: for a class, the names that a mislabelled
    region of it gets, with weights; other classes get any of `classes`. `attributes`: categories of
    words that are exchanged with one another. `donors`: captions of other images.
    """

    seed: int = 0
    rates: Rates = Rates()
    sigma: Annotated[float, Field(ge=0.01, le=2)] = 0.1
    classes: tuple[str, ...] = ()
    class_factors: dict[str, dict[str, Weight]] = {}
    confusions: dict[str, dict[str, Weight]] = {}
    systematic: Systematic = Systematic()
    attributes: dict[str, tuple[str, ...]] = ATTRIBUTES
    donors: tuple[str, ...] = ()

    @field_validator("confusions", mode="before")
    @classmethod
    def _weighted(cls, value: Any) -> Any:
        """A name, or a list of names, is those names with equal weights."""
        if not isinstance(value, Mapping):
            return value
        return {
            name: {into: 1.0}
            if isinstance(into, str)
            else dict.fromkeys(into, 1.0)
            if isinstance(into, Sequence)
            else into
            for name, into in value.items()
        }

    def rate(self, change: str, class_name: str | None = None) -> float:
        """How likely a change is; for a region, that of its class."""
        rate: float = getattr(self.rates, change)
        return min(1.0, rate * self.class_factors.get(class_name or "", {}).get(change, 1.0))


def noise_model(args: Mapping[str, Any]) -> NoiseModel:
    """Check what a recipe says. Raises RecipeError for unknown names and values that make no sense."""
    try:
        model = NoiseModel.model_validate(dict(args))
    except ValidationError as error:
        raise _readable(error) from error
    for class_name, factors in model.class_factors.items():
        for change in factors:
            if change not in BOX_CHANGES:
                raise RecipeError(
                    f"class_factors.{class_name}: {change!r} is no error of regions"
                    f"{did_you_mean(change, BOX_CHANGES)}",
                    "correct or remove it",
                )
    for class_name, into in model.confusions.items():
        if class_name in into or not sum(into.values()) > 0:
            raise RecipeError(
                f"confusions.{class_name} must name other classes, one of them with a weight above 0",
                "correct or remove it",
            )
    for class_name, other in model.systematic.called.items():
        if class_name == other:
            raise RecipeError(
                f"systematic.called: {other!r} under its own name is no error", "name another class"
            )
    _check_classes(model)
    for category, words in model.attributes.items():
        if len({word.lower() for word in words}) < 2 or not all(word.strip() for word in words):
            raise RecipeError(
                f"attributes.{category} needs two words or more to exchange", "add words or remove it"
            )
    if model.rates.swapped and len(set(model.donors)) < 2:
        raise RecipeError("swapped captions need donors", "give two captions or more as `donors`")
    return model


def _check_classes(model: NoiseModel) -> None:
    if model.rates.mislabelled and not model.confusions and len(set(model.classes)) < 2:
        raise RecipeError(
            "mislabelled regions need names to get", "give two `classes` or more, or `confusions`"
        )
    if not model.classes:
        return
    named = {
        "class_factors": [*model.class_factors],
        "confusions": [*model.confusions, *(name for into in model.confusions.values() for name in into)],
        "systematic.called": [*model.systematic.called, *model.systematic.called.values()],
    }
    for place, names in named.items():
        for name in names:
            if name not in model.classes:
                raise RecipeError(
                    f"{place}: {name!r} is none of `classes`{did_you_mean(name, model.classes)}",
                    "correct it, or add it to `classes`",
                )


_FIELDS = {
    "rates": tuple(Rates.model_fields),
    "systematic": tuple(Systematic.model_fields),
    "": tuple(NoiseModel.model_fields),
}


def _readable(error: ValidationError) -> RecipeError:
    """One complaint of pydantic as one line, with a suggestion for a misspelt name."""
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *above, key = [str(part) for part in first["loc"]]
        known = _FIELDS[above[0] if above else ""]
        return RecipeError(f"unknown key {place!r}{did_you_mean(key, known)}", "correct or remove it")
    return RecipeError(f"{place}: {first['msg']}", "correct the value")
