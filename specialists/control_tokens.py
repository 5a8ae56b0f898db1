"""Text from data, kept from spelling a model's own tokens.

A tokenizer turns `<|im_end|>` into the token that ends a turn wherever it stands. A sign in a photo that says so
would end the question and begin an answer or an instruction of its own. The library can encode such words as
plain text, but not with every processor of images, so they are broken up before it sees them.
"""

from __future__ import annotations

import re
from typing import Any


class ControlTokens:
    """Those of a tokenizer, and of the processor around it where there is one.

    They are the special tokens, the placeholders of pictures and the like, and those added tokens that the chat
    template itself writes (of some models the marks of a turn or a thought are not special).
    """

    def __init__(self, tokenizer: Any, processor: Any, template: str) -> None:
        added = tokenizer.added_tokens_decoder.values()
        tokens = {token.content for token in added if token.special or token.content in template}
        tokens |= {
            str(getattr(processor, f"{kind}_token", None) or "") for kind in ("image", "video", "audio")
        }
        longest_first = sorted((token for token in tokens if token.strip()), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)", re.IGNORECASE)

    def broken_in(self, text: str) -> str:
        """`text` with a blank after the first character of each: it reads alike and is no token."""
        while self._pattern.search(text):
            text = self._pattern.sub(_broken, text)
        return text


def _broken(token: re.Match[str]) -> str:
    words = token[0]
    if len(words) == 1 or any(character.isspace() for character in words):
        return " "  # broken up it could be a token still
    return f"{words[0]} {words[1:]}"
