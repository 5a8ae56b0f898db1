"""`ChatTexts`: one description for each image of a sample, by a model behind an endpoint."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.entry_point import did_you_mean
from data_engine.errors import ImageError, RecipeError
from data_engine.image import Image
from specialists.endpoint.answer import Answer
from specialists.endpoint.asking import Asking
from specialists.endpoint.cache import AnswerCache, cache_folder
from specialists.endpoint.checks import a_text, number
from specialists.endpoint.client import ChatClient
from specialists.endpoint.picture import jpeg_url
from specialists.endpoint.prompts import SYSTEM
from specialists.endpoint.sample import in_sample
from specialists.endpoint.usage import Usage
from specialists.said import Statement

log = logging.getLogger(__name__)

_OURS = ("model", "messages", "temperature", "max_tokens", "stream", "n")
"""Parameters of a request that `parameters` may not set."""

_PIXELS_PER_TOKEN = 750
"""A guess for the rate limit only, corrected by what the server reports: published counts lie near it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    image: Image
    prompt: str
    key: str

    @property
    def place(self) -> tuple[str, str]:
        return self.image.image_id, self.key


class ChatTexts:
    """A text of the given granularity for each image of a sample; nothing for the others.

    - `base_url`: up to and with `/v1`; `model`: as the server calls it; `granularity`: `detailed` or
      `more_detailed`. One specialist of a recipe writes one of them.
    - `share`: of the images, chosen by a digest of their id: the same ones in every run, and those of a
      smaller share are among those of a larger one.
    - `prompt`: a template with the fields of `notes.FIELDS`; without it the one of `prompts.PROMPTS`.
      `system`: the system message; null sends none. Either may be a `.txt` file that holds the words.
    - `images`: `none` sends only what was said of the image (by `needs`), `full` the image too, as a JPEG
      shrunk to `max_side` pixels.
    - `sources`: of the statements of `needs`, only those by these specialists. `max_statements` per field
      of the prompt, `max_statement_length` in characters.
    - `temperature`, `max_tokens`: null leaves them to the server. `parameters`: further ones of the
      protocol or the server, such as `top_p`.
    - `max_length`: of the text, in characters. `unfinished`: what becomes of a text that reached
      `max_tokens` or `max_length`: `cut` keeps its whole sentences, `drop` makes it a failure.
    - `api_key_env`, `timeout`, `time_budget`, `retries`, `back_off`, `give_up_after`,
      `requests_per_minute`, `tokens_per_minute`: as ChatClient says.
    - `concurrency`: requests at once. A batch holds so many only if `batch` times `share` does.
    - `cache`: where answers are kept, as `cache.cache_folder` says; null keeps none.
    - `prices`: `input` and `output`, per million tokens, for the cost in the log.

    Raises RecipeError, SpecialistError (no key) or StorageError (a cache that cannot be written).
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        granularity: str,
        *,
        share: float = 0.01,
        prompt: str | None = None,
        system: str | None = SYSTEM,
        images: str = "none",
        max_side: int = 768,
        sources: list[str] | None = None,
        max_statements: int = 30,
        max_statement_length: int = 200,
        temperature: float | None = 0.0,
        max_tokens: int | None = 400,
        parameters: Mapping[str, Any] | None = None,
        max_length: int = 2000,
        unfinished: str = "cut",
        api_key_env: str | None = None,
        concurrency: int = 8,
        timeout: float = 120,
        time_budget: float = 300,
        retries: int = 5,
        back_off: float = 1.0,
        give_up_after: int = 10,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        cache: str | None = "answers",
        prices: Mapping[str, float] | None = None,
    ) -> None:
        self.needs_pixels = images == "full"
        self.asking = Asking(
            granularity,
            prompt,
            system,
            images,
            sources,
            max_statements,
            max_statement_length,
            max_length,
            unfinished,
        )
        a_text("model", model)
        number("share", share, 0, 1)
        number("temperature", temperature, 0, 2, optional=True)
        for name, seconds in (("timeout", timeout), ("time_budget", time_budget)):
            number(name, seconds, 0.01, 86_400)
        number("back_off", back_off, 0, 60)
        for name, rate in (
            ("requests_per_minute", requests_per_minute),
            ("tokens_per_minute", tokens_per_minute),
        ):
            number(name, rate, 0.01, 1e12, optional=True)
        for name, count, low, high in (
            ("max_side", max_side, 16, 8192),
            ("concurrency", concurrency, 1, 1024),
            ("retries", retries, 0, 100),
            ("give_up_after", give_up_after, 1, 1_000_000),
        ):
            number(name, count, low, high, whole=True)
        number("max_tokens", max_tokens, 1, 1_000_000, whole=True, optional=True)
        self.granularity = granularity
        self.share = share
        self.images = images
        self.max_side = max_side
        self.concurrency = concurrency
        self.prices = _checked_prices(prices)
        self.settings: dict[str, Any] = {"model": model, **_checked_parameters(parameters)}
        if temperature is not None:
            self.settings["temperature"] = temperature
        if max_tokens is not None:
            self.settings["max_tokens"] = max_tokens
        self.client = ChatClient(
            base_url,
            api_key_env,
            timeout=timeout,
            time_budget=time_budget,
            retries=retries,
            back_off=back_off,
            give_up_after=give_up_after,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        folder = cache_folder(cache)
        self.cache = None if folder is None else AnswerCache(folder)
        self.usage = Usage()
        self._recent: dict[tuple[str, str], Answer | ImageError] = {}

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One text per image of the sample, with no parent.

        An image's failure is raised after all others have been asked. The runner then halves the batch,
        and the halves are answered from what the whole gave: nothing is sent twice.
        """
        given = self.asking.statements(said)
        requests = [self._request(image, given.get(image.image_id, [])) for image in images]
        wanted = [request for request in requests if isinstance(request, _Request)]
        if not {request.place for request in wanted} <= self._recent.keys():
            self._recent = self._answers(wanted)
        made: list[list[Annotation]] = []
        for request in requests:
            answer = self._recent[request.place] if isinstance(request, _Request) else request
            if isinstance(answer, ImageError):
                if len(images) == 1 and isinstance(request, _Request):
                    del self._recent[request.place]  # told for good: should it come again, it is asked again
                raise answer
            text = None if answer is None else self._text(answer)
            made.append([] if text is None else [Annotation("text", text, self.granularity)])
        return made

    def _request(self, image: Image, said: Sequence[Statement]) -> _Request | ImageError | None:
        """None for an image that is not of the sample."""
        if not in_sample(image.image_id, self.share):
            return None
        try:
            prompt = self.asking.prompt(image, said)
        except ImageError as error:
            return error
        # The image stands for its bytes: a cached answer is found without encoding anything.
        picture = f"{image.image_id}/{self.max_side}" if self.images == "full" else None
        body = json.dumps(self._body(prompt, picture), sort_keys=True)
        return _Request(image, prompt, hashlib.sha256(body.encode()).hexdigest())

    def _body(self, prompt: str, picture: str | None) -> dict[str, Any]:
        """The request. `picture` is a URL, or what stands for one in the cache's key."""
        content: Any = prompt
        if picture is not None:
            content = [
                {"type": "image_url", "image_url": {"url": picture}},
                {"type": "text", "text": prompt},
            ]
        messages = [{"role": "user", "content": content}]
        if self.asking.system is not None:
            messages.insert(0, {"role": "system", "content": self.asking.system})
        return {**self.settings, "messages": messages}

    def _answers(self, wanted: Sequence[_Request]) -> dict[tuple[str, str], Answer | ImageError]:
        """The answer to each request, or why it has none. Equal requests are sent once."""
        found: dict[str, Answer | ImageError] = {}
        todo: list[_Request] = []
        for request in {request.key: request for request in wanted}.values():
            kept = None if self.cache is None else self.cache.get(request.key)
            if kept is None:
                todo.append(request)
            else:
                found[request.key] = kept
        cached = len(found)
        try:
            # Until one was answered requests go alone: a wrong setting costs one or two, not `concurrency`.
            while todo and not self.client.answered:
                request = todo.pop(0)
                found[request.key] = self._ask(request)
            with ThreadPoolExecutor(self.concurrency, thread_name_prefix="endpoint") as threads:
                try:
                    asked = {threads.submit(self._ask, request): request.key for request in todo}
                    for done in wait(asked, return_when=FIRST_EXCEPTION).done:
                        found[asked[done]] = done.result()
                except BaseException:
                    # Ctrl-C or the end of the run: without this, leaving the block waits for every answer.
                    self.client.stop()
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            self._log(cached, [found[key] for key in list(found)[cached:]])
        return {request.place: found[request.key] for request in wanted}

    def _ask(self, request: _Request) -> Answer | ImageError:
        tokens = len(request.prompt) // 4 + int(self.settings.get("max_tokens", 0))
        picture = None
        if self.images == "full":
            picture, pixels = jpeg_url(request.image, self.max_side)
            tokens += pixels // _PIXELS_PER_TOKEN
        try:
            answer = self.client.ask(json.dumps(self._body(request.prompt, picture)).encode(), tokens)
        except ImageError as error:
            return error
        if self.cache is not None:
            self.cache.put(request.key, answer)
        return answer

    def _text(self, answer: Answer) -> str:
        """The description in an answer. Raises ImageError."""
        if answer.finish_reason in ("content_filter", "refusal"):
            raise ImageError("refused", f"the model gave no text: {answer.finish_reason}")
        limit = "max_tokens" if answer.finish_reason == "length" else None
        return self.asking.description(answer.text, f"finish_reason {answer.finish_reason}", limit)

    def _log(self, cached: int, new: Sequence[Answer | ImageError]) -> None:
        """One line per batch that had anything to ask; counts only."""
        answers = [answer for answer in new if isinstance(answer, Answer)]
        for answer in answers:
            self.usage.add(answer)
        if not cached and not new:
            return
        total = self.usage
        log.info(
            "%s: %d answered (%d of them unfinished), %d from the cache, %d failed; "
            "since the start %d answers, %d input and %d output tokens%s",
            self.settings["model"],
            len(answers),
            sum(answer.finish_reason == "length" for answer in answers),
            cached,
            len(new) - len(answers),
            total.answers,
            total.input_tokens,
            total.output_tokens,
            f", cost {total.cost(self.prices):.4f}" if self.prices else "",
        )


def _checked_parameters(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise RecipeError("parameters must be a mapping", "write it like {top_p: 0.9}")
    for name in parameters:
        if name in _OURS:
            raise RecipeError(
                f"parameters must not have {name!r}", "one answer is asked for; the rest are arguments"
            )
    try:
        json.dumps(dict(parameters), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"parameters cannot be written as JSON: {error}", "use plain values") from error
    return dict(parameters)


def _checked_prices(prices: Mapping[str, float] | None) -> dict[str, float]:
    if prices is None:
        return {}
    if not isinstance(prices, Mapping):
        raise RecipeError("prices must be a mapping", "write it like {input: 0.15, output: 0.6}")
    for name, price in prices.items():
        if name not in ("input", "output"):
            raise RecipeError(
                f"prices has no {name!r}{did_you_mean(str(name), ('input', 'output'))}",
                "give prices per million tokens as {input: 0.15, output: 0.6}",
            )
        number(f"prices.{name}", price, 0, 1e9)
    return dict(prices)
