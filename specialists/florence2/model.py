"""A Florence-2 checkpoint that answers many prompts on many images at once, and scores its answers.

- Each image goes through the vision tower once; its features are reused for all its prompts.
- Greedy answers are decoded here, and their tokens' probabilities fall off on the way (`decoding`). Beam
  search is the library's; it reports none per token, so one teacher-forced pass over what it found does
  (`teacher_forcing`). Scores do not depend on how the answer was found.
- Nothing of one prompt depends on which others are in its batch, save for floating-point order.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_engine.errors import MissingPackageError, ModelLoadError
from specialists.florence2.choosing import chooser, understood
from specialists.florence2.constrained import Constraint, processor, rules
from specialists.florence2.decoding import Step, greedy
from specialists.florence2.encoding import SharedEncoder
from specialists.florence2.grammar import Found, Vocabulary
from specialists.florence2.prompts import Grammar, Takes, Task, prompt_text
from specialists.florence2.teacher_forcing import Asked, Likely, TokenScores, forced, likelihoods

if TYPE_CHECKING:
    import torch

_IMAGES_AT_ONCE = 8
"""Images that are encoded together on a CPU: with more, what passes between layers falls out of its caches."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was generated for one prompt: token ids without start and end, and the log-probability of each
    (`TokenScores`).

    `truncated` says that the limit of new tokens ended it, not the model.
    """

    ids: list[int]
    log_probs: NDArray[np.float32]
    truncated: bool

    def score(self, positions: Sequence[int]) -> float:
        """exp of the mean log-probability at `positions`, in 0..1: the geometric mean of the tokens'."""
        return float(np.exp(self.log_probs[list(positions)].mean(dtype=np.float64)))

    def score_of(self, found: Found) -> float:
        """The score of its label or of its coordinates; the geometric mean of both where it has both.

        A label's probability also says whether there is such a thing at all, and a box under the wrong name is a
        small model's most frequent error: AP rises when it counts (docs/performance.md).
        """
        parts = [self.score(tokens) for tokens in (found.label_tokens, found.location_tokens) if tokens]
        return float(np.prod(parts) ** (1 / len(parts)))


