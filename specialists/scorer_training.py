"""Train a small image-text model from scratch on drawn scenes: the one the project ships, or one of your own.

The model is open_clip's CLIP, a narrow ModifiedResNet beside a narrow text transformer, in a folder that
`Scorer(pretrained=FOLDER)` reads: open_clip_config.json, open_clip_model.safetensors, and the files of
its own byte-level BPE, since the embedding of CLIP's 49,408 tokens alone would be larger than all of it.

The loss is UniCL's (`specialists/unicl.py`) over the pairs of `specialists/scorer_pairs.py`.

Training scenes come from seeds at and above `TRAINING_SEED`, so every seed below it is unseen.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.errors import MissingPackageError, RecipeError
from data_engine.scenes.scene import UNSEEN_SEED, training_seed
from data_engine.scenes.world import PRETRAINING, WORLDS, World
from data_engine.scenes.write import GENERATOR
from data_engine.storage import storage_errors
from specialists.scorer_card import card
from specialists.scorer_pairs import PICTURES, SIDE, Pairs
from specialists.scorer_quality import Quality, evaluate
from specialists.scorer_scenes import draw
from specialists.training_arithmetic import training_arithmetic
from specialists.unicl import unicl_loss

log = logging.getLogger(__name__)

CONFIG, WEIGHTS, CARD = "open_clip_config.json", "open_clip_model.safetensors", "README.md"

_CONTEXT = 77  # as in CLIP: nearly all detailed captions fit, the longest are cut
_VOCABULARY = 768
_PAD, _START, _END = "<pad>", "<start>", "<end>"
_WIDTH = 96
_PEAK_RATE, _LAST_RATE, _WEIGHT_DECAY = 3e-3, 2e-5, 0.05
_WARM_UP = 0.04  # share of the run
_HIGHEST_SCALE = math.log(100)  # as in CLIP
_OF_PICTURES = 0.5
"""The weight of the whole pictures' loss beside that of the crops'."""


def train(
    output: Path,
    minutes: float = 6.0,
    seed: int = 0,
    world: World = PRETRAINING,
    threads: int | None = 1,
    steps: int | None = None,
    images: int = 4000,
    batch: int = 128,
    workers: int = 1,
    evaluate_on: int = 200,
) -> Quality:
    """Train for so many minutes, or exactly `steps` steps, write the folder `output` and measure it.

    `images` scenes are drawn first, in `workers` processes, half of them 320 x 240 pixels, the others
    upright or square; drawing does not count towards the minutes. A step sees `batch` crops, and a
    quarter as many whole pictures. With `steps` the result depends on the arguments alone (and the
    machine's arithmetic). `threads` is for PyTorch; one is best where other work shares the cores.

    Returns what `evaluate` says on `evaluate_on` unseen scenes of that world; that, the same of the
    other worlds, the number of steps and the seconds are kept in open_clip_config.json under `trained`,
    and told in the folder's README.md. Raises RecipeError for unusable arguments, MissingPackageError,
    and StorageError when `output` cannot be written.
    """
    if min(images // 4, batch // PICTURES, evaluate_on // 2) < 1 or (
        minutes <= 0 if steps is None else steps < 1
    ):
        raise RecipeError(
            "images and batch must be at least 4, evaluate_on 2, and minutes (or steps) more than 0",
            "correct the arguments",
        )
    try:
        import open_clip  # noqa: F401 - before the scenes are drawn, to fail early
        import safetensors.torch
        import transformers  # noqa: F401 - open_clip's tokenizers of other vocabularies are its
    except ImportError as error:
        raise MissingPackageError.of(error.name or "open_clip_torch", "scorer") from error

    data = f"{images} drawn scenes of the world {world.name}, seed {training_seed(seed)}"
    output = Path(output)
    with storage_errors(str(output)):
        output.mkdir(parents=True, exist_ok=True)
    pairs = Pairs(draw(images, seed, world, workers), world, batch, np.random.default_rng([seed, 0]))
    tokenizer = _make_tokenizer(pairs.texts())
    config = _config(len(tokenizer))
    with training_arithmetic(threads):
        network, trained = _fit(pairs, tokenizer, config, minutes * 60, steps, seed)
        facts = {
            "data": data,
            "world": world.name,
            "images": images,
            "generator": GENERATOR,
            "crops": len(pairs.things),
            "seed": seed,
            "batch": batch,
            "threads": threads,
            "side": SIDE,
            "embed_dim": _WIDTH,
            "context": _CONTEXT,
            "vocabulary": len(tokenizer),
            "parameters": sum(p.numel() for p in network.parameters()),
            **trained,
        }
        tensors = {
            name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
            for name, tensor in network.state_dict().items()
        }
        with storage_errors(str(output)):
            (output / WEIGHTS).write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))
            tokenizer.save_pretrained(str(output))
            _write_config(output, config)
        # What is measured is the folder as written: its weights are rounded to half precision.
        unseen = {other.name: evaluate(output, other, evaluate_on) for other in WORLDS.values()}
    facts["unseen"] = {"seed": UNSEEN_SEED} | {name: asdict(quality) for name, quality in unseen.items()}
    with storage_errors(str(output)):
        _write_config(output, config | {"trained": facts})
        (output / CARD).write_text(card(facts), encoding="utf-8")
    return unseen[world.name]


def _make_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE in lower case, learnt from texts. Any text is a sequence of its tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = [_PAD, _START, _END]
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=_VOCABULARY,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}",
        special_tokens=[(name, special.index(name)) for name in (_START, _END)],
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        bos_token=_START,
        eos_token=_END,
        model_max_length=_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def _config(vocabulary: int) -> dict[str, Any]:
    """open_clip_config.json of a model for a tokenizer of so many entries."""
    return {
        "model_cfg": {
            "embed_dim": _WIDTH,
            # A list of layers is open_clip's sign of a ModifiedResNet.
            "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 12, "head_width": 64},
            "text_cfg": {
                "context_length": _CONTEXT,
                "vocab_size": vocabulary,
                # For a folder open_clip takes the tokenizer from the folder, whatever name stands here.
                "hf_tokenizer_name": "scenes-scorer",
                "width": _WIDTH,
                "heads": 3,
                "layers": 2,
                "pool_type": "eos",
                "pad_id": 0,
                "eos_id": 2,
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "interpolation": "bicubic",
            # The library's default cuts the ends of a long crop off.
            "resize_mode": "squash",
        },
    }


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _fit(
    pairs: Pairs, tokenizer: Any, config: dict[str, Any], seconds: float, steps: int | None, seed: int
) -> tuple[Any, dict[str, Any]]:
    """The network, and how it was trained."""
    import open_clip
    import torch

    torch.manual_seed(seed)
    model = config["model_cfg"]
    network: Any = open_clip.CLIP(**{**model, "vision_cfg": dict(model["vision_cfg"])})
    # Channels last: the CPU's convolutions take a third less time so.
    network = network.to(memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]  # biases, normalisation, the scale
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=_PEAK_RATE,
        betas=(0.9, 0.98),
    )
    mean = torch.tensor(config["preprocess_cfg"]["mean"])[:, None, None]
    std = torch.tensor(config["preprocess_cfg"]["std"])[:, None, None]
    normalised = functools.partial(torch.nn.functional.normalize, dim=-1)
    ids = functools.cache(lambda text: tokenizer(text, truncation=True).input_ids)
    network.train()
    started = time.monotonic()
    done = 0
    for batch in pairs:
        spent = (time.monotonic() - started) / seconds if steps is None else done / steps
        if spent >= 1 and done:
            break
        for group in optimizer.param_groups:
            group["lr"] = _rate(spent)
        seen = normalised(network.encode_image((batch.pixels - mean) / std))
        crops, whole = seen[: len(batch.positives)], seen[len(batch.positives) :]
        scale = network.logit_scale.exp()
        texts = normalised(text_features(network, [ids(text) for text in batch.texts]))
        captions = normalised(text_features(network, [ids(text) for text in batch.captions]))
        of_crops = unicl_loss(crops, texts, batch.positives, scale)
        of_pictures = unicl_loss(whole, captions, batch.picture_positives, scale)
        optimizer.zero_grad(set_to_none=True)
        (of_crops + _OF_PICTURES * of_pictures).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            network.logit_scale.clamp_(0, _HIGHEST_SCALE)
        done += 1
        if done % 50 == 0:
            log.info(
                "step %d, %.0f %% of the run, loss of crops %.3f, of pictures %.3f, scale %.1f",
                done, 100 * spent, of_crops.item(), of_pictures.item(), scale.item(),
            )  # fmt: skip
    return network.eval(), {
        "steps": done,
        "epochs": round(done * min(pairs.batch, len(pairs.things)) / len(pairs.things), 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def text_features(network: Any, ids: Sequence[Sequence[int]]) -> Any:
    """`encode_text` of token ids without padding: no text sees what follows it, so the features are the same.

    Descriptions have a handful of tokens and the context has many, which would cost most of the time.
    """
    import torch

    lengths = torch.tensor([len(one) for one in ids])
    longest = int(lengths.max())
    padded = torch.zeros((len(ids), longest), dtype=torch.long)
    for row, one in zip(padded, ids, strict=True):
        row[: len(one)] = torch.tensor(one)
    x = network.token_embedding(padded) + network.positional_embedding[:longest]
    x = network.transformer(x, attn_mask=network.attn_mask[:longest, :longest])
    return network.ln_final(x[torch.arange(len(ids)), lengths - 1]) @ network.text_projection


def _rate(spent: float) -> float:
    """Learning rate when that share of the run is over: a linear warm-up, then a cosine."""
    if spent < _WARM_UP:
        return _PEAK_RATE * max(spent, 1e-3) / _WARM_UP
    along = min(1.0, (spent - _WARM_UP) / (1 - _WARM_UP))
    return _LAST_RATE + (_PEAK_RATE - _LAST_RATE) * (1 + math.cos(math.pi * along)) / 2
