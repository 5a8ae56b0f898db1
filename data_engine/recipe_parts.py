"""What a recipe is made of: how one specialist, filter or trainer is named and set."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from data_engine.entry_point import did_you_mean, split
from data_engine.schema import KINDS


def _split(use: str) -> str:
    split(use)
    return use


Reference = Annotated[str, AfterValidator(_split)]
"""`module:Class`."""


class Part(BaseModel):
    """Settings that know their own keys and refuse others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SpecialistPart(Part):
    """One specialist: `use` is `module:Class`, `args` its constructor's, the rest how it is run.

    `needs` lists the specialists (or `human`, `alt_text`) whose statements it is given, and `kept` leaves
    out of them what that round of verdicts dropped. `batch` is in images; `cpus` and `gpus` are per actor
    and may be fractions; `actors` is the most that run at once.
    """

    use: Reference
    args: dict[str, Any] = {}
    needs: list[str] = []
    kept: Annotated[int, Field(ge=0)] | None = None
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    actors: Annotated[int, Field(ge=1, le=100_000)] = 1
    cpus: Annotated[float, Field(ge=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0


class Where(Part):
    """The rows that a filter looks at; an empty list means any."""

    kind: list[str] = []
    granularity: list[str] = []
    source: list[str] = []

    @field_validator("kind", "granularity", "source", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("kind")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for kind in value:
            if kind not in KINDS:
                raise ValueError(f"{kind!r} is no kind{did_you_mean(kind, KINDS)}")
        return value


class FilterPart(Part):
    use: Reference
    args: dict[str, Any] = {}
    where: Where = Where()


class TrainerPart(Part):
    """What trains a student (data_engine.trainer): `use` is `module:Class`, `args` its constructor's."""

    use: Reference
    args: dict[str, Any] = {}


class AcceptPart(Part):
    """When a round is used, and when another follows (pipelines/acceptance.py).

    A round is rejected where a measure falls and the interval of `confidence` around its change lies
    below 0. Another follows where that of some measure lies above `minimum_gain`. `draws` is how often
    the held-out images are drawn anew for an interval, `seed` by which numbers.
    """

    minimum_gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    draws: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    seed: int = 0