class Florence2Model:
    """A checkpoint in memory. Raises ModelLoadError, RecipeError or MissingPackageError if it cannot be.

    A location token's probability is that of all bins up to `score_window` from it.
    """

    def __init__(
        self, model: str, revision: str | None, device: str | None, dtype: str, score_window: int = 0
    ) -> None:
        try:
            import torch
            from transformers import Florence2ForConditionalGeneration, Florence2Processor
        except ImportError as error:
            raise MissingPackageError.of(error.name or "transformers", "transformers") from error
        from specialists.pretrained import device_and_dtype, load_processor, load_weights

        _refuse_remote_code(model, revision)
        # Denormal numbers in nearly silent activations slow a CPU by an order of magnitude.
        torch.set_flush_denormal(True)
        self.device, self.dtype = device_and_dtype(device, dtype)
        network = load_weights(Florence2ForConditionalGeneration, model, revision, self.dtype)
        self.network: Any = network.to(self.device).eval()
        self.processor: Any = load_processor(Florence2Processor, model, revision)
        self.tokenizer: Any = self.processor.tokenizer
        try:
            self.vocabulary = Vocabulary(self.tokenizer)
        except ValueError as error:
            raise ModelLoadError(
                f"cannot use {model}: {error}", "use a Florence-2 checkpoint with its own tokenizer"
            ) from error
        self.constraint = Constraint(
            self.vocabulary,
            self.tokenizer.bos_token_id,
            self.tokenizer.eos_token_id,
            self.network.lm_head.out_features,
            self.device,
        )
        self.scores = TokenScores(self.vocabulary, score_window, self.tokenizer.eos_token_id, self.device)
        text_config = self.network.config.text_config
        self.image_tokens = int(self.processor.num_image_tokens)
        self.positions = int(text_config.max_position_embeddings)
        self.start = int(text_config.decoder_start_token_id)
        generation = self.network.generation_config
        self.captions_no_repeat = int(generation.no_repeat_ngram_size or 0)
        # Unset here, for generate() fills what its own settings leave open from these. A forced end would
        # make a truncated answer look like a whole one; lengths are the recipe's to set.
        generation.forced_eos_token_id = None
        generation.max_length = None

    def prompt_ids(self, task: Task, said: str = "") -> list[int]:
        """The tokens of a prompt after the image's own.

        `said` is free text from data, or location tokens when the task takes a region. Free text that
        is longer than the encoder has room for is cut at its end.
        """
        if task.takes not in (Takes.REGION, Takes.BOX):
            said = prompt_text(said)
        room = self.positions - self.image_tokens
        while True:
            ids: list[int] = [
                self.tokenizer.bos_token_id,
                *self.tokenizer(task.prompt(said), add_special_tokens=False)["input_ids"],
                self.tokenizer.eos_token_id,
            ]
            excess = len(ids) - room
            if excess <= 0 or not said:
                return ids[:room]
            ends = self.tokenizer(said, add_special_tokens=False, return_offsets_mapping=True)[
                "offset_mapping"
            ]
            said = said[: ends[max(len(ends) - excess, 0)][0]].rstrip()

    def words(self, text: str) -> list[int]:
        """The tokens of a text without marks. Texts from data must have gone through `clean_label`."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def features(self, pixels: Sequence[NDArray[np.uint8]], batch: int) -> torch.Tensor:
        """Image features, (images, image tokens, width), of RGB arrays (height, width, 3); `batch` images at a time
        or fewer."""
        import torch

        parts = []
        if self.device.type == "cpu":
            batch = min(batch, _IMAGES_AT_ONCE)
        with torch.inference_mode():
            for i in range(0, len(pixels), batch):
                # Copies, for decoded pixels are read-only and torch wants its own. The layout is stated:
                # of an image 3 pixels high it could not be told.
                values = self.processor.image_processor(
                    [image.copy() for image in pixels[i : i + batch]],
                    return_tensors="pt",
                    input_data_format="channels_last",
                )["pixel_values"]
                output = self.network.get_image_features(values.to(self.device, self.dtype))
                parts.append(output.pooler_output)
            return torch.cat(parts)

    def answers(
        self,
        features: Sequence[torch.Tensor],
        prompts: Sequence[Sequence[int]],
        num_beams: int,
        max_new_tokens: int,
        no_repeat_ngram: int,
        batch: int = 32,
        grammars: Sequence[Grammar] | None = None,
    ) -> list[Answer]:
        """One answer per prompt, in their order; `features` holds each prompt's image.

        At most `batch` prompts are in hand at one time. They are begun in their order: those whose answers will
        be long come best first. With `grammars`, one for each prompt, answers keep to them (`constrained`).
        """
        import torch

        limit = min(max_new_tokens, self.positions)
        with torch.inference_mode():
            if num_beams == 1 and understood(self.network.generation_config):
                return self._greedy(features, prompts, limit, no_repeat_ngram, batch, grammars)
            answers = []
            for i in range(0, len(prompts), batch):
                some = slice(i, i + batch)
                answers += self._searched(
                    features[some],
                    prompts[some],
                    num_beams,
                    limit,
                    no_repeat_ngram,
                    grammars and grammars[some],
                )
            return answers

    def _greedy(
        self,
        features: Sequence[torch.Tensor],
        prompts: Sequence[Sequence[int]],
        limit: int,
        no_repeat_ngram: int,
        batch: int,
        grammars: Sequence[Grammar] | None,
    ) -> list[Answer]:
        if not prompts:
            return []
        encoder, images = self._encoder(features)

        def encode(first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
            return encoder(images[first:last], prompts[first:last], self.tokenizer.pad_token_id)

        longest = self.image_tokens + max(len(ids) for ids in prompts)
        forced = self.network.generation_config.forced_bos_token_id
        likeliest = None
        if grammars is not None:
            of_prompts = rules(grammars, self.device)

            def likeliest(step: Step) -> torch.Tensor:
                left = limit - step.lengths
                return self.constraint.choose(
                    step.logits, step.tokens, step.lengths, of_prompts[step.prompts], left
                )

        choose = chooser(self.start, forced, no_repeat_ngram, likeliest)
        end = self.tokenizer.eos_token_id
        made = greedy(self.network, encode, len(prompts), batch, longest, limit, end, choose, self.scores)
        return [self._answer(ids, values) for ids, values in made]

    def _searched(
        self,
        features: Sequence[torch.Tensor],
        prompts: Sequence[Sequence[int]],
        num_beams: int,
        limit: int,
        no_repeat_ngram: int,
        grammars: Sequence[Grammar] | None,
    ) -> list[Answer]:
        """By the library's beam search, and a teacher-forced pass for the probabilities that it does not report."""
        from transformers.modeling_outputs import BaseModelOutput

        encoder, images = self._encoder(features)
        encoded, mask = encoder(images, prompts, self.tokenizer.pad_token_id)
        sequences = self.network.generate(
            # generate() repeats what it is given per beam, in place.
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=mask,
            generation_config=self._generation(num_beams, limit, no_repeat_ngram),
            logits_processor=grammars
            and processor(self.constraint, rules(grammars, self.device), num_beams, limit),
        )
        written = sequences[:, 1:].tolist()
        pad = self.tokenizer.pad_token_id
        likely = forced(self.network, encoded, mask, written, self.scores, pad)
        return [self._answer(ids, one.log_probs) for ids, one in zip(written, likely, strict=True)]

    def likelihoods(self, features: torch.Tensor, asked: Sequence[Asked], batch: int) -> list[Likely]:
        """How probable each answer is, in their order; `features` are those of the images that they number."""
        import torch

        with torch.inference_mode():
            encoder = SharedEncoder(self.network, features, _IMAGES_AT_ONCE)
            pad = self.tokenizer.pad_token_id
            return likelihoods(self.network, encoder, asked, self.scores, batch, pad)

    def _encoder(self, features: Sequence[torch.Tensor]) -> tuple[SharedEncoder, list[int]]:
        """The encoder over prompts with these features, and which of its images each prompt has."""
        import torch

        numbers: dict[int, int] = {}
        images = [numbers.setdefault(one.data_ptr(), len(numbers)) for one in features]
        first = [images.index(number) for number in range(len(numbers))]
        together = torch.stack([features[i] for i in first])
        return SharedEncoder(self.network, together, _IMAGES_AT_ONCE), images

    def _generation(self, num_beams: int, limit: int, no_repeat_ngram: int) -> Any:
        """The checkpoint's own settings, with all that the recipe or the task decides set outright."""
        config = copy.deepcopy(self.network.generation_config)
        config.update(
            num_beams=num_beams,
            do_sample=False,
            # Released checkpoints stop a beam search early; the setting is refused without beams.
            early_stopping=num_beams > 1,
            max_new_tokens=limit,
            no_repeat_ngram_size=no_repeat_ngram,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            decoder_start_token_id=self.start,
            use_cache=True,
        )
        return config

    def _answer(self, ids: list[int], log_probs: NDArray[np.float32]) -> Answer:
        end = self.tokenizer.eos_token_id
        length = ids.index(end) if end in ids else len(ids)
        return Answer(ids[:length], log_probs[:length], truncated=length == len(ids))


def _refuse_remote_code(model: str, revision: str | None) -> None:
    """Checkpoints that bring their own code are refused, by name before any download."""
    from specialists.pretrained import read_config

    twin = "the same weights in the native format are florence-community/"
    if model.startswith("microsoft/Florence-2"):
        raise ModelLoadError(
            f"{model} runs code of its own, which is never done here",
            f"{twin}{model.removeprefix('microsoft/')}",
        )
    config = read_config(model, revision)
    if "auto_map" in config:
        raise ModelLoadError(
            f"{model} runs code of its own, which is never done here",
            f"{twin}Florence-2-base and -large (-ft for the fine-tuned ones)",
        )
    if config.get("model_type") != "florence2":
        raise ModelLoadError(
            f"{model} is a checkpoint of {config.get('model_type', 'another model')!r}, not of Florence-2",
            "give a native Florence-2 checkpoint, for example florence-community/Florence-2-base",
        )
