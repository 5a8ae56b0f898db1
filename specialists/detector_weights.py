"""Weights of a YOLO in safetensors, and ultralytics imported so that it keeps to itself.

ultralytics' own `.pt` files are pickles: reading one runs what it says. A file written here holds
tensors and JSON only. The library (AGPL-3.0) is imported by files named `detector` alone.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from data_engine.environment import environment
from data_engine.errors import MissingPackageError, ModelLoadError, SpecialistError

FORMAT = "fde-yolo-1"
TASKS = ("detect", "segment")

_QUIET = {
    "YOLO_OFFLINE": "1",  # no look-up of the network, so no usage data and no version check
    "YOLO_AUTOINSTALL": "0",
    "YOLO_VERBOSE": "0",
    "ULTRALYTICS_SAFE_LOAD": "1",
}


@cache
def ultralytics() -> Any:
    """The package ultralytics, as one that installs, sends, prints and leaves nothing behind.

    The environment that it reads is set for the import alone, and its settings file lies in a folder
    that is gone afterwards, unless YOLO_CONFIG_DIR names one. Checkpoints are read with torch's
    `weights_only` and a list of known layers (its safe loading). Raises MissingPackageError.
    """
    try:
        with environment(_QUIET), _settings_folder():
            import ultralytics as package
            from ultralytics.nn import tasks
            from ultralytics.utils import SETTINGS, events
    except ImportError as error:
        raise MissingPackageError.of(error.name or "ultralytics", "yolo") from error
    # The user's own code may have imported it first, with other settings.
    tasks.SAFE_LOAD = True  # type: ignore[attr-defined] # imported there, and read there
    events.events.enabled = False
    dict.__setitem__(SETTINGS, "sync", False)  # its own method would write the file
    return package


@contextmanager
def _settings_folder() -> Iterator[None]:
    if "YOLO_CONFIG_DIR" in os.environ:
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="fde-ultralytics-") as folder,
        environment({"YOLO_CONFIG_DIR": folder}),
    ):
        yield


def save_weights(model: Any, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a YOLO's tensors, with what it takes to build the network again.

    `model` is an `ultralytics.YOLO` (or its network) of the task detect or segment, not fused.
    Floating-point tensors are stored as float16, except one that would overflow. The file's metadata
    has one JSON text per key: `yaml`, `names`, `task`, `imgsz`, each the model's own unless `metadata`
    has it, and what else is in `metadata`.
    Raises SpecialistError for a model of another kind.
    """
    import torch
    from safetensors.torch import save

    package = ultralytics()
    network = model.model if isinstance(model, package.YOLO) else model
    task = metadata.get("task") or getattr(network, "task", None) or getattr(model, "task", None)
    if task not in TASKS or not isinstance(network, _network_class(task)):
        raise SpecialistError(f"a YOLO for {task!r} cannot be saved", f"give one for {' or '.join(TASKS)}")
    if network.is_fused():
        raise SpecialistError("a fused YOLO cannot be saved", "save it before it is fused")
    settings = getattr(network, "args", None) or {}
    facts = {
        "yaml": network.yaml,
        "names": {str(k): v for k, v in network.names.items()},
        "task": task,
        "imgsz": settings.get("imgsz", 640) if isinstance(settings, dict) else settings.imgsz,
        **metadata,
    }
    tensors = {}
    for name, tensor in network.state_dict().items():
        stored = tensor.detach().cpu()
        if stored.is_floating_point():
            half = stored.to(torch.float16)
            stored = half if torch.isfinite(half).all() else stored.float()
        tensors[name] = stored.contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The library's own way of writing a file makes one that only its owner can read.
    path.write_bytes(save(tensors, {"format": FORMAT, **{k: json.dumps(v) for k, v in facts.items()}}))


def read_metadata(path: Path) -> dict[str, Any]:
    """What `save_weights` wrote beside the tensors. Raises ModelLoadError for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            found = file.metadata() or {}
        if found.get("format") != FORMAT:
            raise ModelLoadError(
                f"{path} holds no YOLO of this project",
                "give a file that was written by save_weights, or the library's own .pt",
            )
        return {key: json.loads(value) for key, value in found.items() if key != "format"}
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def load_weights(path: Path) -> Any:
    """The `ultralytics.YOLO` of a file that `save_weights` wrote, in float32, on the CPU.

    Raises ModelLoadError for a file that is not there, cut short, of another kind, or whose tensors
    do not fit its network.
    """
    package = ultralytics()
    from ultralytics.utils import DEFAULT_CFG_DICT

    facts = read_metadata(path)
    try:
        from safetensors.torch import load_file

        layers, task = facts["yaml"], facts["task"]
        _check_layers(layers)
        network = _network_class(task)(layers, ch=layers.get("channels", 3), nc=layers["nc"], verbose=False)
        tensors = {k: t.float() if t.is_floating_point() else t for k, t in load_file(str(path)).items()}
        network.load_state_dict(tensors, strict=True)
        network.names = {int(k): str(v) for k, v in facts["names"].items()}
        imgsz = int(facts["imgsz"]) if not isinstance(facts["imgsz"], list) else facts["imgsz"]
    except ModelLoadError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    network.task = task
    network.args = {**DEFAULT_CFG_DICT, "imgsz": imgsz, "task": task}
    network.pt_path = str(path)  # where `export` writes its file: beside this one
    # A YOLO is made from a file only; this one is made from a description in the package.
    yolo = package.YOLO("yolo11n-seg.yaml" if task == "segment" else "yolo11n.yaml", task=task)
    yolo.model = network.eval()
    yolo.cfg = None
    yolo.model_name = str(path)
    yolo.overrides = {"task": task, "imgsz": imgsz, "model": str(path)}
    return yolo


def _network_class(task: Any) -> Any:
    from ultralytics.nn.tasks import DetectionModel, SegmentationModel

    return SegmentationModel if task == "segment" else DetectionModel


def _check_layers(description: Mapping[str, Any]) -> None:
    """Only the library's own layers: a description must not reach anything that fetches or runs.

    Its safe loading refuses what is no layer; `TorchVision` is one that downloads weights.
    """
    from ultralytics.nn import modules

    for _, _, name, _ in [*description["backbone"], *description["head"]]:
        known = name.startswith("nn.") or hasattr(modules, name)
        if not known or name == "TorchVision":
            raise ValueError(f"its network has an unknown layer {name!r}")


def _unreadable(path: Path, error: BaseException) -> ModelLoadError:
    if not path.is_file():
        return ModelLoadError(f"there is no weights file {path}", "check the path")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ModelLoadError(f"cannot load {path}: {reason}", "the file is damaged: make or fetch it again")
