"""A language model of transformers, with or without eyes: questions in, answers out.

It is any checkpoint that `AutoModelForCausalLM` knows or, where pictures are shown to it,
`AutoModelForImageTextToText`, if that only decodes (no encoder-decoder) and has a chat template.

The template is a program that comes with the checkpoint. transformers (5.23: `utils/chat_template_utils.py`) renders
it in jinja2's ImmutableSandboxedEnvironment and refuses a jinja2 older than 3.1.6, whose sandbox has known holes: it
can make text of what it is given and reach nothing else. No other code of a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image

from data_engine.errors import ImageError, MissingPackageError, ModelLoadError
from specialists.control_tokens import ControlTokens
from specialists.pretrained import device_and_dtype, load_processor, load_weights, read_config
from specialists.seeded_draws import SeededDraws

_THOUGHTS = ("<think>", "<thinking>", "<reasoning>")
"""What a template may open an answer with; such an answer begins inside of a thought."""

_NO_LIMIT = 10**9
"""Tokenizers without a limit name one of 10^30."""

Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A question in the model's own tokens. `ids` are None where there is a picture: the processor has them."""

    messages: Messages
    ids: list[int] | None
    length: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote; `tokens` with the one that ended it. Not `finished`: the limit of tokens cut it off."""

    text: str
    tokens: int
    finished: bool


class LanguageModel:
    """Loads a checkpoint, from a folder or the hub, safetensors only and without code of its own.

    - `shows`: whether questions have a picture.
    - `system`: words for the system message, or None. Where the template has none, or leaves it out, they stand
      before the question.
    - `max_new_tokens`: answers are cut there. `temperature`: 0 takes the likeliest token, above it draws.
    - `max_batch`: questions that go through the model at once; it bounds memory.
    - `dtype`: `auto` is float32 on a CPU and, on a GPU, the type that the checkpoint was published in: in float16
      some of those in bfloat16 overflow.

    Of the checkpoint's generation settings only what ends an answer is taken. Others would act on the padding too
    (a penalty for repetition does), and an answer would depend on its neighbours.

    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str,
        revision: str | None,
        shows: bool,
        system: str | None,
        max_new_tokens: int,
        temperature: float,
        max_batch: int,
        device: str | None,
        dtype: str,
    ) -> None:
        try:
            import torch
            from transformers import (
                AutoModelForCausalLM,
                AutoModelForImageTextToText,
                AutoProcessor,
                AutoTokenizer,
                GenerationConfig,
            )
        except ImportError as error:
            raise MissingPackageError.of(error.name or "transformers", "transformers") from error
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.max_batch = max_batch
        config = read_config(model, revision)
        _check_kind(model, config, shows)
        torch.set_flush_denormal(True)
        self.device, self.dtype = device_and_dtype(device, dtype)
        if dtype == "auto" and self.device.type != "cpu":
            self.dtype = device_and_dtype(device, _published(config))[1]
        cls = AutoModelForImageTextToText if shows else AutoModelForCausalLM
        network = load_weights(cls, model, revision, self.dtype)
        self.network: Any = network.to(self.device).eval()
        self.processor: Any = load_processor(AutoProcessor, model, revision) if shows else None
        self.tokenizer: Any = None
        if shows:
            self.tokenizer = getattr(self.processor, "tokenizer", None)
        else:
            self.tokenizer = load_processor(AutoTokenizer, model, revision)
        speaker = self.processor if shows else self.tokenizer
        template = getattr(speaker, "chat_template", None)
        if shows and (self.tokenizer is None or not template):
            raise ModelLoadError(
                f"{model} has no processor with a chat template, which says where a picture stands",
                "give a chat model whose processor has one, or set `images: none` for a language model",
            )
        self._speaker: Any = speaker if template else None
        # A template that can leave the thinking out is told to; others are told nothing.
        self._switches = {"enable_thinking": False} if "enable_thinking" in str(template) else {}
        self.controls = ControlTokens(self.tokenizer, self.processor, str(template or ""))
        self.positions = _positions(self.network.config, self.tokenizer)
        generation = self.network.generation_config
        ends = {self.tokenizer.eos_token_id, *_listed(generation.eos_token_id)} - {None}
        self.ends = sorted(int(end) for end in ends)
        if self.tokenizer.pad_token_id is None:
            # What is padded is masked out, so that any token will do.
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(0)
        self.tokenizer.padding_side = "left"
        self._generation = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.ends or None,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
        )
        # generate() fills what it is not told from the checkpoint's own.
        self.network.generation_config = self._generation
        self.system = self.controls.broken_in(system) if system else None
        self._apart = True
        self._apart = self.system is None or self._speaker is None or self._tells_system()
        self._opening = self._thought(model)

    @property
    def room(self) -> int | None:
        """Tokens that a question may have, so that an answer of full length fits behind it; None: no limit."""
        return None if self.positions is None else self.positions - self.max_new_tokens

    def question(self, words: str, picture: PIL.Image.Image | None) -> Question:
        """Raises ImageError for a picture that the model's processor does not take."""
        messages = self._messages(self.controls.broken_in(words), picture)
        if picture is None:
            ids = self._ids(messages)
            return Question(messages, ids, len(ids))
        try:
            inputs = self._inputs([messages])
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ImageError("refused", f"the model's processor does not take it: {reason}") from error
        return Question(messages, None, int(inputs["input_ids"].shape[1]))

    def answers(self, questions: Sequence[Question], seeds: Sequence[int]) -> list[Reply]:
        """A reply to each question, in order. `seeds`: one for each, for its draws; each in 0..2^64 - 1."""
        replies: dict[int, Reply] = {}
        like = sorted(range(len(questions)), key=lambda i: questions[i].length)
        for start in range(0, len(like), self.max_batch):
            batch = like[start : start + self.max_batch]
            found = self._batch([questions[i] for i in batch], [seeds[i] for i in batch])
            replies.update(zip(batch, found, strict=True))
        return [replies[i] for i in range(len(questions))]

    def _batch(self, questions: Sequence[Question], seeds: Sequence[int]) -> Iterator[Reply]:
        import torch
        from transformers import LogitsProcessorList

        rows = [question.ids for question in questions if question.ids is not None]
        inputs = self._padded(rows) if rows else self._inputs([question.messages for question in questions])
        steps = LogitsProcessorList()
        if self.temperature > 0:
            steps.append(SeededDraws(seeds, self.temperature))
        with torch.inference_mode():
            made = self.network.generate(
                **inputs.to(self.device, self.dtype),
                generation_config=self._generation,
                logits_processor=steps,
            )
        for ids in made[:, inputs["input_ids"].shape[1] :].tolist():
            end = next((i for i, token in enumerate(ids) if token in self.ends), None)
            text = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
            yield Reply(self._opening + text, len(ids) if end is None else end + 1, end is not None)

    def _padded(self, rows: Sequence[list[int]]) -> Any:
        """On the left: the next token of every row is then in one column."""
        import torch
        from transformers import BatchFeature

        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, longest - len(row) :] = torch.tensor(row)
            mask[i, longest - len(row) :] = 1
        return BatchFeature({"input_ids": ids, "attention_mask": mask})

    def _inputs(self, conversations: list[Messages]) -> Any:
        """What the processor makes of questions with pictures, padded on the left."""
        return self._speaker.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
            **self._switches,
        )

    def _ids(self, messages: Messages) -> list[int]:
        """The tokens of a question without a picture."""
        if self._speaker is None:
            # A model that knows no dialogue goes on from plain text.
            ids: list[int] = self.tokenizer("\n\n".join(m["content"] for m in messages))["input_ids"]
            return ids
        encoded = self._speaker.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, **self._switches
        )
        return list(encoded["input_ids"])

    def _messages(self, words: str, picture: PIL.Image.Image | None) -> Messages:
        if self.system is not None and not self._apart:
            words = f"{self.system}\n\n{words}"
        asked: list[dict[str, Any]] = [{"type": "text", "text": words}]
        if picture is not None:
            asked.insert(0, {"type": "image", "image": picture})
        messages: Messages = [{"role": "user", "content": words if self.processor is None else asked}]
        if self.system is not None and self._apart:
            told = [{"type": "text", "text": self.system}]
            messages.insert(0, {"role": "system", "content": self.system if self.processor is None else told})
        return messages

    def _rendered(self) -> str:
        """A question about nothing, as the template writes it."""
        picture = None if self.processor is None else PIL.Image.new("RGB", (64, 64))
        text: str = self._speaker.apply_chat_template(
            self._messages("A question.", picture),
            add_generation_prompt=True,
            tokenize=False,
            **self._switches,
        )
        return text

    def _tells_system(self) -> bool:
        """Whether the template writes the system message's words."""
        try:
            return (self.system or "").strip() in self._rendered()
        except Exception:  # noqa: BLE001 - templates without the role raise whatever they like
            return False

    def _thought(self, model: str) -> str:
        """The mark of a thought that the template opens the answer with; empty where it opens none.

        Raises ModelLoadError for a template that cannot be rendered.
        """
        if self._speaker is None:
            return ""
        try:
            end = self._rendered().rstrip()
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelLoadError(
                f"the chat template of {model} cannot be rendered: {reason}",
                "mend the checkpoint's chat_template.jinja, or take another checkpoint",
            ) from error
        return next((mark for mark in _THOUGHTS if end.endswith(mark)), "")


