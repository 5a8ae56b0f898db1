"""Toy OWLv2 and OWL-ViT checkpoints: the library's own classes with random weights, saved to disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

WORDS = ["photo", "small", "street", "ball", "horse", "old", "red", "green", "dog", "cat", "man", "hat"]
WORDS += ["the", "near", "of", "in", "st", "louis"]

SIDE = 48
"""Pixels that the toys see: 4 x 4 patches of 12."""


def tokenizer() -> Any:
    """CLIP's, with a vocabulary of our own, and OWL's peculiarities: 16 tokens at most, padded with "!"."""
    from transformers import CLIPTokenizer

    characters = "!" + "".join(chr(c) for c in range(ord("a"), ord("z") + 1)) + "0123456789.,'-?"
    tokens = [*characters, *(f"{c}</w>" for c in characters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair, joined = (pieces[0], pieces[1]), pieces[0] + pieces[1]
            if joined not in tokens:
                tokens.append(joined)
                merges.append(pair)
            pieces[:2] = [joined]
    # The model takes the largest id for the end of the text.
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, pad_token="!", model_max_length=16
    )


def _lively(network: Any) -> Any:
    """As the library initialises them, all patches would look alike and their boxes have one size."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" not in name.lower():
                parameter.normal_(0, 0.25)
    return network.eval()


def _parts(tok: Any) -> dict[str, Any]:
    ids = {"bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id, "pad_token_id": 0}
    return {
        "text_config": {
            "vocab_size": len(tok), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, **ids,
        },
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": 12,
        },
        "projection_dim": 32,
    }  # fmt: skip


@cache
def owlv2(folder: Path) -> Path:
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

    tok = tokenizer()
    _lively(Owlv2ForObjectDetection(Owlv2Config(**_parts(tok)))).save_pretrained(folder)
    images = Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE})
    Owlv2Processor(image_processor=images, tokenizer=tok).save_pretrained(folder)
    return folder


@cache
def owlvit(folder: Path) -> Path:
    from transformers import OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor

    tok = tokenizer()
    _lively(OwlViTForObjectDetection(OwlViTConfig(**_parts(tok)))).save_pretrained(folder)
    images = OwlViTImageProcessor(size={"height": SIDE, "width": SIDE})
    OwlViTProcessor(image_processor=images, tokenizer=tok).save_pretrained(folder)
    return folder


def pictures() -> list[Any]:
    """Five images of three shapes, smaller and larger than the model's own size, of large patches of colour:
    noise would look alike to a network. Their pixels are read-only, as decoded ones are."""
    import numpy as np

    from data_engine.image import Image

    made = []
    for number, (width, height) in enumerate([(60, 40), (30, 110), (60, 40), (24, 24), (130, 70)]):
        draw = np.random.default_rng(number)
        patches = draw.integers(0, 256, (-(-height // 10), -(-width // 10), 3), np.uint8)
        pixels = np.ascontiguousarray(patches.repeat(10, axis=0).repeat(10, axis=1)[:height, :width])
        pixels.setflags(write=False)
        made.append(Image(f"image-{number}", pixels))
    return made


@cache
def _loaded(folder: str) -> tuple[Any, Any]:
    import transformers

    name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    network = getattr(transformers, name).from_pretrained(folder).eval()
    return transformers.AutoProcessor.from_pretrained(folder), network


def library(folder: str, image: Any, texts: list[str]) -> tuple[Any, Any, tuple[int, int]]:
    """The library's own path for one image: its processor, its model's output, the image's (height, width)."""
    import torch

    processor, network = _loaded(folder)
    inputs = processor(text=[texts], images=image.pil, return_tensors="pt")
    with torch.inference_mode():
        return processor, network(**inputs), (image.height, image.width)
