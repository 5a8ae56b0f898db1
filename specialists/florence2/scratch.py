"""A small Florence-2 made from nothing: tokenizer, processor and model, without any download.

The classes are the library's own, so what is saved is a plain checkpoint. Its initialisation is not the
library's: with that one a small model hardly learns where things are. Three changes help:

- weights start with a standard deviation of 0.06 instead of 0.02, or attention starts near uniform;
- the image's position embeddings start as 2-D sinusoids as strong as the features that they are added to;
- the embeddings of `<loc_0>`..`<loc_999>` start smooth: those of neighbouring bins are near each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_engine.errors import MissingPackageError, RecipeError
from specialists.florence2.locations import BINS
from specialists.florence2.prompts import TASKS

if TYPE_CHECKING:
    import torch

MARKS = (
    "<od>", "</od>", "<ocr>", "</ocr>", "<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>",
    "<grounding>", "</grounding>", "<seg>", "</seg>", "<sep>", "<region_cap>", "</region_cap>",
    "<region_to_desciption>", "</region_to_desciption>", "<proposal>", "</proposal>", "<poly>", "</poly>", "<and>",
)  # fmt: skip
"""The released tokenizer's added tokens besides the locations, its misspelling included."""

_SPECIAL = {
    "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
    "cls_token": "<s>", "sep_token": "</s>",
}  # fmt: skip

_POST_PROCESSING = (
    "ocr", "phrase_grounding", "pure_text", "description_with_bboxes", "description_with_polygons",
    "polygons", "bboxes", "description_with_bboxes_or_polygons",
)  # fmt: skip

_SPREAD = 0.06
"""Standard deviation of initial weights, embeddings included."""

_POSITION_SPREAD = 0.6
"""That of image position embeddings: about as strong as the features of an untrained vision tower."""

_LOCATION_CYCLES = (0.5, 10.0)
"""Slowest and fastest sinusoid in a location embedding, in cycles per side of the image."""

_PADDING = {2: 0, 3: 1, 4: 0, 5: 2, 7: 3, 8: 0}
"""Of a convolution by its kernel's size."""


@dataclass(frozen=True)
class Dimensions:
    """Of a model. The default has 5.7 million parameters with a vocabulary of 1,000 words.

    The image is resized to `side` x `side` pixels. `embed_dim`, `depths`, `patch_size` and `patch_stride`
    describe the stages of the vision tower (DaViT), whose windows are `window` features wide; `heads` are
    `head_width` wide there and in the language model, which is `width` wide. `positions` bounds a prompt
    with its image tokens, and an answer.
    """

    side: int = 192
    embed_dim: tuple[int, ...] = (32, 64, 128, 192)
    depths: tuple[int, ...] = (1, 1, 2, 1)
    patch_size: tuple[int, ...] = (7, 3, 3, 3)
    patch_stride: tuple[int, ...] = (4, 2, 2, 1)
    window: int = 12
    head_width: int = 32
    width: int = 256
    encoder_layers: int = 1
    decoder_layers: int = 3
    feed_forward: int = 512
    positions: int = 448

    @property
    def grid(self) -> int:
        """Image features on a side."""
        return self.side // math.prod(self.patch_stride)

    @property
    def image_tokens(self) -> int:
        """The features and their mean."""
        return self.grid**2 + 1

    def check(self) -> None:
        """Raises RecipeError for dimensions that fit no model."""
        stages = {len(self.embed_dim), len(self.depths), len(self.patch_size), len(self.patch_stride)}
        if len(stages) != 1 or any(size not in _PADDING for size in self.patch_size):
            raise RecipeError(
                "a stage needs one each of embed_dim, depths, patch_size and patch_stride",
                f"give as many of each, and patch sizes from {', '.join(map(str, _PADDING))}",
            )
        if self.side % math.prod(self.patch_stride) or self.width % (2 * self.head_width):
            raise RecipeError(
                f"side {self.side} or width {self.width} cannot be divided",
                "side must be a multiple of the strides' product, width one of twice head_width",
            )


def make_tokenizer(corpus: Iterable[str], words: int = 1000) -> Any:
    """A byte-level BPE tokenizer with `words` entries trained on `corpus`, the marks and the locations.

    Being byte-level, it spells any text; what is not in its corpus takes more tokens. The prompts'
    sentences are added to the corpus. Raises MissingPackageError.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    except ImportError as error:
        raise MissingPackageError.of(error.name or "tokenizers", "transformers") from error

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sentences = [task.prompt() for task in TASKS.values()] * 20
    made.train_from_iterator([*sentences, *(text.replace("<", " ") for text in corpus)], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return wrap_tokenizer(made.to_str())


def wrap_tokenizer(definition: str) -> Any:
    """The library's tokenizer around a definition in JSON, with the marks and locations it may lack."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    wrapped = make(
        tokenizer_object=Tokenizer.from_str(definition),
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=1024,
        **_SPECIAL,
    )
    added = [*MARKS, *(f"<loc_{i}>" for i in range(BINS))]
    wrapped.add_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return wrapped


