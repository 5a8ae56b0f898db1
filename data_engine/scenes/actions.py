"""Actions: how an actor and the thing that it acts on stand to each other, so that the verb can be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import PIL.Image
import PIL.ImageDraw

from data_engine.scenes.draw import Stamp
from data_engine.scenes.world import RGB

Path = np.ndarray
"""Points (n, 2) of a line in pixels."""

_OVERSAMPLE = 3


@dataclass(frozen=True, eq=False)
class Staged:
    """Where the object's stamp goes, from the actor's top left, and lines to draw: ropes, traces of speed."""

    x: int
    y: int
    lines: tuple[Path, ...] = ()


Stage = Callable[[Stamp, Stamp, np.random.Generator], Staged]


@dataclass(frozen=True)
class Pose:
    """`tilt` turns the actor, in degrees, nose down; `stage` is for an actor that faces right."""

    stage: Stage
    tilt: float = 0.0


def _on_top(actor: Stamp, thing: Stamp, middle: float) -> tuple[int, int]:
    """The thing rests on what is highest of the actor about `middle`, a share of its width."""
    x = round(actor.width * middle - thing.width / 2)
    first, last = max(0, x + thing.width // 4), min(actor.width, x + thing.width - thing.width // 4)
    under = actor.solid[:, first : max(last, first + 1)].any(axis=1)
    ground = int(np.flatnonzero(under)[0]) if under.any() else 0
    return x, ground - thing.height + 1


def _push(actor: Stamp, thing: Stamp, rng: np.random.Generator) -> Staged:
    return Staged(actor.width - 1, actor.height - thing.height)


def _carry(actor: Stamp, thing: Stamp, rng: np.random.Generator) -> Staged:
    return Staged(*_on_top(actor, thing, float(rng.uniform(0.4, 0.6))))


def _pull(actor: Stamp, thing: Stamp, rng: np.random.Generator) -> Staged:
    x = -thing.width - round(actor.width * float(rng.uniform(0.35, 0.6)))
    y = actor.height - thing.height
    rope = np.array(
        [(x + thing.width * 0.9, y + thing.height * 0.5), (actor.width * 0.2, actor.height * 0.55)]
    )
    return Staged(x, y, (rope,))


def _jump(actor: Stamp, thing: Stamp, rng: np.random.Generator) -> Staged:
    x = round(actor.width * float(rng.uniform(0.4, 0.6)) - thing.width / 2)
    return Staged(x, actor.height + round(actor.height * float(rng.uniform(0.12, 0.3))))


def _chase(actor: Stamp, thing: Stamp, rng: np.random.Generator) -> Staged:
    x = actor.width + round(actor.width * float(rng.uniform(0.45, 0.8)))
    long = actor.width * float(rng.uniform(0.3, 0.45))
    traces = tuple(
        np.array([(-long - 4, actor.height * share), (-4, actor.height * share)])
        for share in (0.35, 0.55, 0.75)
    )
    return Staged(x, actor.height - thing.height, traces)


def _balance(actor: Stamp, thing: Stamp, rng: np.random.Generator) -> Staged:
    return Staged(*_on_top(actor, thing, 0.82))


def _hold(actor: Stamp, thing: Stamp, rng: np.random.Generator) -> Staged:
    x = round(actor.width * float(rng.uniform(0.7, 1.0)) - thing.width / 2)
    y = -thing.height - round(actor.height * float(rng.uniform(0.3, 0.6)))
    string = np.array(
        [(x + thing.width / 2, y + thing.height * 0.9), (actor.width * 0.75, actor.height * 0.5)]
    )
    return Staged(x, y, (string,))


def _kick(actor: Stamp, thing: Stamp, rng: np.random.Generator) -> Staged:
    x = actor.width + round(actor.width * float(rng.uniform(0.3, 0.5)))
    y = round(actor.height * float(rng.uniform(0.2, 0.4)) - thing.height / 2)
    traces = tuple(
        np.array([(actor.width + 1, actor.height * share + 6), (x - 3, y + thing.height * share)])
        for share in (0.4, 0.75)
    )
    return Staged(x, y, traces)


POSES: Mapping[str, Pose] = MappingProxyType(
    {
        "push": Pose(_push),
        "carry": Pose(_carry),
        "pull": Pose(_pull),
        "jump": Pose(_jump, tilt=-18),
        "chase": Pose(_chase, tilt=6),
        "balance": Pose(_balance, tilt=-10),
        "hold": Pose(_hold),
        "kick": Pose(_kick),
    }
)


def line_stamp(path: Path, colour: RGB, width: float) -> tuple[Stamp, int, int]:
    """A line as a stamp, with the x and y at which it goes."""
    low = np.floor(path.min(axis=0) - width - 1).astype(int)
    size = np.ceil(path.max(axis=0) + width + 1).astype(int) - low
    alpha = PIL.Image.new("L", tuple((size * _OVERSAMPLE).tolist()))
    points = ((path - low) * _OVERSAMPLE).ravel().tolist()
    PIL.ImageDraw.Draw(alpha).line(points, fill=255, width=max(1, round(width * _OVERSAMPLE)))
    covered = np.asarray(alpha.reduce(_OVERSAMPLE))
    rgb = np.broadcast_to(np.array(colour, dtype=np.float32), (*covered.shape, 3))
    return Stamp(covered, rgb), int(low[0]), int(low[1])
