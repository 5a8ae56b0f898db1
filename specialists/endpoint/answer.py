"""What a chat-completions server answered, and the description in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from specialists.endpoint.characters import one_line

_MOST_KEPT = 100_000
"""Characters of an answer that are kept: as many as the annotations table would hold."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion. `text` is as the model wrote it; token counts are None where the server gives none.

    `finish_reason` is the protocol's (`stop`, `length`, `content_filter`, ...), or `refusal` where the
    message has a refusal in the place of content.
    """

    text: str
    finish_reason: str
    model: str
    input_tokens: int | None
    output_tokens: int | None


def parse(body: bytes) -> Answer:
    """The first choice of a response's body. Raises ValueError that says in one line what is wrong."""
    try:
        response = json.loads(body)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except ValueError:
        raise ValueError("it is not JSON") from None
    if not isinstance(response, dict):
        raise ValueError("its JSON is no object")
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError(error_of(response) or "it has no choices")
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    if not isinstance(message, dict):
        raise ValueError("its choice has no message")
    text = _content(message.get("content"))
    reason = choices[0].get("finish_reason")
    if not text and message.get("refusal"):
        reason = "refusal"
    usage = response.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    model = response.get("model")
    return Answer(
        text[:_MOST_KEPT],
        one_line(reason, 40) if isinstance(reason, str) else "",
        one_line(model, 200) if isinstance(model, str) else "",
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


def error_of(response: Any) -> str:
    """The message of an error response, on one line; empty where it has none."""
    error = response.get("error", response) if isinstance(response, dict) else response
    if isinstance(error, dict):
        error = error.get("message")
    return one_line(error, 300) if isinstance(error, str) else ""


def _content(content: Any) -> str:
    if isinstance(content, list):  # some servers answer in parts, as requests may be written
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    # Lone surrogates, which JSON can spell, can be written to no file.
    return content.encode("utf-8", "replace").decode("utf-8") if isinstance(content, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


_THOUGHT = re.compile(r"\s*<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL)
_YES = r"(?:(?:sure|certainly|of course|absolutely|okay|ok)(?:\s+thing)?\s*[,.!:-]+\s*)"
_PREAMBLE = re.compile(
    rf"{_YES}?(?:here(?:\s+is|['’]s|\s+are)|below\s+is)\b[^\n:.]{{0,120}}:\s+"
    rf"|{_YES}?(?:this|the\s+following)\s+is\b[^\n:.]{{0,60}}\b(?:description|caption)\b[^\n:.]{{0,60}}:\s+"
    rf"|{_YES}(?=\S)"
    r"|[#*_\s]*(?:(?:more\s+)?detailed\s+)?(?:image\s+)?(?:description|caption)[*_]*\s*:[*_]*\s+",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


def cleaned(text: str) -> str:
    """The description alone, on one line: what models put around it is taken off, its words are kept.

    Taken off, as often as they stand there: a leading thought (`<think>...</think>`), a code fence around
    the whole, a preamble ("Sure! Here is a detailed description of the image:"), a label
    ("**Description:**"), quotation marks around the whole. What is left is freed of invisible characters
    (`one_line`). Cleaning a cleaned text changes nothing.
    """
    while True:
        before = text
        if thought := _THOUGHT.match(text):
            text = text[thought.end() :]
        # Line breaks are needed until here: a fence's first line is its language.
        text = _unquoted(_unfenced(text.strip()))
        if preamble := _PREAMBLE.match(text):
            text = text[preamble.end() :]
        if text == before:
            line = one_line(text)
            if line == text:
                return line
            text = line


def _unfenced(text: str) -> str:
    """What stands between the lines of a code fence around the whole; the closing one may be missing."""
    first, line_break, rest = text.partition("\n")
    if not line_break or not first.startswith("```") or "`" in first[3:]:
        return text
    return rest.rstrip().removesuffix("```").strip()


def _unquoted(text: str) -> str:
    """Without marks that open and close the whole; `"A" and "B"` is no such text."""
    closing = _QUOTES.get(text[:1])
    if closing is None or len(text) < 2 or text[-1] != closing:
        return text
    inside = text[1:-1]
    return text if text[0] in inside or closing in inside else inside.strip()


_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*(?=\s|$)|[。！？][”’」』）]*")


def whole_sentences(text: str, limit: int) -> str:
    """The start of `text` up to the last end of a sentence within `limit` characters; empty if none is."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if match.end() <= limit]
    return text[: ends[-1]] if ends else ""
