"""Secrets taken out of a text before it is stored or shown: a command line, a recipe, an error, a URL.

What is taken for a secret: the user information of a URL, the value of a URL's parameter or of an option or JSON
key that is named like one, and the values of this process's environment variables that are named like one.
"""

from __future__ import annotations

import os
import re

BLANK = "***"

_NAME = r"[\w.-]*(?:api_?key|access_?key|token|secret|password|passwd|credentials?|signature)"
_USER_INFORMATION = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@\"']+@")
_PARAMETER = re.compile(rf"([?&]{_NAME}=)[^&\s#\"']+", re.IGNORECASE)
_OPTION = re.compile(rf"(--{_NAME}[= ])\S+", re.IGNORECASE)
_JSON = re.compile(rf"(\"{_NAME}\"\s*:\s*)\"(?:[^\"\\]|\\.)*\"", re.IGNORECASE)
_VARIABLE = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_ID)?$", re.IGNORECASE)

_SHORTEST = 8
"""Characters of an environment variable's value below which it is too likely to be part of a plain word."""


def blanked(text: str) -> str:
    """The text with `***` in place of each secret. A key's name, such as `api_key_env: MY_KEY`, stays."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _VARIABLE.search(name):
            text = text.replace(value, BLANK)
    text = _USER_INFORMATION.sub(rf"\1{BLANK}@", text)
    text = _PARAMETER.sub(rf"\1{BLANK}", text)
    text = _OPTION.sub(rf"\1{BLANK}", text)
    return _JSON.sub(rf'\1"{BLANK}"', text)
