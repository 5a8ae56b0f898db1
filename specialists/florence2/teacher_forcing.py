"""How probable a Florence-2 finds given answers: one pass over each, all its tokens at once.

A coordinate is right when it is nearly right, so a location token is given the probability of all bins within a
window around it. A model whose training says so too (`locating.SoftLocations`) spreads a sure coordinate over some
50 bins, and gives the very bin a probability of 0.03.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from specialists.florence2.encoding import SharedEncoder
from specialists.florence2.grammar import Vocabulary
from specialists.florence2.locations import BINS

if TYPE_CHECKING:
    import torch

_ROWS_OF_LOGITS = 1024
"""Positions whose logits exist at one time: 200 MiB for the released vocabulary."""

_LEAST = -30.0
"""Log-probabilities are no lower: far below what one in float32 can be told from."""


class TokenScores:
    """The log-probability of tokens, of location tokens that of the bins within `window` bins of theirs.

    A window of 0 is the token's own bin. Near an end of the scale the window is cut off there. The `end` of an answer is
    as likely as that its words end: by that token, or by a location, for the released checkpoints echo a region
    behind its text.
    """

    def __init__(self, vocabulary: Vocabulary, window: int, end: int, device: Any) -> None:
        import torch

        meaning = torch.from_numpy(vocabulary.meaning)
        located = (meaning >= 0).nonzero()[:, 0]
        located = located[meaning[located].argsort()]
        self.location_ids: list[int] = located.tolist()  # by bin
        self.locations = located.to(device)
        self.meaning = meaning.to(device)
        self.window = window
        self.end = end

    def __call__(self, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Of each row's token, (rows,); `logits` are (rows, vocabulary) in float32 or wider."""
        import torch

        total = logits.logsumexp(1)
        values = logits.gather(1, tokens[:, None])[:, 0] - total
        rows = (tokens == self.end).nonzero()[:, 0]
        if len(rows):
            values[rows] = self._ends(logits[rows]) - total[rows]
        if not self.window:
            return values
        bins = self.bins(tokens)
        rows = (bins >= 0).nonzero()[:, 0]
        if len(rows):
            reach = torch.arange(-self.window, self.window + 1, device=bins.device)
            near = bins[rows, None] + reach
            at = self.locations[near.clamp(0, BINS - 1)]
            inside = logits[rows[:, None], at].masked_fill((near < 0) | (near >= BINS), float("-inf"))
            values[rows] = inside.logsumexp(1) - total[rows]
        return values

    def _ends(self, logits: torch.Tensor) -> torch.Tensor:
        import torch

        located = logits[:, self.locations].logsumexp(1)
        return torch.logaddexp(logits[:, self.end], located)

    def bins(self, tokens: torch.Tensor) -> torch.Tensor:
        """The bin of each token; what is no location token has a negative number."""
        known = tokens < len(self.meaning)  # a model may have more rows than its tokenizer has entries
        return self.meaning[tokens.where(known, 0)].where(known, -1)

    def best(self, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The most that any token would have been given in each row's place, (rows,).

        In the place of a location token that is the best window of bins, or the best other token, where the model
        would rather have said something else.
        """
        import torch

        log_p = logits.log_softmax(1)
        best = log_p.amax(1)
        rows = (tokens == self.end).nonzero()[:, 0]
        if len(rows):
            best[rows] = torch.maximum(best[rows], self._ends(log_p[rows]))
        rows = (self.bins(tokens) >= 0).nonzero()[:, 0]
        if self.window and len(rows):
            sums = torch.nn.functional.pad(log_p[rows][:, self.locations].exp().cumsum(1), (1, 0))
            at = torch.arange(BINS, device=rows.device)
            first, last = (at - self.window).clamp(min=0), (at + self.window + 1).clamp(max=BINS)
            windows = (sums[:, last] - sums[:, first]).amax(1).clamp(max=1.0)
            best[rows] = torch.maximum(best[rows], windows.log())
        return best


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """An answer to be judged: the number of its image, the prompt's tokens after the image's, and the answer's."""

    image: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Likely:
    """Of each token of an answer its log-probability given those before it, and that of the likeliest there, whose id
    is `choice`."""

    log_probs: NDArray[np.float32]
    best: NDArray[np.float32]
    choice: NDArray[np.int64]

    @property
    def doubt(self) -> NDArray[np.float32]:
        """How much less likely each token is than the likeliest: log-ratios, 0 or less."""
        ratios: NDArray[np.float32] = np.minimum(self.log_probs - self.best, 0.0)
        return ratios


def likelihoods(
    network: Any, encoder: SharedEncoder, asked: Sequence[Asked], scores: TokenScores, batch: int, pad: int
) -> list[Likely]:
    """One for each of `asked`, in their order; at most `batch` answers are worked on at one time.

    Answers of about a length share a batch, and those to one prompt its encoding.
    """
    found: list[Likely | None] = [None] * len(asked)
    order = sorted(range(len(asked)), key=lambda i: (len(asked[i].answer), asked[i].image, asked[i].prompt))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        numbers: dict[tuple[int, tuple[int, ...]], int] = {}
        of = [numbers.setdefault((asked[i].image, asked[i].prompt), len(numbers)) for i in rows]
        images, prompts = zip(*numbers, strict=True)
        encoded, mask = encoder(images, prompts, pad)
        values = forced(network, encoded[of], mask[of], [asked[i].answer for i in rows], scores, pad)
        for i, likely in zip(rows, values, strict=True):
            found[i] = likely
    return [likely for likely in found if likely is not None]


def forced(
    network: Any,
    encoded: torch.Tensor,
    mask: torch.Tensor,
    answers: Sequence[Sequence[int]],
    scores: TokenScores,
    pad: int,
) -> list[Likely]:
    """Of each answer to the encoder's output in the same row, (rows, positions, width)."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    longest = max(len(answer) for answer in answers)
    tokens = torch.full((len(answers), longest), pad)
    for row, answer in enumerate(answers):
        tokens[row, : len(answer)] = torch.tensor(answer)
    tokens = tokens.to(encoded.device)
    start = network.config.text_config.decoder_start_token_id
    hidden = network.model(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
        attention_mask=mask,
        decoder_input_ids=torch.nn.functional.pad(tokens[:, :-1], (1, 0), value=start),
        use_cache=False,
    ).last_hidden_state
    flat, targets = hidden.flatten(0, 1), tokens.flatten()
    values, choices = [], []
    for i in range(0, len(flat), _ROWS_OF_LOGITS):
        logits = network.lm_head(flat[i : i + _ROWS_OF_LOGITS])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        wanted = targets[i : i + _ROWS_OF_LOGITS]
        values.append(torch.stack([scores(logits, wanted), scores.best(logits, wanted)]).float())
        choices.append(logits.argmax(1))
    table = torch.cat(values, dim=1).clamp(min=_LEAST).view(2, *tokens.shape).cpu().numpy()
    chosen = torch.cat(choices).view(tokens.shape).cpu().numpy()
    return [
        Likely(table[0, row, :length], table[1, row, :length], chosen[row, :length])
        for row, length in enumerate(map(len, answers))
    ]
