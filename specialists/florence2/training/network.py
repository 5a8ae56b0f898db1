"""The model that learns: made from nothing or taken from a checkpoint, at any resolution, saved as a plain folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_engine.errors import MissingPackageError, ModelLoadError, RecipeError
from data_engine.storage import storage_errors
from specialists.florence2.grammar import Vocabulary
from specialists.florence2.locations import BINS
from specialists.florence2.scratch import make_model, make_processor, make_tokenizer, wrap_tokenizer
from specialists.florence2.start import POSITIONS, stretched
from specialists.florence2.training.presets import preset

if TYPE_CHECKING:
    import torch

    from specialists.florence2.student import Student
    from specialists.florence2.training.plan import Plan

_HALF = 6e4
"""What fits half precision, in which checkpoints are published."""

FACTS = "training.json"

_ADAPTED = (
    r"model\.(language_model\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
    r"|vision_tower\..*\.(qkv|proj|fc1|fc2))"
)
"""The linear layers that adapters of low rank are put beside: all of attention and of feed-forward."""


@dataclass(eq=False)
class Network:
    """`model` in float32, `processor` with its tokenizer, and the `side` of the pictures that it now sees.

    `adapted` is peft's model around it, where adapters learn instead of the weights.
    """

    model: Any
    processor: Any
    side: int
    adapted: Any = None

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def stride(self) -> int:
        """Pixels on a side of an image feature."""
        product = 1
        for step in self.model.config.vision_config.patch_stride:
            product *= int(step)
        return product

    @property
    def positions(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def locations(self) -> range:
        first = self.tokenizer.convert_tokens_to_ids("<loc_0>")
        return range(first, first + BINS)

    def prompt_room(self, side: int) -> int:
        """Tokens of a prompt beside the image's own, of a picture `side` pixels wide."""
        return self.positions - (side // self.stride) ** 2 - 1


def start_tokenizer(start: str) -> str:
    """The tokenizer of a checkpoint, as its definition in JSON. Raises ModelLoadError where it is not the model's own."""
    from transformers import Florence2Processor

    from specialists.pretrained import load_processor, read_config

    config = read_config(start, None)
    if config.get("model_type") != "florence2" or "auto_map" in config:
        raise ModelLoadError(
            f"{start} is no native Florence-2 checkpoint",
            "give a folder that a training wrote, or for example florence-community/Florence-2-base",
        )
    processor: Any = load_processor(Florence2Processor, start, None)
    tokenizer = processor.tokenizer
    hint = "put the checkpoint's own tokenizer back beside its weights"
    try:
        Vocabulary(tokenizer)
    except ValueError as error:
        raise ModelLoadError(f"cannot train {start}: {error}", hint) from error
    rows = int(config.get("text_config", {}).get("vocab_size") or config.get("vocab_size") or 0)
    if rows and max(tokenizer.get_vocab().values()) >= rows:
        raise ModelLoadError(
            f"cannot train {start}: its tokenizer has {len(tokenizer)} tokens, its model {rows}", hint
        )
    definition: str = tokenizer.backend_tokenizer.to_str()
    known = start_facts(start).get("tokenizer")
    if known is not None and known != tokenizer_digest(definition):
        raise ModelLoadError(f"cannot train {start}: its tokenizer is not the one that it learnt with", hint)
    return definition


def tokenizer_digest(definition: str) -> str:
    return hashlib.sha256(definition.encode()).hexdigest()[:16]


def start_facts(start: str | None) -> dict[str, Any]:
    """The `training.json` of a checkpoint folder, where it has one."""
    facts: Any = {}
    if start is not None:
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads((Path(start).expanduser() / FACTS).read_text(encoding="utf-8"))
    return facts if isinstance(facts, dict) else {}


def new_tokenizer(settings: Student, corpus: Sequence[str]) -> str:
    """A tokenizer for a model from nothing, made from what the data set says."""
    definition: str = make_tokenizer(corpus, preset(settings.model).words).backend_tokenizer.to_str()
    return definition


def make_network(settings: Student, plan: Plan, start: str | None) -> Network:
    """The network that a training begins with; the same arguments give the same one."""
    if start is None:
        size = preset(settings.model)
        tokenizer = wrap_tokenizer(plan.tokenizer)
        model = make_model(
            tokenizer, size.dimensions, settings.seed, size.language_heads, size.spread, size.tokens
        )
        network = Network(model, make_processor(tokenizer, size.dimensions), size.dimensions.side)
    else:
        network = _load(start)
    if settings.freeze_vision:
        network.model.model.vision_tower.requires_grad_(False)
    if settings.lora:
        _adapt(network, settings.lora, settings.seed)
    return network


def _load(start: str) -> Network:
    import torch
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

    from specialists.pretrained import load_processor, load_weights

    model = load_weights(Florence2ForConditionalGeneration, start, None, torch.float32)
    processor: Any = load_processor(Florence2Processor, start, None)
    side = int(processor.image_processor.size["height"])
    return Network(model, processor, side)


def _adapt(network: Network, rank: int, seed: int) -> None:
    """Put adapters of low rank beside the linear layers; nothing else learns (arXiv 2106.09685)."""
    import torch

    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingPackageError.of(error.name or "peft", "train") from error
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks the model for an attribute under a name that transformers retires.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            network.adapted = get_peft_model(
                network.model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_ADAPTED)
            )
    finally:
        torch.random.set_rng_state(state)


