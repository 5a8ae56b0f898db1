"""Open-vocabulary YOLOs of ultralytics (AGPL-3.0): loaded, and told in words what to look for.

YOLO-World (Cheng et al., arXiv 2401.17270) and YOLOE (Wang et al., arXiv 2503.07465) compare what they see with
features of texts. ultralytics would make those by packages that it installs from git, and by a TorchScript
program that it downloads. Here they are made by open_clip, from the same encoder's published weights:

| model | ultralytics' encoder | open_clip's |
|---|---|---|
| YOLO-World | OpenAI's CLIP ViT-B/32 | `ViT-B-32-quickgelu`, `openai` |
| YOLOE (v8, 11) | MobileCLIP-B (LT), `mobileclip_blt.ts` | `MobileCLIP-B`, `datacompdr_lt` |
| YOLOE-26 | MobileCLIP2-B, `mobileclip2_b.ts` | `MobileCLIP2-B`, `dfndr2b` |

Each line is the same architecture, tokenizer and training run by the names of both sides (OpenAI's weights need
the activation QuickGELU, hence that variant). Tests hold the way from features to boxes against ultralytics with
toy models; the features of the released files themselves were not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_engine.errors import ModelLoadError, RecipeError
from specialists.clip_model import ClipModel
from specialists.detector_prediction import load_yolo

_CLOSED = "use specialists.detector:Detector for it"
_EXAMPLES = "give one of YOLO-World or YOLOE, such as yolov8s-worldv2.pt or yoloe-11s-seg.pt"

_ENCODERS = {
    "clip:ViT-B/32": ("ViT-B-32-quickgelu", "openai"),
    "mobileclip:blt": ("MobileCLIP-B", "datacompdr_lt"),
    "mobileclip2:b": ("MobileCLIP2-B", "dfndr2b"),
}
"""open_clip's name and tag of each text encoder that ultralytics names."""


def load_open(weights: str) -> Any:
    """The `ultralytics.YOLO` of a model that takes words. Raises ModelLoadError for any other."""
    model = load_yolo(weights)
    from ultralytics.nn.tasks import WorldModel, YOLOEModel

    network: Any = model.model
    if not any(isinstance(network, kind) for kind in (WorldModel, YOLOEModel)):
        raise ModelLoadError(f"{weights} knows its own classes only", f"{_CLOSED}, or {_EXAMPLES}")
    head = network.model[-1]
    if hasattr(head, "lrpc"):
        raise ModelLoadError(f"{weights} is prompt-free: its vocabulary is built in", _CLOSED)
    if getattr(head, "is_fused", False):
        raise ModelLoadError(f"{weights} was fused with the names that it was given last", _CLOSED)
    if head.cv2 is None:
        raise ModelLoadError(f"{weights} lacks its one-to-many head", "give the file as it was before `fuse`")
    return model


def text_encoder(network: Any) -> tuple[str, str]:
    """open_clip's model and pretrained tag that belong to a network. Raises ModelLoadError."""
    from ultralytics.nn.tasks import YOLOEModel

    name = "clip:ViT-B/32"
    if isinstance(network, YOLOEModel):
        name = getattr(network, "text_model", "mobileclip:blt")  # the first ones do not say
    if name not in _ENCODERS:
        raise ModelLoadError(
            f"the model was trained with the text encoder {name!r}, which is not known here",
            "give `text_model` and `text_pretrained`, as open_clip names that encoder",
        )
    return _ENCODERS[name]


def load_text_model(network: Any, model: str | None, pretrained: str | None, device: str) -> ClipModel:
    """The text half of a CLIP; by default the one that belongs to the network.

    Raises ModelLoadError, RecipeError or MissingPackageError.
    """
    if model is None:
        model, tag = text_encoder(network)
        pretrained = pretrained or tag
    loaded = ClipModel(model, pretrained, device=device, dtype="float32")
    loaded.network.visual = None  # most of its memory, and never asked
    return loaded


def text_features(network: Any, text_model: ClipModel, texts: Sequence[str]) -> Any:
    """What a network compares regions with: a tensor (texts, d) of its own type, on its device.

    CLIP's features of length one; YOLOE has layers of its own for them, which are then gone through.
    Raises RecipeError where the text model's features are of another size than the network's.
    """
    import torch

    head = network.model[-1]
    weight = next(network.parameters())
    # A copy, for what was made in inference mode could not be handed to the library's own.
    features = text_model.text_features(texts).clone().to(weight.device, weight.dtype)
    wanted = getattr(head, "embed", None) or head.cv3[0][-1].out_channels
    if features.shape[1] != wanted:
        raise RecipeError(
            f"the text model makes features of {features.shape[1]} numbers, the detector compares {wanted}",
            "leave `text_model` out, or give the one that the detector was trained with",
        )
    if hasattr(head, "get_tpe"):
        with torch.no_grad():
            features = head.get_tpe(features[None])[0]
    return features


def set_vocabulary(network: Any, features: Any) -> None:
    """Have a network look for these: features (1, n, d) for every image, or (images, n, d) for its batch."""
    from ultralytics.nn.tasks import WorldModel

    # What `set_classes` of the library does, after it has made the features.
    setattr(network, "txt_feats" if isinstance(network, WorldModel) else "pe", features)
    network.model[-1].nc = features.shape[1]
