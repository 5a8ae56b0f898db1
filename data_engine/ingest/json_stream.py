"""Elements of the arrays of one big JSON object, one at a time: Objects365's file has several GB."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import IO, Any

from data_engine.errors import SourceError

_CHUNK = 1 << 20
_LARGEST = 256 << 20
_SPACE = " \t\r\n"


def array_elements(file: IO[str], names: Collection[str], what: str) -> Iterator[tuple[str, Any, str]]:
    """(name, element, its JSON text) for each element of the top-level arrays called `names`.

    Other values are passed over. Memory holds one chunk and the largest single value. `what` names the
    file in errors. Raises SourceError where the text is not a JSON object.
    """
    return _Reader(file, what).elements(names)


class _Reader:
    def __init__(self, file: IO[str], what: str) -> None:
        self.file = file
        self.what = what
        self.text = ""
        self.at = 0
        self.passed = 0
        self.ended = False
        self.decoder = json.JSONDecoder()

    def elements(self, names: Collection[str]) -> Iterator[tuple[str, Any, str]]:
        self._expect("{")
        if self._peek() == "}":
            return
        while True:
            name, _ = self._value()
            self._expect(":")
            if self._peek() == "[":
                self._expect("[")
                more = self._peek() != "]"
                while more:
                    value, text = self._value()
                    if name in names:
                        yield name, value, text
                    more = self._peek() != "]"
                    if more:
                        self._expect(",")
                self._expect("]")
            else:
                self._value()
            if self._peek() == "}":
                return
            self._expect(",")

    def _more(self) -> None:
        """Drop what was read and append at least as much again, so that re-parsing stays linear."""
        left = self.text[self.at :]
        try:
            chunk = self.file.read(max(_CHUNK, len(left)))
        except UnicodeDecodeError as error:
            raise self._bad(f"not UTF-8: {error.reason}") from error
        self.passed += self.at
        self.text, self.at, self.ended = left + chunk, 0, not chunk

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            self._more()

    def _expect(self, character: str) -> None:
        found = self._peek()
        if found != character:
            raise self._bad(f"{character!r} expected, found {found or 'the end'!r}")
        self.at += 1

    def _value(self) -> tuple[Any, str]:
        self._peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # An error may only mean that the value goes on in the next chunk.
                if self.ended or len(self.text) - self.at > _LARGEST:
                    raise self._bad(error.msg) from error
            except (RecursionError, ValueError) as error:
                raise self._bad(str(error)) from error
            else:
                # A number near the end of the text may go on in the next chunk, as 1, 1. and 1e+ do.
                if end < len(self.text) - 2 or self.ended:
                    text, self.at = self.text[self.at : end], end
                    return value, text
            self._more()

    def _bad(self, why: str) -> SourceError:
        return SourceError(
            f"{self.what} is not the JSON it should be: {why} (character {self.passed + self.at:,})",
            "mend the file, or download it again",
        )
