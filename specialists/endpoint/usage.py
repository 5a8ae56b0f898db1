"""How many requests and tokens, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from specialists.endpoint.answer import Answer


@dataclass(slots=True)
class Usage:
    """Sums over answers, as the endpoint itself reports tokens in `usage`.

    `uncounted` are answers whose server reported none: their tokens and cost are missing here. Attempts
    that got no answer are reported by nobody.
    """

    answers: int = 0
    uncounted: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, answer: Answer) -> None:
        self.answers += 1
        self.uncounted += answer.input_tokens is None or answer.output_tokens is None
        self.input_tokens += answer.input_tokens or 0
        self.output_tokens += answer.output_tokens or 0

    def cost(self, prices: Mapping[str, float]) -> float:
        """In the currency of `prices`: `input` and `output`, each per million tokens.

        A discount for prompts that the provider has cached is not known here.
        """
        spent = self.input_tokens * prices.get("input", 0) + self.output_tokens * prices.get("output", 0)
        return spent / 1e6
