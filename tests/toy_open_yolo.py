"""Toy YOLO-World and YOLOE checkpoints, and a toy CLIP to read names for them: the libraries' own classes.

The detectors are built from ultralytics' own descriptions, an eighth as wide, with random weights, and saved
by it as the `.pt` that it publishes; the CLIP is saved as the folder that open_clip downloads.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from specialists.detector_weights import ultralytics

DESCRIPTIONS = {
    "world": "yolov8n-worldv2.yaml",
    "yoloe": "yoloe-11n-seg.yaml",
    "yoloe26": "yoloe-26n-seg.yaml",
}

_SEEDS = {"world": 1, "yoloe": 2, "yoloe26": 0}
"""Those of which neither scores are all alike nor rounding errors blown up."""

FEATURES = 512
"""Numbers of a text's features that the descriptions ask for."""

CLIP = {
    "embed_dim": FEATURES,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def open_yolo(kind: str) -> Any:
    """An `ultralytics.YOLO` whose untrained scores are spread out instead of all near zero."""
    import torch

    package = ultralytics()
    from ultralytics.nn.modules.block import BNContrastiveHead, MaxSigmoidAttnBlock
    from ultralytics.nn.tasks import yaml_model_load

    torch.manual_seed(_SEEDS[kind])
    plan = {**yaml_model_load(DESCRIPTIONS[kind]), "scales": {"n": [0.33, 0.125, 1024]}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DESCRIPTIONS[kind]
        path.write_text(yaml.safe_dump(plan), encoding="utf-8")
        yolo = package.YOLO(str(path))
    network = yolo.model
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, MaxSigmoidAttnBlock):  # where names change what is seen of the image
            torch.nn.init.normal_(module.gl.weight)
        if isinstance(module, BNContrastiveHead):
            torch.nn.init.constant_(module.bias, -2.0)
            torch.nn.init.constant_(module.logit_scale, -2.0)
    # Statistics of pictures, as training would leave them: without them, signals fade from layer to layer.
    # Of noise, whose mean is the same everywhere, they would blow up the rounding errors.
    seen = torch.from_numpy(np.stack([blots(128, 128, seed) for seed in range(4)]))
    with torch.no_grad():
        network.train()(seen.permute(0, 3, 1, 2).float() / 255)
    network.eval()
    network.args = {"imgsz": 128}
    return yolo


def save_open_yolo(path: Path, kind: str) -> Path:
    """A checkpoint in half precision, as the library writes it."""
    yolo = open_yolo(kind)
    yolo.ckpt = {"train_args": {"imgsz": 128}}
    yolo.save(path)
    return path


def blots(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """A picture (height, width, 3) of squares of 16 pixels, like those that the toys' statistics are of."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width].copy()


def prompt_free(yolo: Any, names: list[str]) -> Any:
    """A YOLOE whose vocabulary is built in, as the published `-pf` ones are made (`get_vocab`, `set_vocab`)."""
    import torch

    network = fused(yolo, names).model
    vocabulary = torch.nn.ModuleList(branch[-1] for branch in network.model[-1].cv3)
    network.set_vocab(vocabulary, names)
    return yolo


def fused(yolo: Any, names: list[str]) -> Any:
    """A YOLOE with features of names made part of its weights."""
    import torch

    features = torch.nn.functional.normalize(torch.randn(1, len(names), FEATURES), dim=-1)
    yolo.model.set_classes(names, features)
    yolo.model.model[-1].fuse(features)
    return yolo


def save_clip(folder: Path, features: int = FEATURES) -> Path:
    """A small CLIP with random weights, of which no two texts look alike."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = {**CLIP, "embed_dim": features}
    model = open_clip.CLIP(**{**config, "vision_cfg": dict(CLIP["vision_cfg"])})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, str(folder / "open_clip_model.safetensors"))
    return folder