def _check_kind(model: str, config: dict[str, Any], shows: bool) -> None:
    """Of a kind that the library knows, no code that comes with the checkpoint is looked at."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    kind = str(config.get("model_type"))
    if config.get("is_encoder_decoder"):
        raise ModelLoadError(
            f"{model} is an encoder-decoder, and questions are asked of models that only decode",
            "give a chat model, for example Qwen/Qwen3-4B-Instruct-2507 or, with images, Qwen/Qwen3-VL-4B-Instruct",
        )
    if shows and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ModelLoadError(
            f"{model} is a checkpoint of {kind!r}, which transformers cannot show images to",
            "give a multimodal model, for example Qwen/Qwen3-VL-4B-Instruct, or set `images: none`",
        )
    if not shows and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelLoadError(
            f"{model} is a checkpoint of {kind!r}, which transformers has no language model for",
            "give a language model, for example Qwen/Qwen3-4B-Instruct-2507, or set `images: full` for a multimodal one",
        )


def _published(config: dict[str, Any]) -> str:
    """The type that a checkpoint's config names, of itself or of its language model."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        named = str(part.get("dtype") or part.get("torch_dtype") or "").removeprefix("torch.")
        if named in ("float32", "float16", "bfloat16"):
            return named
    return "bfloat16"


def _positions(config: Any, tokenizer: Any) -> int | None:
    """Tokens of question and answer together that the model was made for; None where nothing says."""
    named = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(named, int) and named > 0:
        return named
    return int(tokenizer.model_max_length) if tokenizer.model_max_length < _NO_LIMIT else None


def _listed(value: int | list[int] | None) -> list[int | None]:
    return list(value) if isinstance(value, list | tuple) else [value]
