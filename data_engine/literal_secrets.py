"""Secrets that are written out where they would be stored: among a recipe's arguments, or in a URL.

A recipe stands in the metadata of every shard that it makes, a source's URL in every row of the index. So a secret
in one is refused, not blanked: a run that went on without it could not go on. (data_engine.blanked takes secrets
out of what is only told: a command line, an error.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HINT = "give it by an environment variable where the run takes place; see docs/security.md"

_WORDS = (
    r"(?:api[_-]?key|access[_-]?key(?:[_-]?id)?|secret|secret[_-]?key|token|password|passwd|credentials?)"
)
_NAME = re.compile(rf"(?:.*[_-])?(?:{_WORDS}|authorization)", re.IGNORECASE)
_PARAMETER = re.compile(rf"(?:.*[_-])?(?:{_WORDS}|sig|signature)|AWSAccessKeyId", re.IGNORECASE)

_KEY = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}\b|hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_\w{30,}|AIza[\w-]{35}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
"""As OpenAI, AWS, Hugging Face, GitHub, Google and Slack make theirs; a JSON web token; a private key."""


def secret_in_url(url: str) -> str:
    """What of a URL is a secret (`the password in its address`), or empty."""
    if "://" not in url:
        return ""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return ""
    if password and parts.scheme != "github":  # which writes its repository there
        return "the password in its address"
    for name, value in parse_qsl(parts.query):
        if value and _PARAMETER.fullmatch(name):
            return f"its parameter {name[:40]!r}"
    return ""


def secrets_in(value: Any, place: str) -> Iterator[str]:
    """The places (`specialists.look.args.api_key`) of what is taken for a secret. None of them repeats one."""
    if isinstance(value, dict):
        for name, item in value.items():
            here = f"{place}.{name}"[:200]
            if isinstance(item, str) and item.strip() and _NAME.fullmatch(str(name)):
                yield here
            else:
                yield from secrets_in(item, here)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from secrets_in(item, f"{place}.{number}")
    elif isinstance(value, str) and (_KEY.search(value) or secret_in_url(value)):
        yield place
