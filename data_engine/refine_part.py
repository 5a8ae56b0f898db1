"""The `refine` section of a recipe: how a student is trained, asked, merged and judged, round after round."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from data_engine.entry_point import check_arguments, did_you_mean, signature
from data_engine.errors import RecipeError
from data_engine.recipe_parts import AcceptPart, FilterPart, Part, SpecialistPart, TrainerPart, Where

STEPS = ("student", "pointed", "mended", "grounded", "asked", "doubt", "merged")
"""What the sources of a round are called, `-` and its number behind."""

_OF_ROUND = re.compile(rf"(?:{'|'.join(STEPS)})-(\d+)")

Share = Annotated[float, Field(ge=0, lt=1)]


class RefinePart(Part):
    """Rounds of training and labelling again.

    `learn`: the sources whose kept statements the first student learns from; a later one learns from the
    labels of the round before. `held_out`: the share of images that teaches nothing. `truth`: a source
    that is right, of which the held-out images alone are looked at; without it the held-out statements
    of `learn` are what is compared with.

    `student` trains, and `relabel` is the student as a specialist. It is also asked about what it learnt from: `point`
    what stands where the phrases point, `mend` which words of the texts are wrong, `ground` where the texts' phrases are,
    `doubt` how likely all of it is; and `ask` asks about the statements of truth, on held-out images alone. `calibrate` chooses
    arguments of `merge`, which makes one set of labels of both sides. Names of sources, models and folders are
    filled in: whatever of `FILLED` their constructors take. `filters` judge what was merged, and nothing
    else; in them `merged` stands for the round's own source.
    """

    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    learn: Annotated[tuple[str, ...], Field(min_length=1)]
    held_out: Share = 0.1
    truth: str | None = None
    student: TrainerPart
    relabel: SpecialistPart
    point: SpecialistPart | None = None
    mend: SpecialistPart | None = None
    ground: SpecialistPart | None = None
    ask: SpecialistPart | None = None
    doubt: SpecialistPart | None = None
    calibrate: TrainerPart | None = None
    merge: SpecialistPart
    filters: dict[str, FilterPart] = Field(default_factory=dict)
    accept: AcceptPart = AcceptPart()

    @property
    def calibration(self) -> float:
        """The share of images, half of those held out, by whose truth the merge is calibrated: the other half
        judges. 0 where nothing is calibrated."""
        return self.held_out / 2 if self.calibrate is not None and self.truth is not None else 0.0

    def check(self, specialists: Sequence[str], reserved: Sequence[str]) -> None:
        """Everything that can be known before any work. Raises RecipeError."""
        known = [*specialists, *reserved]
        for source in [*self.learn, *([] if self.truth is None else [self.truth])]:
            if source not in known:
                where = "truth" if source == self.truth else "learn"
                raise RecipeError(
                    f"refine.{where}: {source!r} is no specialist of this recipe{did_you_mean(source, known)}",
                    "name a specialist, or labels that came with the images",
                )
        if self.truth in self.learn:
            raise RecipeError(
                f"refine.truth: {self.truth!r} is learnt from, so it cannot also judge",
                "name another source, or leave `truth` out: held-out statements are compared with then",
            )
        for name in specialists:
            if round_of(name) is not None:
                raise RecipeError(
                    f"specialists.{name}: refinement gives this name to its own round",
                    "choose a name that is none of " + ", ".join(f"{step}-N" for step in STEPS),
                )
        for place in ("student", "relabel", "point", "mend", "ground", "ask", "doubt", "merge"):
            part = getattr(self, place)
            if part is not None:
                filled = [name for name in FILLED[place] if takes(part.use, name)]
                check_arguments(part.use, part.args, f"refine.{place}", filled)
        if self.calibrate is not None:
            asked = {"mended": self.mend, "pointed": self.point}
            sides = [name for name, part in asked.items() if part is not None]
            filled = [*FILLED["calibrate"], *sides]
            check_arguments(self.calibrate.use, self.calibrate.args, "refine.calibrate", filled)
        for name, rule in self.filters.items():
            check_arguments(rule.use, rule.args, f"refine.filters.{name}")

    def mapped(self, change: Any) -> RefinePart:
        """The same with the `args` of every part as `change` gives them."""
        places = ("student", "relabel", "point", "mend", "ground", "ask", "doubt", "calibrate", "merge")
        parts = {place: getattr(self, place) for place in places}
        return self.model_copy(
            update={
                **{
                    place: part.model_copy(update={"args": change(part.args)})
                    for place, part in parts.items()
                    if part is not None
                },
                "filters": {
                    name: rule.model_copy(update={"args": change(rule.args)})
                    for name, rule in self.filters.items()
                },
            }
        )


FILLED: Mapping[str, tuple[str, ...]] = {
    "student": (),
    "relabel": ("model",),
    "point": ("model", "sources"),
    "mend": ("model", "sources"),
    "ground": ("model", "sources"),
    "ask": ("model", "sources"),
    "doubt": ("model", "sources"),
    "calibrate": ("dataset", "truth", "originals", "student", "doubt", "held_out", "verdicts"),
    "merge": ("originals", "student", "mended", "pointed", "doubt"),
}
"""By step the arguments that a round gives, where the class takes them and the recipe does not say."""

_PARTS: Mapping[str, type[Part]] = {
    "student": TrainerPart,
    "relabel": SpecialistPart,
    "point": SpecialistPart,
    "mend": SpecialistPart,
    "ground": SpecialistPart,
    "ask": SpecialistPart,
    "doubt": SpecialistPart,
    "calibrate": TrainerPart,
    "merge": SpecialistPart,
    "filters": FilterPart,
    "where": Where,
    "accept": AcceptPart,
}


def known_keys(above: Sequence[str]) -> tuple[str, ...]:
    """The keys that may stand at a place within `refine`; `above` are the keys that lead there."""
    places = [place for place in above if place in _PARTS]
    part = _PARTS[places[-1]] if places else RefinePart
    return tuple(part.model_fields)


def takes(use: str, argument: str) -> bool:
    """Whether a class or function takes an argument of that name; one whose source cannot be read does."""
    found = signature(use)
    return found is None or found.open or argument in (*found.required, *found.optional)


def round_of(source: str) -> int | None:
    """The round of refinement whose source this is, None for every other. Round 0 is before the first."""
    match = _OF_ROUND.fullmatch(source)
    return int(match[1]) if match else None


def judged_in(source: str, round_: int) -> bool:
    """Whether a round's filters judge a source: round 0 all but those of refinement, a later one what it merged."""
    return round_of(source) is None if round_ == 0 else source == source_of("merged", round_)


def source_of(step: str, number: int) -> str:
    """The source of a step of a round: `merged-2`."""
    return f"{step}-{number}"