def checkpoint_layers(model: Any) -> None:
    """Keep a layer's input alone for the backward pass, and calculate the layer again there."""
    from torch.utils.checkpoint import checkpoint

    # The library's own switch is for the language model's layers alone.
    language = model.model.language_model
    blocks = [block for stage in model.model.vision_tower.blocks for block in stage]
    for layer in (*blocks, *language.encoder.layers, *language.decoder.layers):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def set_side(network: Network, side: int, tables: Sequence[torch.Tensor] = ()) -> None:
    """See pictures `side` pixels wide from now on: positions are stretched, in the model and in `tables`.

    `tables` are other tensors of the shape of the position tables that go with them (copies in single
    precision, averages, an optimizer's moments). A window that spans the whole last feature map goes on doing so.
    Raises RecipeError for a side that the model cannot have.
    """
    import torch

    if side == network.side:
        return
    if side % network.stride:
        raise RecipeError(
            f"pictures {side} pixels wide do not fit the model", f"give a multiple of {network.stride}"
        )
    old, new = network.side // network.stride, side // network.stride
    model = network.model
    own = [p for name, p in model.named_parameters() if POSITIONS in name]
    if any(new > len(table) for table in own) or network.prompt_room(side) < 1:
        raise RecipeError(
            f"pictures {side} pixels wide are too large for the model: it has {len(own[0])} positions on a side "
            f"and {network.positions} in all",
            "give a smaller resolution",
        )
    with torch.no_grad():
        for table in (*own, *tables):
            table[:new] = stretched(table[:old].float(), new).to(table.dtype)
    vision = model.config.vision_config
    if vision.window_size == old:
        vision.window_size = new
        for module in model.model.vision_tower.modules():
            if hasattr(module, "window_size"):
                module.window_size = new
    network.side = side


def save_network(network: Network, folder: Path) -> None:
    """A plain checkpoint folder; adapters are merged into the weights. The network is of no use afterwards.

    Raises StorageError where it cannot be written.
    """
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging as library

    library.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = network.model
    if network.adapted is not None:
        model = network.adapted.merge_and_unload()
    largest = max(float(p.detach().abs().max()) for p in model.parameters() if p.numel())
    if largest < _HALF:
        model.to(torch.float16)
    # How it was calculated here is no property of the checkpoint.
    model.set_attn_implementation("sdpa")
    with storage_errors(str(folder)):
        try:
            model.eval().save_pretrained(folder)
            _with_side(network).save_pretrained(folder)
        except SafetensorError as error:
            raise OSError(_errno(str(error)), str(error)) from error


def _errno(message: str) -> int:
    """The system's number for an error that the weights' writer tells as text: `... (os error 28)`."""
    digits = message.partition("os error ")[2].partition(")")[0]
    return int(digits) if digits.isdigit() else 0


def _with_side(network: Network) -> Any:
    """The processor, for pictures of the side that the network has now."""
    from transformers import Florence2Processor

    images = network.processor.image_processor
    images.size = {"height": network.side, "width": network.side}
    images.image_seq_length = (network.side // network.stride) ** 2 + 1
    return Florence2Processor(
        image_processor=images,
        tokenizer=network.tokenizer,
        num_additional_image_tokens=network.processor.num_additional_image_tokens,
        post_processor_config=network.processor.post_processor_config,
    )
