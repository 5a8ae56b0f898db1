"""The state of an unfinished training, in safetensors: what a killed run needs to go on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_FORMAT = "fde-yolo-partial-1"


@dataclass(eq=False)
class Run:
    """A network in training, its optimizer, the average of its weights (ultralytics' `ModelEMA`), and
    the steps and seconds that it has had."""

    model: Any
    optimizer: Any
    average: Any
    done: int = 0
    seconds: float = 0.0


def store(run: Run, path: Path, recipe: Mapping[str, Any]) -> None:
    """Write the run to `path`, whole or not at all. `recipe` is what a run must share to go on from it."""
    from safetensors.torch import save

    tensors = {f"model.{name}": t for name, t in run.model.state_dict().items()}
    tensors |= {f"average.{name}": t for name, t in run.average.ema.state_dict().items()}
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": t for name, t in state.items()}
    facts = {
        "recipe": dict(recipe),
        "done": run.done,
        "seconds": run.seconds,
        "updates": run.average.updates,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(path.name + ".new")
    whole = {name: t.detach().contiguous() for name, t in tensors.items()}
    written.write_bytes(save(whole, {"format": _FORMAT, "facts": json.dumps(facts)}))
    written.replace(path)


def restore(run: Run, path: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether `path` holds a run of this recipe; `run` is then as that was. Any other file is left alone."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return False
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        log.warning("%s cannot be read, so the training starts anew: %s", path, error)
        return False
    if facts.get("recipe") != dict(recipe):
        log.warning("%s is of a training with other arguments: this one starts anew", path)
        return False

    def part(prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    run.model.load_state_dict(part("model."))
    run.average.ema.load_state_dict(part("average."))
    run.average.updates = facts["updates"]
    states: dict[int, dict[str, Any]] = {}
    for name, tensor in part("optimizer.").items():
        index, field = name.split(".")
        states.setdefault(int(index), {})[field] = tensor
    groups = run.optimizer.state_dict()["param_groups"]
    run.optimizer.load_state_dict({"state": states, "param_groups": groups})
    run.done, run.seconds = facts["done"], facts["seconds"]
    return True
