"""Toy object detectors of transformers: the library's own classes with random weights, saved to disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

NAMES = ["cat", "dog", "N/A", "Tree"]
"""With a gap, as the COCO checkpoints of DETR have."""

QUERIES = 20

_LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}

_SMALL = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0,
    "num_queries": QUERIES,
}  # fmt: skip

_RESNET = {
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 32, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}


def _saved(cls: Any, config: Any, processor: Any, folder: Path) -> Path:
    """With weights that tell pictures and queries apart; as the library starts them, all would look alike."""
    import torch

    torch.manual_seed(0)
    network = cls(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "quer" in name:
                parameter.normal_(0, 1)
            elif "norm" not in name and parameter.ndim > 1:
                parameter.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
        network.eval()
        # The scores' own layer is scaled so that each class gets low and high ones.
        logits = network(pixel_values=torch.randn(4, 3, 64, 64)).logits.flatten(0, 1)
        heads = [m for n, m in network.named_modules() if "class" in n and isinstance(m, torch.nn.Linear)]
        for head in {id(head.weight): head for head in heads}.values():
            head.weight /= logits.std(dim=0)[:, None]
            head.bias.copy_((head.bias - logits.mean(dim=0)) / logits.std(dim=0))
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@cache
def rt_detr_v2(folder: Path) -> Path:
    """Sigmoid scores, each class by itself; every picture is seen as a square of 64 pixels."""
    from transformers import RTDetrImageProcessor, RTDetrV2Config, RTDetrV2ForObjectDetection

    config = RTDetrV2Config(
        backbone_config={"model_type": "rt_detr_resnet", "out_indices": [2, 3, 4], **_RESNET},
        encoder_in_channels=[32, 32, 32], encoder_hidden_dim=32, decoder_in_channels=[32, 32, 32],
        decoder_n_points=2, num_denoising=0, **_SMALL, **_LABELS,
    )  # fmt: skip
    processor = RTDetrImageProcessor(size={"height": 64, "width": 64})
    return _saved(RTDetrV2ForObjectDetection, config, processor, folder)


@cache
def detr(folder: Path, backbone: str = "resnet") -> Path:
    """Softmax scores with a class for no object; pictures keep their shape, the shorter side made 48 pixels.

    `backbone`: `resnet`, the library's own, or the name of one of timm.
    """
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

    if backbone == "resnet":
        own: dict[str, Any] = {
            "backbone_config": {"model_type": "resnet", "out_features": ["stage4"], **_RESNET}
        }
    else:
        own = {"use_timm_backbone": True, "backbone": backbone}
    config = DetrConfig(**own, **_SMALL, **_LABELS)
    return _saved(DetrForObjectDetection, config, DetrImageProcessor(size=_SIZE), folder)


@cache
def deformable_detr(folder: Path) -> Path:
    """Sigmoid scores, of which the library's post-processing takes the best 100 unless told otherwise."""
    from transformers import (
        DeformableDetrConfig,
        DeformableDetrForObjectDetection,
        DeformableDetrImageProcessor,
    )

    backbone = {"model_type": "resnet", "out_features": ["stage2", "stage3", "stage4"], **_RESNET}
    config = DeformableDetrConfig(
        backbone_config=backbone, num_feature_levels=3, encoder_n_points=2, decoder_n_points=2,
        **{**_SMALL, "num_queries": 120}, **_LABELS,
    )  # fmt: skip
    processor = DeformableDetrImageProcessor(size=_SIZE)
    return _saved(DeformableDetrForObjectDetection, config, processor, folder)


_SIZE = {"shortest_edge": 48, "longest_edge": 96}
