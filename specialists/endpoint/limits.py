"""How fast requests may be sent: so many a minute, so many tokens a minute, and none during a pause.

Each rate is a token bucket that holds one request, kept as a virtual schedule (the generic cell rate
algorithm, ITU-T I.371): it stores only when the next request may go, so nothing has to refill it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Limits:
    """Shared by all threads of one specialist. None as a rate means no limit.

    `now` and `sleep` are the clock; what `sleep` raises (a wait that is called off) `wait` raises.
    Requests are spread evenly: a minute never holds more than `requests_per_minute` of them, nor more
    than `tokens_per_minute` tokens before its last request (a request larger than the rate still goes).
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._requests_free = self._tokens_free = self._paused_until = float("-inf")

    def wait(self, tokens: int) -> float:
        """Wait for the turn of a request that will use about so many tokens; the seconds that it took."""
        with self._lock:
            began = self._now()
            start = max(began, self._requests_free, self._tokens_free)
            self._requests_free = start + self._per_request
            self._tokens_free = start + self._per_token * tokens
        self._sleep_until(start)
        while self._now() < self._paused_until:  # a pause may begin while this one waits
            self._sleep_until(self._paused_until)
        return self._now() - began

    def correct(self, tokens: int) -> None:
        """A request took so many tokens more (or less, if negative) than it was let through with."""
        with self._lock:
            self._tokens_free += self._per_token * tokens

    def pause(self, seconds: float) -> None:
        """Let nothing start for so long: the server asked for it."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._now() + seconds)

    def _sleep_until(self, moment: float) -> None:
        seconds = moment - self._now()
        if seconds > 0:
            self._sleep(seconds)
