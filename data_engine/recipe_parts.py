"""What a recipe is made of: how one specialist, filter or trainer is named and set."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

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


_MOST_ACTORS = 100_000


class ActorsPart(Part):
    """How many actors a specialist has on a cluster that grows and shrinks: `min` are kept while it has work
    left, and for up to `max` the cluster's autoscaler is asked."""

    min: Annotated[int, Field(ge=0, le=_MOST_ACTORS)] = 0
    max: Annotated[int, Field(ge=1, le=_MOST_ACTORS)]

    @model_validator(mode="after")
    def _in_order(self) -> ActorsPart:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, above max, which is {self.max}")
        return self


RUNTIME_ENV_KEYS = (
    "pip", "uv", "conda", "env_vars", "working_dir", "py_modules", "excludes", "py_executable", "container",
    "image_uri", "java_jars", "nsight", "rocprof_sys", "worker_process_setup_hook", "config",
)  # fmt: skip
"""What Ray 2.60 knows in a `runtime_env`."""


class SpecialistPart(Part):
    """One specialist: `use` is `module:Class`, `args` its constructor's, the rest how it is run.

    `needs` lists the specialists (or `human`, `alt_text`) whose statements it is given, and `kept` leaves
    out of them what that round of verdicts dropped. `batch` is in images; `cpus`, `gpus` and `resources`
    (the cluster's own, by name) are per actor and may be fractions; `actors` is the most that run at once.
    An actor that gives no sign of life for `silence` seconds, or does not load in them, is replaced.
    `runtime_env` is Ray's: the packages and variables of its processes.
    """

    use: Reference
    args: dict[str, Any] = {}
    needs: list[str] = []
    kept: Annotated[int, Field(ge=0)] | None = None
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    actors: int | ActorsPart = 1
    cpus: Annotated[float, Field(ge=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    silence: Annotated[float, Field(gt=0)] = 1800
    runtime_env: dict[str, Any] = {}

    @field_validator("actors", mode="before")
    @classmethod
    def _one_way(cls, value: Any) -> Any:
        # Else pydantic complains of both ways of writing it, and first of the one that was not meant.
        if isinstance(value, int) and 1 <= value <= _MOST_ACTORS:
            return value
        if not isinstance(value, dict):
            raise ValueError(f"write a number from 1 to {_MOST_ACTORS:,}, or {{min: 1, max: 8}}")
        for key in value:
            if key not in ActorsPart.model_fields:
                raise ValueError(f"unknown key {key!r}{did_you_mean(key, tuple(ActorsPart.model_fields))}")
        try:
            return ActorsPart.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(
                ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])
            ) from error

    @field_validator("resources")
    @classmethod
    def _own_keys(cls, value: dict[str, float]) -> dict[str, float]:
        for name, key in (("CPU", "cpus"), ("GPU", "gpus"), ("memory", ""), ("object_store_memory", "")):
            if name in value:
                raise ValueError(f"{name!r} is no resource of this kind{key and f': write `{key}`'}")
        return value

    @field_validator("runtime_env")
    @classmethod
    def _known_to_ray(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key not in RUNTIME_ENV_KEYS:
                raise ValueError(f"Ray knows no {key!r}{did_you_mean(key, RUNTIME_ENV_KEYS)}")
        variables = value.get("env_vars", {})
        if not isinstance(variables, dict) or not all(isinstance(v, str) for v in variables.values()):
            raise ValueError("env_vars must be names with texts (write numbers in quotes)")
        return value

    @property
    def most(self) -> int:
        """The most actors that run at once."""
        return self.actors if isinstance(self.actors, int) else self.actors.max

    @property
    def least(self) -> int:
        """How many actors stay while there is work left, though there is none for them now."""
        return 0 if isinstance(self.actors, int) else self.actors.min

    @property
    def elastic(self) -> bool:
        """Whether the cluster is asked to grow for it."""
        return not isinstance(self.actors, int)

    @property
    def only_on_ray(self) -> list[str]:
        """What of its `runtime_env` one process cannot have."""
        return sorted(set(self.runtime_env) - {"env_vars", "config"})

    @property
    def wants(self) -> dict[str, float]:
        """What one actor takes of a node, in Ray's words."""
        return {"CPU": self.cpus, "GPU": self.gpus, **self.resources}


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
