"""Log lines for people, or with `FDE_LOG=json` one JSON object per line for whatever collects them.

Every object has `time` (ISO, UTC), `level` and `message`; beside these whatever is known: `run_id`, `stage`, `shard`, the
counts of a stage, `hint` and `exit_code` of the error that ended a command. Secrets are blanked.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from data_engine.blanked import blanked
from data_engine.terminal_text import plain_lines

_OWN_HANDLERS = ("huggingface_hub", "transformers", "spacy", "weasel")
"""Loggers of packages that write their lines to standard error by themselves, once they are imported."""

FIELDS = "fde"
"""The attribute of a log record that holds what is known beside its message."""


def as_json() -> bool:
    """Whether lines are JSON objects: then nothing else is written to standard error."""
    return os.environ.get("FDE_LOG", "").lower() == "json"


def about(**known: Any) -> dict[str, dict[str, Any]]:
    """The `extra` of a log call."""
    return {FIELDS: {key: value for key, value in known.items() if value not in (None, "")}}


class JsonLine(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return blanked(json.dumps(told, default=str))


class PlainLine(logging.Formatter):
    """A record for people: nothing in it is an order to a terminal, and secrets are blanked."""

    def format(self, record: logging.LogRecord) -> str:
        return plain_lines(blanked(super().format(record)))


class _Passing(logging.Logger):
    """A logger that takes no handler of its own: its lines go to the handlers above it, and come once."""

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - logging's name
        pass

    @property
    def propagate(self) -> bool:
        return True

    @propagate.setter
    def propagate(self, value: bool) -> None:
        pass


def set_up() -> None:
    """Send this project's log lines to standard error; of other packages only warnings."""
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        # It may be there already, and gets its handler when the package is imported.
        logger.__class__ = _Passing
    logging.captureWarnings(as_json())  # Python's own warnings would be lines of text
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine() if as_json() else PlainLine("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("data_engine").setLevel(logging.DEBUG if as_json() else logging.INFO)