def make_processor(tokenizer: Any, dimensions: Dimensions) -> Any:
    """A Florence2Processor: the image is resized to a square, bicubically, as for the released models."""
    from transformers import CLIPImageProcessor, Florence2Processor

    images: Any = CLIPImageProcessor(
        size={"height": dimensions.side, "width": dimensions.side},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    images.image_seq_length = dimensions.image_tokens
    return Florence2Processor(
        image_processor=images,
        tokenizer=tokenizer,
        post_processor_config={kind: {} for kind in _POST_PROCESSING},
    )


def make_model(
    tokenizer: Any,
    dimensions: Dimensions,
    seed: int = 0,
    language_heads: int | None = None,
    spread: float = _SPREAD,
    tokens: int = 0,
) -> Any:
    """A Florence2ForConditionalGeneration with random weights, started so that it learns locations.

    `language_heads` is the number of the language model's attention heads where they are not as wide as
    those that see, `spread` the standard deviation of initial weights. The vocabulary has room for `tokens`
    at least, where the tokenizer has fewer. The same arguments give the same weights. Raises RecipeError for dimensions that do not fit together.
    """
    import torch
    from transformers import Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

    dimensions.check()
    ids = _ids(tokenizer)
    language_heads = language_heads or dimensions.width // dimensions.head_width
    heads = [max(1, d // dimensions.head_width) for d in dimensions.embed_dim]
    make_config: Any = Florence2Config
    config = make_config(
        vision_config={
            "embed_dim": list(dimensions.embed_dim),
            "depths": list(dimensions.depths),
            "num_heads": heads,
            "num_groups": heads,
            "patch_size": list(dimensions.patch_size),
            "patch_stride": list(dimensions.patch_stride),
            "patch_padding": [_PADDING[size] for size in dimensions.patch_size],
            "patch_prenorm": [False] + [True] * (len(dimensions.depths) - 1),
            "window_size": dimensions.window,
            "drop_path_rate": 0.0,
            "projection_dim": dimensions.width,
            "initializer_range": spread,
            "max_position_embeddings": max(50, dimensions.grid),
        },
        text_config={
            "model_type": "bart",
            "vocab_size": max(len(tokenizer), tokens),
            "d_model": dimensions.width,
            "encoder_layers": dimensions.encoder_layers,
            "decoder_layers": dimensions.decoder_layers,
            "encoder_ffn_dim": dimensions.feed_forward,
            "decoder_ffn_dim": dimensions.feed_forward,
            "encoder_attention_heads": language_heads,
            "decoder_attention_heads": language_heads,
            "dropout": 0.0,
            "max_position_embeddings": dimensions.positions,
            "forced_eos_token_id": None,
            "init_std": spread,
            **ids,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vocab_size=max(len(tokenizer), tokens),
        **ids,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = Florence2ForConditionalGeneration(config)
        with torch.no_grad():
            _place_locations(model, tokenizer, spread)
            _place_features(model, dimensions)
    finally:
        torch.random.set_rng_state(state)
    # Greedy unless a recipe asks for beams; captions of a drawn world repeat words on purpose.
    make_settings: Any = GenerationConfig
    model.generation_config = make_settings(num_beams=1, no_repeat_ngram_size=0, **ids)
    return model


def _ids(tokenizer: Any) -> Mapping[str, int]:
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id,
    }


def _sinusoids(count: int, width: int, slowest: float, fastest: float) -> torch.Tensor:
    """(count, width): sines and cosines over 0..1, frequencies in geometric steps; mean square 1."""
    import torch

    at = torch.linspace(0, 1, count)[:, None]
    cycles = torch.exp(torch.linspace(math.log(slowest), math.log(fastest), width // 2))
    angles = 2 * math.pi * at * cycles
    return math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)


def _place_locations(model: Any, tokenizer: Any, spread: float) -> None:
    """Location embeddings: sinusoids, turned at random so that no dimension is special."""
    import torch

    table = model.get_input_embeddings().weight
    first = tokenizer.convert_tokens_to_ids("<loc_0>")
    width = table.shape[1]
    turn = torch.linalg.qr(torch.randn(width, width))[0]
    table[first : first + BINS] = _sinusoids(BINS, width, *_LOCATION_CYCLES) @ turn * spread


def _place_features(model: Any, dimensions: Dimensions) -> None:
    positions = model.model.multi_modal_projector.image_position_embed
    grid = dimensions.grid
    for table in (positions.row_embeddings.weight, positions.column_embeddings.weight):
        table[:grid] = _sinusoids(grid, table.shape[1], 0.5, grid / 2) * _POSITION_SPREAD
