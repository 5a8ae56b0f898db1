"""Which token comes next in a greedy answer: the likeliest that the settings of a task and of a checkpoint allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from specialists.florence2.decoding import Step

if TYPE_CHECKING:
    import torch

_OTHER_SETTINGS = (
    "repetition_penalty", "encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "bad_words_ids", "min_length",
    "min_new_tokens", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "exponential_decay_length_penalty",
    "guidance_scale", "watermarking_config",
)  # fmt: skip
_IDLE: tuple[Any, ...] = (None, 0, 1)


def understood(generation_config: Any) -> bool:
    """Whether a checkpoint's generation settings are among those that are followed here.

    Those are `forced_bos_token_id` and `no_repeat_ngram_size`, the released checkpoints' own.
    """
    return all(getattr(generation_config, name, None) in _IDLE for name in _OTHER_SETTINGS)


Choose = Callable[[Step], "torch.Tensor"]


def chooser(
    start: int, forced_first: int | None, no_repeat_ngram: int, likeliest: Choose | None = None
) -> Choose:
    """Chooses like `generate(num_beams=1)`: `forced_first` is the first token where it is given, and no run of
    `no_repeat_ngram` tokens comes twice, the decoder's `start` counted, where that is above 0. `likeliest`, where it
    is given, chooses instead of the maximum (`constrained`)."""

    def choose(step: Step) -> torch.Tensor:
        import torch

        logits = step.logits
        if no_repeat_ngram:
            said = torch.nn.functional.pad(step.tokens, (1, 0), value=start)
            logits = without_repeats(logits, said, step.lengths + 1, no_repeat_ngram)
        chosen = logits.argmax(1) if likeliest is None else likeliest(replace(step, logits=logits))
        if forced_first is not None:
            chosen = torch.where(step.lengths == 0, forced_first, chosen)
        return chosen

    return choose


def without_repeats(
    logits: torch.Tensor, said: torch.Tensor, lengths: torch.Tensor, size: int
) -> torch.Tensor:
    """`logits` (rows, vocabulary) with -inf at each token that would end a run of `size` tokens for the second time.

    `said` (rows, longest) are the tokens of each row, of which the first `lengths` (rows,) are its own.
    """
    import torch

    if said.shape[1] < size:
        return logits
    runs = said.unfold(1, size, 1)
    begins = torch.arange(runs.shape[1], device=said.device)
    last = lengths[:, None] - size + 1 + torch.arange(size - 1, device=said.device)
    last = said.gather(1, last.clamp(min=0))
    again = (runs[..., :-1] == last[:, None]).all(-1) & (begins + size <= lengths[:, None])
    rows, places = again.nonzero(as_tuple=True)
    logits = logits.clone()
    logits[rows, runs[rows, places, -1]] = float("-inf")
    return logits
