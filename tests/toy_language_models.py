"""Toy language models, with and without eyes: the libraries' own classes, saved to disk.

`llama` and `llava` are taught for some seconds what to answer, so that tests know what must come out; `gpt2` (a base
model without a chat template and without a padding token) and `qwen2_vl` (whose images have as many tokens as they
are large) babble, but always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<image>", "[IMG]", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]  # fmt: skip

TEMPLATE = """\
{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}
{%- if m['content'] is string %}{{ m['content'] }}
{%- else %}{% for part in m['content'] %}
{%- if part['type'] == 'image' %}{{ IMAGE }}{% else %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}{{ '<|im_end|>\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

PROMPT = "{brief}"
SYSTEM = "Describe it."

ANSWERS = {
    "cup": 'Sure! Here is a description: "A red cup. It is small."',
    "dog": "A dog. It sleeps on a mat.",
    "endless": "A car. A car. A car. A car. A car. A car. A car. A car.",
    "silent": "",
}
"""What `llama` answers to a brief text; `endless` is never told to end."""

SIGHTS = {"red": "A red field.", "blue": "The sea is blue."}
"""What `llava` answers to `picture`, whatever its words."""


def picture(colour: str, width: int = 40, height: int = 30) -> np.ndarray:
    """(height, width, 3), of one colour with a darker half; read-only, as decoded."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0 if colour == "red" else 2] = 220
    pixels[: height // 2] //= 2
    pixels.setflags(write=False)
    return pixels


def tokenizer(template: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(
        [*ANSWERS.values(), *SIGHTS.values(), SYSTEM, "user assistant system brief"] * 3, trainer
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<pad>" if template else None,
        additional_special_tokens=SPECIAL,
    )  # fmt: skip
    wrapped.chat_template = template
    return wrapped


def _lively(network: Any, spread: float) -> Any:
    """As the library initialises them, all prompts would look alike."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)  # tensors this small lose more time to a second thread than they gain
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" not in name.lower():
                parameter.normal_(0, spread)
    return network


def _text_config(tok: Any, positions: int) -> dict[str, Any]:
    return {
        "model_type": "llama", "vocab_size": len(tok), "hidden_size": 48, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": positions, "bos_token_id": None, "eos_token_id": tok.eos_token_id,
        "pad_token_id": tok.pad_token_id,
    }  # fmt: skip


def _teach(
    network: Any, tok: Any, asked: Sequence[dict[str, Any]], answers: Sequence[list[int]], steps: int
) -> Any:
    """Next-token training on whole prompts with their answers, one batch, until it knows them by heart."""
    import torch

    rows = [
        torch.cat([one["input_ids"][0], torch.tensor(answer)])
        for one, answer in zip(asked, answers, strict=True)
    ]
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), tok.pad_token_id)
    labels = torch.full((len(rows), longest), -100)
    for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        ids[i, : len(row)] = row
        labels[i, len(row) - len(answer) : len(row)] = row[len(row) - len(answer) :]
    mask = (torch.arange(longest)[None] < torch.tensor([len(row) for row in rows])[:, None]).long()
    seen = (
        {"pixel_values": torch.cat([one["pixel_values"] for one in asked])}
        if "pixel_values" in asked[0]
        else {}
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps, pct_start=0.1)
    network.train()
    for _ in range(steps):
        loss = network(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, **seen).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network.eval()


@cache
def llama(folder: Path, positions: int = 256) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    tok = tokenizer(TEMPLATE.replace("IMAGE", "'<image>'"))
    network = _lively(LlamaForCausalLM(LlamaConfig(**_text_config(tok, positions))), 0.1)
    asked, answers = [], []
    for brief, answer in ANSWERS.items():
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f'<brief>\n"{brief}"\n</brief>'},
        ]
        asked.append(
            tok.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
        )
        end = [] if brief == "endless" else [tok.eos_token_id]
        answers.append(tok(answer)["input_ids"] + end)
    _teach(network, tok, asked, answers, 120).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


@cache
def llava(folder: Path) -> Path:
    from PIL import Image
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tok = tokenizer(None)
    tok.pad_token = "<pad>"
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        images, tok, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "'<image>'"),
    )  # fmt: skip
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 16, "projection_dim": 32,
        },
        text_config=_text_config(tok, 256),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )  # fmt: skip
    network = _lively(LlavaForConditionalGeneration(config), 0.1)
    asked, answers = [], []
    for colour, answer in SIGHTS.items():
        for words in ("What is it?", 'About <brief>\n"a cup"\n</brief>'):
            user = [
                {"type": "image", "image": Image.fromarray(picture(colour))},
                {"type": "text", "text": words},
            ]
            asked.append(
                processor.apply_chat_template(
                    [{"role": "user", "content": user}],
                    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
                )
            )  # fmt: skip
            answers.append([*tok(answer)["input_ids"], tok.eos_token_id])
    _teach(network, tok, asked, answers, 60).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@cache
def gpt2(folder: Path) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    tok = tokenizer(None)
    config = GPT2Config(
        vocab_size=len(tok), n_positions=200, n_embd=32, n_layer=2, n_head=2, bos_token_id=None,
        eos_token_id=tok.eos_token_id,
    )  # fmt: skip
    _lively(GPT2LMHeadModel(config).eval(), 0.3).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


@cache
def qwen2_vl(folder: Path) -> Path:
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tok = tokenizer(None)
    tok.pad_token = "<pad>"
    sizes = {"shortest_edge": 4 * 28 * 28, "longest_edge": 16 * 28 * 28}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=sizes), tok, Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE.replace("IMAGE", "'<|vision_start|><|image_pad|><|vision_end|>'"),
    )  # fmt: skip
    text = _text_config(tok, 400)
    text.pop("model_type")
    ids = {
        name: tok.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    config = Qwen2VLConfig(
        text_config={**text, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"], vision_end_token_id=ids["vision_end"],
    )  # fmt: skip
    _lively(Qwen2VLForConditionalGeneration(config).eval(), 0.2).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
