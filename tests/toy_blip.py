"""Toy BLIP and GIT checkpoints: the library's own classes with random weights, saved to disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

WORDS = ["a", "the", "in", "on", "of", "picture", "red", "green", "blue", "old", "small", "dog", "cat"]
WORDS += ["ball", "horse", "man", "field", "barn", "hat", "street", "two"]


def tokenizer(folder: Path) -> Any:
    from transformers import BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*WORDS, *(c for c in letters if c not in WORDS), *(f"##{c}" for c in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    path.write_text("\n".join([*special, *words]), encoding="utf-8")
    return BertTokenizerFast(vocab=str(path), do_lower_case=True)


def _lively(network: Any) -> Any:
    """As the library initialises them, all pictures would look alike."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" not in name.lower():
                parameter.normal_(0, 0.3)
    return network.eval()


@cache
def blip(folder: Path) -> Path:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    tok = tokenizer(folder)
    # As in the published checkpoints, the token that a caption begins with is none of the tokenizer's.
    config = BlipConfig(
        text_config={
            "vocab_size": len(tok) + 1, "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 64,
            "projection_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 64, "bos_token_id": len(tok), "pad_token_id": 0, "eos_token_id": 3,
            "sep_token_id": 3,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "projection_dim": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        projection_dim=16,
        image_text_hidden_size=16,
    )  # fmt: skip
    _lively(BlipForConditionalGeneration(config)).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, tok).save_pretrained(folder)
    return folder


@cache
def git(folder: Path) -> Path:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    tok = tokenizer(folder)
    config = GitConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        vocab_size=len(tok), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    _lively(GitForCausalLM(config)).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    GitProcessor(images, tok).save_pretrained(folder)
    return folder
