"""Asks a chat-completions endpoint, patiently: what may pass is tried again, what will not ends the run.

Back-off is exponential with full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture
Blog, 2015), and never shorter than the server's Retry-After (RFC 9110, section 10.2.3).
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from data_engine import __version__
from data_engine.errors import ImageError, RecipeError, SpecialistError
from specialists.endpoint.answer import Answer, error_of, parse
from specialists.endpoint.characters import one_line
from specialists.endpoint.exchange import Endpoint, Reply
from specialists.endpoint.limits import Limits

_LONGEST_BACK_OFF = 60.0

_PASSING = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may be gone the next time."""

_ABOUT_THE_REQUEST = frozenset({400, 413, 422})
"""Statuses by which a server refuses one request (too long, a content filter), or a wrong setting."""


class ChatClient:
    """For any number of threads. `concurrency` is theirs to bound; rates and failures are counted here.

    - `api_key_env`: the environment variable that holds the bearer token. The token is nowhere but in the
      request's header: whatever a server sends back is searched for it first.
    - `timeout`: seconds for one attempt; `time_budget`: for all attempts of one request with the waits
      between them (waiting for a rate limit of its own is not counted); `retries`: after the first.
    - `back_off`: seconds that the first wait is at most; each later one may be twice as long.
    - `give_up_after`: when so many requests in a row failed, the run ends: the endpoint is down.

    Raises RecipeError, or SpecialistError where the variable is not set.
    """

    def __init__(
        self,
        base_url: str,
        api_key_env: str | None = None,
        *,
        timeout: float = 120,
        time_budget: float = 300,
        retries: int = 5,
        back_off: float = 1.0,
        give_up_after: int = 10,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._key = None if api_key_env is None else _key_in(api_key_env)
        headers = {"User-Agent": f"florence-data-engine/{__version__}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self.endpoint = Endpoint(base_url, headers)
        self._key_name = api_key_env
        self._timeout = timeout
        self._time_budget = time_budget
        self._retries = retries
        self._back_off = back_off
        self._give_up_after = give_up_after
        self._now = now
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._limits = Limits(requests_per_minute, tokens_per_minute, now, self._rest)
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self.answered = False

    def ask(self, body: bytes, tokens: int) -> Answer:
        """One request's answer. `tokens` is about what it will use, for the rate limit.

        Raises ImageError (`no_answer`, `refused`) for this request alone, SpecialistError for all.
        """
        deadline = None
        attempt = 0
        while True:
            waited = self._limits.wait(tokens)
            now = self._now()
            deadline = now + self._time_budget if deadline is None else deadline + waited
            asked: float | None = None
            try:
                reply = self.endpoint.post(body, max(0.01, min(self._timeout, deadline - now)))
            except OSError as error:
                problem = one_line(str(error), 200) or type(error).__name__
            else:
                answer = self._judged(reply)
                if isinstance(answer, Answer):
                    self._count_answer(answer, tokens)
                    return answer
                problem, asked = answer
            self._rest(0)
            attempt += 1
            pause = random.uniform(0, min(self._back_off * 2 ** (attempt - 1), _LONGEST_BACK_OFF))
            if asked is not None:
                self._limits.pause(min(asked, self._time_budget))
                pause += asked
            left = deadline - self._now() - pause
            if attempt > self._retries or left <= 0:
                tries = f"{attempt} attempt{'s' if attempt > 1 else ''}"
                if asked is not None and left <= 0:
                    problem += f"; it asks to wait {asked:.0f} s"
                raise self._failure(ImageError("no_answer", f"no answer in {tries}; the last: {problem}"))
            self._rest(pause)

    def stop(self) -> None:
        """End every wait and every exchange, in all threads: nothing can be asked any more."""
        self._stopped.set()
        self.endpoint.abort()

    def _rest(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)
        if self._stopped.is_set():
            raise SpecialistError("the run has ended")

    def _judged(self, reply: Reply) -> Answer | tuple[str, float | None]:
        """An answer, or what is wrong for now with the seconds to wait that the server asks for."""
        body, status = self._without_key(reply.body), reply.status
        if 200 <= status < 300:
            try:
                answer = parse(body)
            except ValueError as error:
                kind = one_line(reply.headers.get("content-type", "no type"), 60)
                return self._said(f"HTTP {status} with {kind} that is no answer: {error}"), None
            return replace(answer, text=self._said(answer.text), model=self._said(answer.model))
        try:
            response = json.loads(body)
        except (ValueError, RecursionError):
            response = None
        code = _code(response)
        problem = self._said(f"HTTP {status}: {error_of(response)}").removesuffix(": ")
        if status in _ABOUT_THE_REQUEST:
            raise self._failure(ImageError("refused", problem))
        if (status in _PASSING or status >= 500) and code != "insufficient_quota":
            return problem, _retry_after(reply.headers.get("retry-after"))
        raise SpecialistError(f"{self.endpoint.shown} answers {problem}", self._hint(status))

    def _hint(self, status: int) -> str:
        if status in (401, 403):
            if self._key_name is None:
                return "name the environment variable that holds the key as `api_key_env`"
            return f"check the key in {self._key_name}, and what it may be used for"
        if status == 404:
            return "check base_url (it usually ends in /v1) and the model's name"
        if 300 <= status < 400:
            return "redirects are not followed: give as base_url the address that it really has"
        if status in (402, 429):
            return "its quota is used up: what was answered is kept, and running again goes on"
        return "check base_url, the model and the parameters"

    def _count_answer(self, answer: Answer, tokens: int) -> None:
        with self._lock:
            self._failed_in_a_row = 0
            self.answered = True
        if answer.input_tokens is not None and answer.output_tokens is not None:
            self._limits.correct(answer.input_tokens + answer.output_tokens - tokens)

    def _failure(self, error: ImageError) -> ImageError | SpecialistError:
        """The error of one request, or of the run when too many failed in a row."""
        with self._lock:
            self._failed_in_a_row += 1
            too_many = self._failed_in_a_row >= self._give_up_after
            ever = self.answered
        # Before anything was answered two are enough: a wrong setting fails every request.
        if too_many or (not ever and self._failed_in_a_row >= 2):
            return SpecialistError(
                f"{self.endpoint.shown} failed {self._failed_in_a_row} requests in a row; "
                f"the last: {error.message}",
                "check that it runs, base_url, the model and the parameters; what was answered is kept, "
                "and running again goes on",
            )
        return error

    def _without_key(self, body: bytes) -> bytes:
        return body if self._key is None else body.replace(self._key.encode(), b"[key]")

    def _said(self, text: str) -> str:
        """What a server says, which may repeat what it was sent (and spell it in JSON's escapes)."""
        return text if self._key is None else text.replace(self._key, "[key]")


def _key_in(name: str) -> str:
    """The key in an environment variable. Errors repeat neither it nor what may be one."""
    # A key that was written in the place of the name is told by its small letters.
    if not isinstance(name, str) or not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        raise RecipeError(
            "api_key_env is no name of an environment variable",
            "put the key into a variable, such as OPENAI_API_KEY, and give that name: never the key",
        )
    key = os.environ.get(name, "").strip()
    if not key:
        raise SpecialistError(
            f"the environment variable {name} is not set",
            "set it to the endpoint's key where the specialist runs",
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise SpecialistError(
            f"the key in {name} has characters that no key has", "it must be printable ASCII without spaces"
        )
    return key


def _code(response: object) -> object:
    error = response.get("error", response) if isinstance(response, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def _retry_after(value: str | None) -> float | None:
    """Seconds, from either form of the header; None where it has neither."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
