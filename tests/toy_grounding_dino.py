"""A toy Grounding DINO checkpoint: the library's own classes with random weights, saved to disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

WORDS = [
    "a",
    "the",
    "an",
    "in",
    "on",
    "near",
    "red",
    "green",
    "blue",
    "old",
    "small",
    "dog",
    "dogs",
    "cat",
    "ball",
    "horse",
    "man",
    "shirt",
    "field",
    "barn",
    "square",
    "st",
    "louis",
    "mr",
    "smith",
    "u",
    "s",
    "street",
    "city",
    "hat",
    "three",
]


def tokenizer(folder: Path) -> Any:
    """BERT's, with a vocabulary of our own: the model knows [CLS], [SEP], "." and "?" by BERT's own ids."""
    from transformers import BertTokenizerFast

    vocabulary = [f"[unused{i}]" for i in range(1030)]
    vocabulary[0], vocabulary[100], vocabulary[101], vocabulary[102] = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
    vocabulary[1012], vocabulary[1029] = ".", "?"
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
    vocabulary += [
        *WORDS,
        *(c for c in letters if c not in WORDS),
        *(f"##{c}" for c in letters),
        ",",
        "'",
        "-",
    ]
    path = folder / "vocab.txt"
    path.write_text("\n".join(vocabulary), encoding="utf-8")
    return BertTokenizerFast(vocab=str(path), do_lower_case=True)


@cache
def checkpoint(folder: Path) -> Path:
    import torch
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    torch.manual_seed(0)
    torch.set_num_threads(1)  # tensors this small lose more time to a second thread than they gain
    tok = tokenizer(folder)
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin", "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8],
            "window_size": 4, "image_size": 64, "out_indices": [2, 3, 4], "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bert", "vocab_size": len(tok), "hidden_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 64,
        },
        d_model=64, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=30, dropout=0.0, init_std=0.1,
    )  # fmt: skip
    network = GroundingDinoForObjectDetection(config).eval()
    for name, parameter in network.named_parameters():
        if "bbox_embed" in name:  # the library starts them at zero: every box the same size
            torch.nn.init.normal_(parameter, std=0.2)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    network.save_pretrained(folder)
    GroundingDinoProcessor(image_processor=images, tokenizer=tok).save_pretrained(folder)
    return folder
