"""Toy SAM and SAM 2 checkpoints: the library's own classes with random weights, saved to disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

SIDE = 128
"""Of the square that the toys see, in pixels; the published ones see 1,024."""


def _lively(network: Any, seed: int = 0) -> Any:
    """As the library initialises them, all boxes would give one mask."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if "norm" not in name and tensor.is_floating_point():
                tensor.normal_(0, 1.0 if "positional" in name else 0.15)
        for name, parameter in network.named_parameters():
            if "iou_prediction_head.proj_out.bias" in name:
                parameter.copy_(torch.linspace(0.3, 0.9, len(parameter)))
    return network.eval()


_DECODER: dict[str, Any] = {
    "hidden_size": 32, "mlp_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
}  # fmt: skip
_PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}


@cache
def sam(folder: Path) -> Path:
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    config = SamConfig(
        vision_config={
            "hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": 16, "window_size": 4, "global_attn_indexes": [1],
            "num_pos_feats": 16, "mlp_dim": 64,
        },
        prompt_encoder_config=_PROMPTS,
        mask_decoder_config=_DECODER,
    )  # fmt: skip
    _lively(SamModel(config)).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    SamProcessor(SamImageProcessor(size={"longest_edge": SIDE}, pad_size=square)).save_pretrained(folder)
    return folder


def _sam2_parts() -> dict[str, Any]:
    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 16, "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128],
                "num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [4, 4, 4, 2],
                "global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [128, 64, 32, 16],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        "prompt_encoder_config": _PROMPTS,
        "mask_decoder_config": _DECODER,
    }  # fmt: skip


def _sam2_images() -> Any:
    from transformers import Sam2ImageProcessor

    return Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})


@cache
def sam2(folder: Path) -> Path:
    from transformers import Sam2Config, Sam2Model, Sam2Processor

    _lively(Sam2Model(Sam2Config(**_sam2_parts()))).save_pretrained(folder)
    Sam2Processor(_sam2_images()).save_pretrained(folder)
    return folder


@cache
def sam2_video(folder: Path) -> Path:
    """As the hub has them: SAM 2's image model with its memory of a video's earlier frames."""
    from transformers import Sam2VideoConfig, Sam2VideoModel, Sam2VideoProcessor, Sam2VideoVideoProcessor

    config = Sam2VideoConfig(
        **_sam2_parts(),
        memory_attention_hidden_size=32, memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[8, 8], memory_encoder_hidden_size=32, memory_encoder_output_channels=8,
        mask_downsampler_embed_dim=32, memory_fuser_embed_dim=32, memory_fuser_intermediate_dim=64,
        memory_fuser_num_layers=1, image_size=SIDE,
    )  # fmt: skip
    _lively(Sam2VideoModel(config)).save_pretrained(folder)
    video = Sam2VideoVideoProcessor(size={"height": SIDE, "width": SIDE})
    Sam2VideoProcessor(_sam2_images(), video).save_pretrained(folder)
    return folder
