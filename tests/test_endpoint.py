"""Texts by an endpoint: a real server on this machine answers, misbehaves and counts."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import shutil
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.entry_point import code_version, signature
from data_engine.errors import ImageError, RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart, read_recipe
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from specialists.endpoint import ChatTexts, spent
from specialists.endpoint.client import ChatClient
from specialists.endpoint.notes import FIELDS
from tests.chat_server import (
    Asked,
    ChatServer,
    Move,
    answer,
    cut_before,
    cut_within,
    error,
    hang,
    reply,
    said,
    serving,
    trickle,
)
from tests.ports import deaf_port
from tests.test_endpoint_parts import Clock
from tests.toy_sources import write_pictures

KEY = "sk-toy-0123456789/secret"
TEXT = "A red cup stands on a table."


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TOY_KEY", KEY)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with serving() as server:
        yield server


def specialist(chat: ChatServer, **args: Any) -> ChatTexts:
    chosen = {"share": 1.0, "back_off": 0.01, "cache": None, "granularity": "detailed", **args}
    return ChatTexts(chat.url, "toy", **chosen)


def batch(count: int, text: str = "cup {}") -> tuple[list[Image], pa.Table]:
    """Images that differ, and a brief text of each."""
    rows = AnnotationRows("captions")
    images = [Image(f"{n:032x}", np.full((40, 60, 3), n, np.uint8)) for n in range(count)]
    for n, image in enumerate(images):
        rows.add(image.image_id, [Annotation("text", text.format(n), "brief")])
    return images, rows.table()


def texts(made: list[list[Annotation]]) -> list[str | None]:
    assert all(
        (a.kind, a.parent, a.box, a.score) == ("text", None, None, None) for some in made for a in some
    )
    return [some[0].text if some else None for some in made]


def one(chat: ChatServer, **args: Any) -> str | None:
    return texts(specialist(chat, **args)(*batch(1)))[0]


# --- what is sent


def test_a_request_is_what_the_recipe_says(chat: ChatServer) -> None:
    made = specialist(
        chat,
        prompt="About {brief} {{x}}",
        system="Be brief.",
        temperature=None,
        max_tokens=70,
        parameters={"top_p": 0.9, "chat_template_kwargs": {"enable_thinking": False}},
        api_key_env="TOY_KEY",
    )(*batch(1))
    assert texts(made) == [TEXT] and made[0][0].granularity == "detailed"
    (asked,) = chat.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["content-type"] == "application/json"
    assert asked.body == {
        "model": "toy",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": 'About <brief>\n"cup 0"\n</brief> {x}'},
        ],
        "max_tokens": 70,
        "top_p": 0.9,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_without_a_key_none_is_sent_and_a_base_url_may_be_the_whole_address(chat: ChatServer) -> None:
    made = ChatTexts(chat.url + "/chat/completions", "toy", "more_detailed", share=1, system=None, cache=None)
    assert made(*batch(1))[0][0].granularity == "more_detailed"
    assert chat.asked[0].path == "/v1/chat/completions"
    assert "authorization" not in chat.asked[0].headers
    assert [m["role"] for m in chat.asked[0].body["messages"]] == ["user"]
    assert chat.asked[0].body["temperature"] == 0


def test_an_image_is_sent_as_a_small_jpeg_when_the_recipe_says_so(chat: ChatServer) -> None:
    pixels = np.zeros((200, 400, 3), np.uint8)
    pixels[:, 200:] = 255
    made = specialist(chat, images="full", max_side=100, prompt="What is it?")(
        [Image("a" * 32, pixels)], None
    )
    assert texts(made) == [TEXT]
    image, text = chat.asked[0].body["messages"][1]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    head, _, data = image["image_url"]["url"].partition(",")
    assert (image["type"], head) == ("image_url", "data:image/jpeg;base64")
    with PIL.Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert (sent.format, sent.size) == ("JPEG", (100, 50))
        seen = np.asarray(sent)
    assert seen[:, :45].mean() < 10 and seen[:, 55:].mean() > 245


def test_a_prompt_may_lie_in_a_file(chat: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("From the file: {brief}")
    (tmp_path / "be.txt").write_text("Be {as you are}.")
    one(chat, prompt=str(tmp_path / "ask.txt"), system=str(tmp_path / "be.txt"))
    assert chat.asked[0].prompt.startswith("From the file: <brief>")
    assert chat.asked[0].body["messages"][0]["content"] == "Be {as you are}."
    with pytest.raises(RecipeError, match="cannot read the prompt"):
        specialist(chat, prompt=str(tmp_path / "other.txt"))


def test_only_the_sample_is_asked_for_and_the_rest_gets_no_row(chat: ChatServer) -> None:
    images, rows = batch(60)
    made = texts(specialist(chat, share=0.3)(images, rows))
    assert 0 < sum(text is not None for text in made) == len(chat.asked) < 60
    again = texts(specialist(chat, share=0.3)(images[::-1], rows))
    assert again == made[::-1]


def test_sources_choose_whose_statements_are_shown(chat: ChatServer) -> None:
    images, rows = batch(1)
    specialist(chat, sources=["captions"], prompt="{brief}")(images, rows)
    assert '"cup 0"' in chat.asked[0].prompt
    with pytest.raises(ImageError) as raised:
        specialist(chat, sources=["others"], prompt="{brief}")(images, rows)
    assert raised.value.reason == "nothing_said" and len(chat.asked) == 1


def test_without_images_and_statements_there_is_nothing_to_ask_from(chat: ChatServer) -> None:
    with pytest.raises(SpecialistError, match="nothing was given"):
        specialist(chat)(batch(1)[0], None)


# --- what is tried again


@pytest.mark.parametrize(
    "trouble",
    [
        error(429),
        error(429, Retry_After="0"),
        error(429, Retry_After="nonsense"),
        error(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
        error(500),
        error(502),
        error(504),
        error(408),
        cut_before,
        cut_within(said()),
        hang,
        trickle,
        reply(b"{not json"),
        reply(said()[:-20]),
        reply(b""),
        reply(b'{"choices": []}'),
        reply(b'{"error": {"message": "upstream"}}'),
        reply(b"<html>busy</html>", kind="text/html"),
        reply(b"x" * (5 << 20)),
    ],
)
def test_what_may_pass_is_tried_again(chat: ChatServer, trouble: Move) -> None:
    chat.script = [trouble, trouble]
    # The attempt that succeeds has the same limit: it must be enough for a machine that is busy.
    assert one(chat, timeout=2 if trouble in (hang, trickle) else 60) == TEXT
    assert len(chat.asked) == 3
    assert chat.asked[0].body == chat.asked[2].body


def test_a_wrong_content_type_is_forgiven_when_the_body_is_right(chat: ChatServer) -> None:
    chat.rule = lambda asked: reply(said(), kind="text/plain; charset=latin-1")
    assert one(chat) == TEXT and len(chat.asked) == 1


def client(chat: ChatServer, clock: Clock, **args: Any) -> ChatClient:
    return ChatClient(chat.url, now=clock.now, sleep=clock.sleep, **args)


BODY = json.dumps({"model": "toy", "messages": []}).encode()


def test_the_wait_is_never_shorter_than_the_server_asks_for(chat: ChatServer) -> None:
    clock = Clock()
    began = clock.time
    chat.script = [error(429, Retry_After="7"), error(503, Retry_After="3")]
    assert client(chat, clock, back_off=0.5).ask(BODY, 0).text == TEXT
    assert 10 <= clock.time - began <= 10 + 0.5 + 1


def test_back_off_grows_and_stays_within_the_time_budget(chat: ChatServer) -> None:
    clock = Clock()
    began = clock.time
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.sleep(seconds)

    chat.rule = lambda asked: error(500)
    patient = ChatClient(chat.url, retries=100, back_off=1, time_budget=100, now=clock.now, sleep=sleep)
    with pytest.raises(ImageError) as raised:
        patient.ask(BODY, 0)
    assert raised.value.reason == "no_answer"
    assert clock.time - began <= 100
    assert all(wait <= min(2.0**n, 60) for n, wait in enumerate(waits))
    # Six waits of at most 1, 2, 4 ... 32 seconds always fit.
    assert 6 <= len(waits) == len(chat.asked) - 1 < 100


def test_a_wait_beyond_the_time_budget_is_not_begun(chat: ChatServer) -> None:
    clock = Clock()
    began = clock.time
    chat.rule = lambda asked: error(429, "slow down", Retry_After="3600")
    with pytest.raises(ImageError, match="HTTP 429: slow down; it asks to wait 3600 s"):
        client(chat, clock, time_budget=60).ask(BODY, 0)
    assert clock.time == began and len(chat.asked) == 1


def test_waiting_for_the_own_rate_is_not_counted_as_the_endpoints_time(chat: ChatServer) -> None:
    clock = Clock()
    began = clock.time
    chat.script = [error(500)] * 3
    slow = client(chat, clock, time_budget=20, requests_per_minute=1, back_off=0.01)
    assert slow.ask(BODY, 0).text == TEXT
    assert clock.time - began >= 180


def test_tokens_that_were_used_hold_back_the_next_request(chat: ChatServer) -> None:
    clock = Clock()
    slow = client(chat, clock, tokens_per_minute=60)
    began = clock.time
    slow.ask(BODY, 10)
    slow.ask(BODY, 10)  # the first took 120, as its usage says
    assert clock.time - began == pytest.approx(120)


# --- what ends the run


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 301, 308])
def test_a_wrong_setting_ends_the_run_after_one_request(chat: ChatServer, status: int) -> None:
    chat.rule = lambda asked: error(status, "not so", Location="http://elsewhere.invalid/")
    with pytest.raises(SpecialistError, match=f"answers HTTP {status}: not so") as raised:
        specialist(chat)(*batch(20))
    assert len(chat.asked) == 1 and raised.value.hint


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_before_anything_was_answered_ends_the_run_once_a_second_agrees(
    chat: ChatServer, status: int
) -> None:
    chat.rule = lambda asked: error(status, "no such parameter")
    with pytest.raises(SpecialistError, match="2 requests in a row.*no such parameter"):
        specialist(chat)(*batch(20))
    assert len(chat.asked) == 2


def test_a_used_up_quota_is_not_waited_for(chat: ChatServer) -> None:
    chat.script = [answer(), error(429, "pay", code="insufficient_quota")]
    with pytest.raises(SpecialistError, match="HTTP 429: pay") as raised:
        specialist(chat, concurrency=1)(*batch(2))
    assert len(chat.asked) == 2 and "quota" in raised.value.hint


def test_the_end_of_the_run_does_not_wait_for_other_requests(chat: ChatServer) -> None:
    # The others hang and their time-out is a day: only being cut can end them.
    def rule(asked: Asked) -> Move:
        if '"cup 0"' in asked.prompt:
            return answer()
        if '"cup 3"' in asked.prompt:
            return lambda handler: (chat.wait_for(3), error(401)(handler))[1]
        return hang

    chat.rule = rule
    with pytest.raises(SpecialistError, match="HTTP 401"):
        specialist(chat, timeout=86_400, time_budget=86_400, concurrency=3)(*batch(12))
    assert len(chat.asked) == 4


def test_ctrl_c_does_not_wait_for_answers(chat: ChatServer) -> None:
    def interrupt() -> None:
        try:
            chat.wait_for(3)
        finally:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    chat.script = [answer()]
    chat.rule = lambda asked: hang
    presser = threading.Thread(target=interrupt)
    # A job in the background of a shell is started with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            specialist(chat, timeout=86_400, time_budget=86_400, concurrency=3)(*batch(12))
    finally:
        presser.join()
        signal.signal(signal.SIGINT, before)
    assert len(chat.asked) == 4


def test_redirects_are_not_followed(chat: ChatServer) -> None:
    with serving() as other:
        chat.rule = lambda asked: reply(b"", 307, Location=other.url + "/chat/completions")
        with pytest.raises(SpecialistError, match="HTTP 307") as raised:
            specialist(chat, api_key_env="TOY_KEY")(*batch(1))
        assert not other.asked and "base_url" in raised.value.hint


def test_an_endpoint_that_is_not_there_ends_the_run() -> None:
    with deaf_port() as port, pytest.raises(SpecialistError, match="2 requests in a row"):
        specialist(ChatServer(port=port), retries=1)(*batch(8))


def test_an_endpoint_that_goes_down_ends_the_run(chat: ChatServer) -> None:
    # A row of failures is an outage: as failures of images it would be written down for good.
    chat.script = [answer()] * 3
    chat.rule = lambda asked: error(503)
    made = specialist(chat, concurrency=1, retries=0, give_up_after=4)
    with pytest.raises(SpecialistError, match="4 requests in a row"):
        made(*batch(50))
    assert len(chat.asked) == 7


def test_failures_between_answers_are_no_outage(chat: ChatServer) -> None:
    # Of three images one is answered: the run goes on however many fail.
    def rule(asked: Asked) -> Move:
        return answer() if int(asked.prompt.split('"cup ')[1].split('"')[0]) % 3 == 0 else error(503)

    chat.rule = rule
    with pytest.raises(ImageError):
        specialist(chat, concurrency=1, retries=0, give_up_after=3)(*batch(24))
    assert len(chat.asked) == 24


def test_the_last_trouble_is_told(chat: ChatServer) -> None:
    chat.rule = lambda asked: cut_within(said())
    with pytest.raises(ImageError, match="no answer in 2 attempts.*cut"):
        one(chat, retries=1)
    chat.rule = lambda asked: reply(b"<html>busy</html>", kind="text/html")
    with pytest.raises(ImageError, match="HTTP 200 with text/html that is no answer: it is not JSON"):
        one(chat, retries=1)
    chat.rule = lambda asked: trickle
    with pytest.raises(ImageError, match="no answer in 1 attempt; the last: no answer within 0"):
        one(chat, retries=0, timeout=0.2)


# --- the recipe


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://[::1/v1",
        "http://host:port/",
        "http://a b/",
        "http://h/\r\nX: y",
        3,
    ],
)
def test_only_http_urls_are_taken(url: Any) -> None:
    with pytest.raises(RecipeError, match="base_url"):
        ChatTexts(url, "toy", "detailed", cache=None)


@pytest.mark.parametrize(
    "url", [f"https://me:{KEY}@host/v1", f"https://host/v1?key={KEY}", f"https://host/#{KEY}"]
)
def test_a_key_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(RecipeError) as raised:
        ChatTexts(url, "toy", "detailed", cache=None)
    assert KEY not in raised.value.message + raised.value.hint


@pytest.mark.parametrize("name", [KEY, "abcDEF0123456789", "", "a b", 7])
def test_a_key_in_the_place_of_its_name_is_refused_and_not_repeated(name: Any) -> None:
    with pytest.raises(RecipeError) as raised:
        ChatTexts("http://host/v1", "toy", "detailed", api_key_env=name, cache=None)
    shown = raised.value.message + raised.value.hint
    assert not name or str(name) not in shown


@pytest.mark.parametrize("value", [None, "  ", f"{KEY}\r\nX: y", "schlüssel-geheim"])
def test_a_key_that_is_missing_or_no_key_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("TOY_KEY") if value is None else monkeypatch.setenv("TOY_KEY", value)
    with pytest.raises(SpecialistError, match="TOY_KEY") as raised:
        ChatTexts("http://host/v1", "toy", "detailed", api_key_env="TOY_KEY", cache=None)
    shown = raised.value.message + raised.value.hint
    assert KEY not in shown and "geheim" not in shown


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"granularity": "detaild"}, "did you mean 'detailed'"),
        ({"granularity": "brief"}, "granularity is 'brief'"),
        ({"images": "all"}, "images is 'all'"),
        ({"unfinished": "keep"}, "unfinished is 'keep'"),
        ({"share": 1.5}, "share is 1.5"),
        ({"share": float("nan")}, "share is nan"),
        ({"share": "1%"}, "share is '1%'"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"concurrency": True}, "concurrency is True"),
        ({"max_tokens": 3.5}, "max_tokens is 3.5"),
        ({"prompt": "{brife}"}, "did you mean 'brief'"),
        ({"prompt": "Write something."}, "no field that says anything"),
        ({"prompt": ""}, "prompt must be a text"),
        ({"parameters": {"stream": True}}, "must not have 'stream'"),
        ({"parameters": {"messages": []}}, "must not have 'messages'"),
        ({"parameters": {"x": object()}}, "cannot be written as JSON"),
        ({"parameters": [1]}, "parameters must be a mapping"),
        ({"prices": {"ouput": 1}}, "did you mean 'output'"),
        ({"prices": {"input": "free"}}, "prices.input is 'free'"),
        ({"requests_per_minute": 0}, "requests_per_minute is 0"),
        ({"cache": "/tmp/x"}, "neither a name nor a file URL"),
    ],
)
def test_settings_are_checked_before_anything_is_sent(args: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        ChatTexts("http://host/v1", "toy", **{"granularity": "detailed", "cache": None, **args})
    assert message in raised.value.message


def test_the_recipe_sees_the_arguments_and_the_version_without_importing() -> None:
    takes = signature("specialists.endpoint:ChatTexts")
    assert takes is not None and takes.required == ("base_url", "model", "granularity")
    assert code_version("specialists.endpoint:ChatTexts").endswith(":ChatTexts version 1")


# --- what becomes of an answer


@pytest.mark.parametrize(
    ("move", "args", "text"),
    [
        (answer('Sure! Here is a description of the image:\n\n"A red cup."'), {}, "A red cup."),
        (answer("One. Two. Thr", "length"), {}, "One. Two."),
        (answer("Sentence. " * 1000), {"max_length": 95}, ("Sentence. " * 9).strip()),
        (answer("A\x00 cup\u202e."), {}, "A cup."),
        (answer([{"type": "text", "text": "A cup."}]), {}, "A cup."),  # type: ignore[arg-type]
    ],
)
def test_an_answer_becomes_a_clean_text_of_bounded_length(
    chat: ChatServer, move: Move, args: dict[str, Any], text: str
) -> None:
    chat.rule = lambda asked: move
    assert one(chat, **args) == text


@pytest.mark.parametrize(
    ("move", "args", "reason"),
    [
        (answer(""), {}, "empty_answer"),
        (answer(None), {}, "empty_answer"),
        (answer("``` \n```"), {}, "empty_answer"),
        (answer("<think>So many thoughts", "length"), {}, "empty_answer"),
        (answer("One. Two. Thr", "length"), {"unfinished": "drop"}, "unfinished_answer"),
        (answer("Sentence. " * 1000), {"unfinished": "drop"}, "unfinished_answer"),
        (answer("never a sentence " * 600), {}, "unfinished_answer"),
        (answer("A part of", "content_filter"), {}, "refused"),
        (answer(None, refusal="I cannot."), {}, "refused"),
    ],
)
def test_an_answer_without_a_usable_text_is_a_failure_and_not_asked_again(
    chat: ChatServer, move: Move, args: dict[str, Any], reason: str
) -> None:
    chat.rule = lambda asked: move
    with pytest.raises(ImageError) as raised:
        one(chat, **args)
    assert raised.value.reason == reason and len(chat.asked) == 1


# --- many at once


def test_as_many_requests_run_at_once_as_the_recipe_says_and_no_more(chat: ChatServer) -> None:
    def rule(asked: Asked) -> Move:
        if '"cup 0"' in asked.prompt:
            return answer()

        def move(handler: Any) -> None:
            chat.wait_for(3)
            threading.Event().wait(0.02)  # so that a fourth would be seen
            answer()(handler)

        return move

    chat.rule = rule
    assert texts(specialist(chat, concurrency=3)(*batch(15))) == [TEXT] * 15
    assert chat.most_at_once == 3


def test_each_image_gets_its_own_answer(chat: ChatServer) -> None:
    chat.rule = lambda asked: answer("About " + asked.prompt.split('"')[1] + ".")
    assert texts(specialist(chat)(*batch(30))) == [f"About cup {n}." for n in range(30)]


def test_equal_requests_are_sent_once(chat: ChatServer) -> None:
    images, rows = batch(6, text="the same cup")
    assert texts(specialist(chat)(images, rows)) == [TEXT] * 6
    assert len(chat.asked) == 1
    specialist(chat, images="full")(images, rows)
    assert len(chat.asked) == 7


def test_an_outcome_is_told_as_often_as_the_runner_halves_and_sent_once(chat: ChatServer) -> None:
    chat.rule = lambda asked: error(500) if '"cup 2"' in asked.prompt else answer()
    made = specialist(chat, retries=2)
    images, rows = batch(8)

    def halves(part: list[Image]) -> list[str | None]:
        try:
            return texts(made(part, rows))
        except ImageError as raised:
            assert raised.reason == "no_answer"
            if len(part) == 1:
                return ["failed"]
            middle = len(part) // 2
            return halves(part[:middle]) + halves(part[middle:])

    assert halves(images) == [TEXT, TEXT, "failed", *[TEXT] * 5]
    assert len(chat.asked) == 7 + 3
    # Told, it is forgotten: the same image may be asked again.
    chat.rule = lambda asked: answer("Now.")
    assert texts(made(images[2:3], rows)) == ["Now."]


# --- through the engine


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", 25)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=10)
    return Dataset.open(str(tmp_path / "ds"))


def recipe(chat: ChatServer, batch: int = 4, **args: Any) -> Recipe:
    chosen = {
        "base_url": chat.url,
        "model": "toy",
        "granularity": "more_detailed",
        "share": 1,
        "back_off": 0.01,
        "retries": 1,
        "concurrency": 3,
        **args,
    }
    return Recipe(
        name="toy",
        specialists={
            "numbers": SpecialistPart(use="tests.toy_specialists:Numbers"),
            "chat": SpecialistPart(
                use="specialists.endpoint:ChatTexts", args=chosen, needs=["numbers"], batch=batch
            ),
        },
    ).check()


def run(dataset: Dataset, chosen: Recipe) -> Any:
    return annotate(dataset, chosen, runner="inline", reporter=Reporter(terminal=False))


def ask(dataset: Dataset, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in sql(dataset, query).to_pylist()]


def troubled(asked: Asked) -> Move:
    """An answer that names its picture, but for four that have none."""
    number = asked.prompt.split('"number ')[1].split('"')[0]
    moves = {
        "3": error(400, "too long", code="context_length_exceeded"),
        "7": error(500),
        "8": answer(""),
        "21": reply(b"{not json"),
    }
    return moves.get(number, answer(f"Picture {number}."))


def test_a_run_ends_with_a_text_or_a_failure_for_every_image(dataset: Dataset, chat: ChatServer) -> None:
    chat.rule = troubled
    run(dataset, recipe(chat))
    rows = ask(
        dataset,
        "SELECT c.text, n.text, c.granularity, c.parent_id FROM texts c JOIN texts n USING (image_id) "
        "WHERE c.source = 'chat' AND n.source = 'numbers'",
    )
    assert len(rows) == 21
    for text, number, granularity, parent in rows:
        assert text == number.replace("number", "Picture") + "."
        assert (granularity, parent) == ("more_detailed", None)
    assert ask(dataset, "SELECT key, reason FROM failures WHERE stage = 'chat' ORDER BY key") == [
        ("00003.png", "refused"),
        ("00007.png", "no_answer"),
        ("00008.png", "empty_answer"),
        ("00021.png", "no_answer"),
    ]
    # Each failure was found once, although the runner halves a batch until the image stands alone.
    assert len(chat.asked) == 21 + 1 + 2 + 1 + 2


def test_only_the_sample_of_a_data_set_is_asked_for(dataset: Dataset, chat: ChatServer) -> None:
    run(dataset, recipe(chat, share=0.3))
    (count,) = ask(dataset, "SELECT count(*) FROM texts WHERE source = 'chat'")[0]
    assert 0 < count == len(chat.asked) < 25
    assert ask(dataset, "SELECT count(*) FROM failures") == [(0,)]


def test_a_run_that_was_ended_sends_nothing_again_that_was_answered(
    dataset: Dataset, chat: ChatServer
) -> None:
    chat.script = [answer(f"Answer {n}.") for n in range(14)] + [error(401)]
    with pytest.raises(SpecialistError, match="HTTP 401"):
        run(dataset, recipe(chat, concurrency=1))
    answered = {asked.prompt for asked in chat.asked[:14]}
    assert len(answered) == 14 and ask(dataset, "SELECT count(*) FROM texts WHERE source = 'chat'") == [(10,)]
    chat.asked.clear()
    chat.rule = lambda asked: answer("Later.")
    # Another address, another width: the request is the same.
    with_slash = chat.url.replace("127.0.0.1", "localhost") + "/"
    run(dataset, recipe(chat, base_url=with_slash, concurrency=2))
    assert len(chat.asked) == 25 - 14
    assert not answered & {asked.prompt for asked in chat.asked}
    rows = ask(dataset, "SELECT text FROM texts WHERE source = 'chat'")
    assert sorted(text for (text,) in rows) == sorted([f"Answer {n}." for n in range(14)] + ["Later."] * 11)
    assert spent("answers").answers == 25


def test_a_changed_request_is_sent_and_a_changed_use_of_the_answer_is_not(
    dataset: Dataset, chat: ChatServer
) -> None:
    run(dataset, recipe(chat))
    run(dataset, recipe(chat, max_length=1000, batch=7))
    assert len(chat.asked) == 25
    run(dataset, recipe(chat, temperature=0.7))
    assert len(chat.asked) == 50


def test_a_cache_at_a_url_does_not_make_shards_stale(
    dataset: Dataset, chat: ChatServer, tmp_path: Path
) -> None:
    chosen = recipe(chat, cache=(tmp_path / "kept").as_uri())
    run(dataset, chosen)
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 25
    assert [stage.units_done for stage in run(dataset, chosen).stages] == [0, 0]


def test_without_a_cache_it_works_and_keeps_nothing(
    dataset: Dataset, chat: ChatServer, tmp_path: Path
) -> None:
    chat.rule = troubled
    run(dataset, recipe(chat, cache=None))
    assert ask(dataset, "SELECT count(*) FROM texts WHERE source = 'chat'") == [(21,)]
    assert len(chat.asked) == 27 and not (tmp_path / "cache").exists()


def test_the_key_is_nowhere_but_in_the_requests_header(
    dataset: Dataset, chat: ChatServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    spelt = "".join(f"\\u{ord(c):04x}" for c in KEY).encode()  # as JSON may spell it
    moves = [
        answer(f"The key is {KEY}."),
        reply(said("The key is here.").replace(b"here", spelt)),
        error(400, f"bad key {KEY}"),
        reply(b'{"error": {"message": "key %s"}}' % spelt, 500),
        reply(KEY.encode(), kind=KEY),
        error(500, Retry_After=KEY),
        answer("", KEY),
    ]
    chat.rule = lambda asked: moves[len(chat.asked) % len(moves)]
    run(dataset, recipe(chat, api_key_env="TOY_KEY", retries=0, concurrency=1))
    assert all(asked.headers["authorization"] == f"Bearer {KEY}" for asked in chat.asked)
    assert ask(dataset, "SELECT count(*) FROM texts WHERE text = 'The key is [key].'")[0][0] > 3
    shown = caplog.text + repr(ask(dataset, "FROM annotations")) + repr(ask(dataset, "FROM failures"))
    assert "[key]" in repr(ask(dataset, "FROM failures WHERE reason = 'refused'"))
    assert "[key]" in repr(ask(dataset, "FROM failures WHERE reason = 'no_answer'"))
    for kept in (p for folder in ("cache", "ds") for p in (tmp_path / folder).rglob("*") if p.is_file()):
        shown += kept.read_bytes().decode("latin-1")
    assert KEY not in shown
    chat.rule = lambda asked: error(401, f"Incorrect key {KEY}")
    with pytest.raises(SpecialistError, match=r"Incorrect key \[key\]") as raised:
        run(dataset, recipe(chat, api_key_env="TOY_KEY", temperature=1))
    assert KEY not in raised.value.message + raised.value.hint


def test_what_it_took_is_logged_and_can_be_summed(
    dataset: Dataset, chat: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "specialists.endpoint")
    run(dataset, recipe(chat, batch=25, prices={"input": 1.0, "output": 10.0}, cache="priced"))
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("specialists.endpoint")]
    assert lines[-1] == (
        "toy: 5 answered (0 of them unfinished), 0 from the cache, 0 failed; "
        "since the start 25 answers, 2500 input and 500 output tokens, cost 0.0075"
    )
    total = spent("priced")
    assert (total.answers, total.input_tokens, total.output_tokens) == (25, 2500, 500)


def test_a_proxy_of_the_environment_is_used(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{chat.port}")
    made = ChatTexts("http://models.invalid/v1", "toy", "detailed", share=1, cache=None)
    assert texts(made(*batch(1))) == [TEXT]
    assert chat.asked[0].path == "http://models.invalid:80/v1/chat/completions"
    login = base64.b64encode(b"user:p@ss").decode()
    assert chat.asked[0].headers["proxy-authorization"] == f"Basic {login}"
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(SpecialistError, match="proxy"):
        ChatTexts("http://models.invalid/v1", "toy", "detailed", cache=None)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not here to make a certificate with")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_tls_is_verified_and_can_be_cut_too(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(context) as chat:
        chat.script = [hang, trickle, cut_within(said())]
        url = chat.url.replace("http:", "https:")
        chosen = {"share": 1, "cache": None, "timeout": 3, "back_off": 0.01}
        with pytest.raises(SpecialistError, match="certificate .* cannot be trusted"):
            ChatTexts(url, "toy", "detailed", **chosen)(*batch(3))
        assert not chat.asked
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert texts(ChatTexts(url, "toy", "detailed", **chosen)(*batch(1))) == [TEXT]
        assert len(chat.asked) == 4


def test_the_page_shows_a_sound_recipe_and_every_argument() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "endpoint.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    parts = read_recipe(example[1], "docs/endpoint.md").specialists
    takes = signature("specialists.endpoint:ChatTexts")
    assert takes is not None
    for name in (*takes.required, *takes.optional):
        assert re.search(rf"^\| .*`{name}`", page, re.MULTILINE), name
    for name in ("detailed", "more_detailed"):
        args = {**parts[name].args, "api_key_env": "TOY_KEY"}
        assert ChatTexts(**args).granularity == name
    for field in FIELDS:
        assert f"`{{{field}}}`" in page
