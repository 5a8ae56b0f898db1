"""`ChatTexts`: one description for each image of a sample, by a model behind an endpoint."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.entry_point import did_you_mean
from data_engine.errors import ImageError, RecipeError, SpecialistError
from data_engine.image import Image
from specialists.endpoint.answer import Answer, cleaned, whole_sentences
from specialists.endpoint.cache import AnswerCache, cache_folder
from specialists.endpoint.client import ChatClient
from specialists.endpoint.notes import FIELDS, notes
from specialists.endpoint.prompts import PROMPTS, SYSTEM
from specialists.endpoint.template import Template
from specialists.endpoint.usage import Usage
from specialists.said import Statement, statements

log = logging.getLogger(__name__)

_OURS = ("model", "messages", "temperature", "max_tokens", "stream", "n")
"""Parameters of a request that `parameters` may not set."""

_JPEG_QUALITY = 90

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
        _one_of("granularity", granularity, tuple(PROMPTS))
        _one_of("images", images, ("none", "full"))
        _one_of("unfinished", unfinished, ("cut", "drop"))
        _text("model", model)
        _number("share", share, 0, 1)
        _number("temperature", temperature, 0, 2, optional=True)
        for name, seconds in (("timeout", timeout), ("time_budget", time_budget)):
            _number(name, seconds, 0.01, 86_400)
        _number("back_off", back_off, 0, 60)
        for name, rate in (
            ("requests_per_minute", requests_per_minute),
            ("tokens_per_minute", tokens_per_minute),
        ):
            _number(name, rate, 0.01, 1e12, optional=True)
        for name, count, low, high in (
            ("max_side", max_side, 16, 8192),
            ("max_statements", max_statements, 1, 1000),
            ("max_statement_length", max_statement_length, 10, 10_000),
            ("max_length", max_length, 10, 100_000),
            ("concurrency", concurrency, 1, 1024),
            ("retries", retries, 0, 100),
            ("give_up_after", give_up_after, 1, 1_000_000),
        ):
            _number(name, count, low, high, whole=True)
        _number("max_tokens", max_tokens, 1, 1_000_000, whole=True, optional=True)
        self.granularity = granularity
        self.share = share
        self.images = images
        self.max_side = max_side
        self.sources = None if sources is None else frozenset(sources)
        self.max_statements = max_statements
        self.max_statement_length = max_statement_length
        self.max_length = max_length
        self.unfinished = unfinished
        self.concurrency = concurrency
        self.prices = _checked_prices(prices)
        words = PROMPTS[granularity] if prompt is None else _words("prompt", prompt)
        self.template = Template(words, FIELDS)
        if images == "none" and self.template.fields <= {"width", "height"}:
            raise RecipeError(
                "the prompt has no field that says anything of the image, and no image is sent",
                f"use some of {', '.join('{' + name + '}' for name in FIELDS[:5])}, or set `images: full`",
            )
        self.system = None if system is None else _words("system", system)
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
        if said is None and self.images == "none":
            raise SpecialistError(
                "a text is asked for from what others said, and nothing was given",
                "name specialists under this one's `needs`, or set `images: full`",
            )
        given = {} if said is None else statements(said, self.sources)
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
        values, shown = notes(
            self.template.fields,
            said,
            (image.width, image.height),
            self.max_statements,
            self.max_statement_length,
        )
        if self.images == "none" and not shown:
            return ImageError("nothing_said", "nothing was said of it that the prompt could show")
        prompt = self.template.fill(values)
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
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
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
        text = cleaned(answer.text)
        if not text:
            raise ImageError("empty_answer", f"the answer has no text (finish_reason {answer.finish_reason})")
        if answer.finish_reason != "length" and len(text) <= self.max_length:
            return text
        whole = whole_sentences(text, self.max_length) if self.unfinished == "cut" else ""
        if not whole:
            why = "max_tokens" if answer.finish_reason == "length" else "max_length"
            raise ImageError("unfinished_answer", f"it reached {why}: {text[:100]!r}")
        return whole

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


def in_sample(image_id: str, share: float) -> bool:
    """Whether an image is of the sample of a share of all images, by a digest of its id alone."""
    digest = hashlib.sha256(f"endpoint sample {image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def jpeg_url(image: Image, max_side: int) -> tuple[str, int]:
    """A data URL of the image as a JPEG, no side longer than `max_side`; and its pixels' number."""
    picture = image.pil
    picture.thumbnail((max_side, max_side), PIL.Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return url, picture.width * picture.height


def _words(name: str, value: str) -> str:
    """The value itself, or what the `.txt` file that it names holds."""
    _text(name, value)
    if "\n" in value or not value.endswith(".txt"):
        return value
    try:
        return Path(value).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the {name} {value}: {error}", "check the path") from error


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
        _number(f"prices.{name}", price, 0, 1e9)
    return dict(prices)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(f"{name} is {value!r}{did_you_mean(str(value), known)}", f"correct {name}")


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise RecipeError(f"{name} must be a text", f"write {name} as a string that is not empty")


def _number(
    name: str, value: Any, low: float, high: float, *, whole: bool = False, optional: bool = False
) -> None:
    if value is None and optional:
        return
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise RecipeError(
            f"{name} is {value!r}", f"it must be a {'whole ' if whole else ''}number in {low:g}..{high:g}"
        )
