"""What the configuration that comes with an open_clip checkpoint may ask of its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_engine.errors import ModelLoadError

CONFIG = "open_clip_config.json"

_TOKENIZER_SETTINGS = frozenset({"clean", "language", "strip_sep_token"})
"""open_clip's own. It hands all that it finds to `AutoTokenizer`, where `trust_remote_code` would run a module that
lies in the checkpoint."""


def check_config(name: str) -> None:
    """Raises ModelLoadError where the checkpoint's tokenizer asks for more than open_clip's settings.

    `name` is a model's name as open_clip takes it; one that is built in has open_clip's own configuration.
    """
    schema, colon, place = name.partition(":")
    if not colon or schema not in ("local-dir", "hf-hub"):
        return
    found: Any = json.loads(_path(schema, place).read_text(encoding="utf-8"))
    asked = found.get("model_cfg", {}).get("text_cfg", {}).get("tokenizer_kwargs", {})
    foreign = sorted(map(str, set(asked) - _TOKENIZER_SETTINGS))
    if foreign:
        raise ModelLoadError(
            f"cannot load {name}: its {CONFIG} gives the tokenizer {foreign[0][:60]!r}, which is not passed on",
            "take another checkpoint, or remove that setting: nothing that comes with weights may ask for code",
        )


def _path(schema: str, place: str) -> Path:
    if schema == "local-dir":
        return Path(place) / CONFIG
    from open_clip.pretrained import download_pretrained_from_hf

    return Path(download_pretrained_from_hf(place, filename=CONFIG))
