"""The parts of the endpoint specialist that need no server: templates, notes, cleaning, rates, cache, sample."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import RecipeError, StorageError
from specialists.endpoint import spent
from specialists.endpoint.answer import Answer, cleaned, parse, whole_sentences
from specialists.endpoint.cache import AnswerCache, cache_folder
from specialists.endpoint.characters import one_line
from specialists.endpoint.limits import Limits
from specialists.endpoint.notes import FIELDS, notes
from specialists.endpoint.prompts import PROMPTS
from specialists.endpoint.specialist import in_sample
from specialists.endpoint.template import Template
from specialists.said import Statement, statements

# --- templates


def test_a_template_is_filled_and_doubled_braces_are_braces() -> None:
    template = Template("Say {brief} as {{json}}: {ocr}{brief}", FIELDS)
    assert template.fields == {"brief", "ocr"}
    assert template.fill({"brief": "B", "ocr": "O"}) == "Say B as {json}: OB"


@given(st.text())
def test_what_fills_a_field_is_never_read_as_a_template(data: str) -> None:
    filled = Template("[{brief}]", FIELDS).fill({"brief": data + "{ocr}{0}{brief.x}"})
    assert filled == f"[{data}{{ocr}}{{0}}{{brief.x}}]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{breif}", "no field {breif} - did you mean 'brief'"),
        ("{}", "no field {}"),
        ("{0}", "no field {0}"),
        ("{brief.__class__}", "no field {brief.__class__}"),
        ("{ocr[0]}", "no field {ocr[0]}"),
        ("{brief!r}", "no field {brief!r}"),
        ("{brief:>100000000}", "no field {brief:>100000000}"),
        ("{brief", "cannot be read"),
        ("a } b", "cannot be read"),
    ],
)
def test_anything_but_a_known_name_is_refused_when_the_recipe_is_read(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Template(text, FIELDS)
    assert message in raised.value.message


def test_the_default_prompts_are_sound() -> None:
    for text in PROMPTS.values():
        assert Template(text, FIELDS).fields == {"brief", "regions", "ocr"}


# --- notes


def noted(*said: Annotation, fields: tuple[str, ...] = FIELDS, most: int = 30, longest: int = 200) -> dict:
    rows = AnnotationRows("model")
    assert rows.add("0" * 32, said) == []
    found = statements(rows.table()).get("0" * 32, [])
    values, shown = notes(fields, found, (200, 100), most, longest)
    return {**values, "shown": shown}


def test_notes_show_each_kind_of_statement_in_its_field() -> None:
    cup = Annotation("region", "cup", "phrase", box=(0, 0, 60, 30))
    found = noted(
        Annotation("text", "A cup.", "brief"),
        Annotation("text", "A cup, again.", "brief"),
        Annotation("text", "A cup.", "brief"),
        Annotation("text", "kitchen", "class"),
        Annotation("text", "all the writing", "ocr"),
        Annotation("region", "a table", "phrase", box=(80, 40, 200, 100)),
        cup,
        Annotation("region", "small red cup", "brief", cup, box=cup.box),
        Annotation("region", None, "phrase", cup, score=0.3),
        Annotation("region", None, "proposal", box=(0, 0, 9, 9)),
        Annotation("region", "jittered", "change", cup),
        Annotation("region", "SALE", "ocr", box=(1, 1, 9, 9), quad=(1, 1, 9, 1, 9, 9, 1, 9)),
    )
    assert found["brief"] == '<brief>\n"A cup."\n"A cup, again."\n</brief>'
    assert found["classes"] == '<classes>\n"kitchen"\n</classes>'
    assert found["detailed"] == "<detailed>\nnone\n</detailed>"
    # Lines read one by one are more than all of it at once; the larger region comes first.
    assert found["ocr"] == '<ocr>\n"SALE"\n</ocr>'
    assert found["regions"] == (
        '<regions>\n"a table" (bottom right; x 40-100%, y 40-100%)\n'
        '"small red cup" (top left; x 0-30%, y 0-30%)\n</regions>'
    )
    assert (found["width"], found["height"], found["shown"]) == ("200", "100", 6)


def test_notes_are_bounded_in_number_and_length() -> None:
    said = [Annotation("region", f"{n} " + "x" * 500, "phrase", box=(0, 0, 1 + n, 9)) for n in range(40)]
    lines = noted(*said, most=3, longest=20)["regions"].splitlines()
    assert [line[:4] for line in lines[1:4]] == ['"39 ', '"38 ', '"37 ']
    assert lines[4:] == ["and 37 more", "</regions>"]
    assert all(len(json.loads(line[: line.index(" (")])) == 20 for line in lines[1:4])


@given(st.lists(st.text(), max_size=5))
def test_no_text_can_leave_its_line_its_quotes_or_its_tag(texts: list[str]) -> None:
    said = [Annotation("text", text + "</brief>\n<b>", "brief") for text in texts]
    lines = noted(*said)["brief"].splitlines()
    assert (lines[0], lines[-1]) == ("<brief>", "</brief>")
    shown = [json.loads(line) for line in lines[1:-1] if line != "none"]
    # AnnotationRows has replaced what cannot be stored; what is left is there, on one line.
    kept = [(s.text or "") for s in _stored(said)]
    assert shown == list(dict.fromkeys(one_line(text, 200) for text in kept))
    assert not any("<" in line or ">" in line for line in lines[1:-1])


def _stored(said: list[Annotation]) -> list[Statement]:
    rows = AnnotationRows("model")
    rows.add("0" * 32, said)
    return statements(rows.table()).get("0" * 32, [])


@given(st.text())
def test_one_line_has_no_control_characters_and_is_stable(text: str) -> None:
    line = one_line(text)
    assert line == one_line(line) and not set(line) & {chr(c) for c in (*range(32), *range(127, 160))}
    assert len(one_line(text, 5)) <= 5


def test_invisible_characters_go_and_joiners_stay() -> None:
    hidden = "".join(chr(0xE0000 + ord(c)) for c in "ignore")
    assert one_line(f"a\u202eb{hidden}\x00c\td\u200de") == "abc d\u200de"


# --- answers


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("  A red cup.\n\nIt stands\ton a table. ", "A red cup. It stands on a table."),
        ('"A red cup."', "A red cup."),
        ("“A red cup.”", "A red cup."),
        ("```\nA red cup.\n```", "A red cup."),
        ("```text\nA red cup.\n```\n", "A red cup."),
        ("Here is a description: A red cup.", "A red cup."),
        ("Here's a detailed description of the image:\n\nA red cup.", "A red cup."),
        ('Sure! Here is the description you asked for:\n\n"A red cup."', "A red cup."),
        ("Certainly.\nA red cup.", "A red cup."),
        ("**Description:** A red cup.", "A red cup."),
        ("### Detailed description:\nA red cup.", "A red cup."),
        ("<think>What is it? Here is: ...</think>\n\nA red cup.", "A red cup."),
        ("<think>It was cut off while it tho", ""),
        ("This is a description of the image: a red cup.", "a red cup."),
        ("", ""),
        # What only looks like one of them stays.
        ('"Stop" and "Go" are written on two signs.', '"Stop" and "Go" are written on two signs.'),
        ("This is a sign that reads: STOP.", "This is a sign that reads: STOP."),
        ("A cup at 3:30 on a clock. Here is more: tea.", "A cup at 3:30 on a clock. Here is more: tea."),
        ("A sure sign of rain.", "A sure sign of rain."),
    ],
)
def test_what_models_put_around_a_description_is_taken_off(raw: str, text: str) -> None:
    assert cleaned(raw) == text


@given(
    st.text()
    | st.lists(
        st.sampled_from(['"', "```", "\n", "Sure, ", "Here is it: ", "<think>", "</think>", "a."])
    ).map("".join)
)
def test_cleaning_a_cleaned_text_changes_nothing(raw: str) -> None:
    assert cleaned(cleaned(raw)) == cleaned(raw)


@pytest.mark.parametrize(
    "raw", [" " * 100_000 + "x", "```\n" + "\n " * 50_000, "Sure, " * 16_000, "\u2028" * 99_999]
)
def test_cleaning_takes_no_time_that_grows_with_the_square(raw: str) -> None:
    # A model that is stuck gives such texts; the test's own time limit is what would tell.
    assert len(cleaned(raw)) <= len(raw)


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("One. Two is 2.5 m long. Thr", 100, "One. Two is 2.5 m long."),
        ("One. Two is 2.5 m long. Thr", 15, "One."),
        ('He says "Go." And th', 100, 'He says "Go."'),
        ("No end in sight", 100, ""),
        ("一只杯子。桌子", 100, "一只杯子。"),
    ],
)
def test_a_text_is_cut_at_its_last_whole_sentence(text: str, limit: int, kept: str) -> None:
    assert whole_sentences(text, limit) == kept


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [1]}',
        b'{"choices": [{}]}',
        b"[" * 99_999,
        b"\xff\xfe\x00",
    ],
)
def test_a_body_of_another_shape_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="^it"):
        parse(body)


def test_token_counts_that_are_none_are_not_counted() -> None:
    body = {
        "choices": [{"message": {"content": "x"}}],
        "usage": {"prompt_tokens": -1, "completion_tokens": True},
    }
    found = parse(json.dumps(body).encode())
    assert (found.input_tokens, found.output_tokens, found.model, found.finish_reason) == (None, None, "", "")


# --- rates


class Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@given(
    st.floats(1, 600),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 5000)), min_size=1, max_size=60),
)
def test_no_minute_holds_more_than_the_rate(rate: float, arrivals: list[tuple[float, int]]) -> None:
    clock = Clock()
    limits = Limits(rate, rate * 100, clock.now, clock.sleep)
    sent: list[tuple[float, int]] = []
    for idle, tokens in arrivals:
        clock.sleep(idle)
        before = clock.time
        assert limits.wait(tokens) == pytest.approx(clock.time - before)
        sent.append((clock.time, tokens))
    for start, _ in sent:
        minute = [tokens for moment, tokens in sent if start <= moment < start + 60 - 1e-6]
        assert len(minute) <= rate + 1  # a rate of 1.5 a minute is two in some minutes
        assert sum(minute[:-1]) <= rate * 100 + 1e-3


def test_a_rate_is_reached_and_a_correction_counts() -> None:
    clock = Clock()
    limits = Limits(None, 600, clock.now, clock.sleep)
    assert limits.wait(100) == 0
    assert limits.wait(100) == pytest.approx(10)  # the first one's tokens
    limits.correct(-50)
    assert limits.wait(0) == pytest.approx(5)
    assert Limits(None, None, clock.now, clock.sleep).wait(10**9) == 0


def test_nothing_starts_during_a_pause_even_one_that_begins_while_it_waits() -> None:
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.time == 1060:
            limits.pause(40)

    limits = Limits(1, None, clock.now, sleep)
    limits.wait(1)
    assert limits.wait(1) == 100


# --- cache

ANSWER = Answer("A red cup – «é».", "stop", "toy-1", 100, 20)


def test_the_cache_gives_back_what_was_put_and_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder("mine")
    assert folder == tmp_path / "florence-data-engine/chat/mine"
    cache = AnswerCache(folder)
    assert cache.get("ab" * 32) is None
    cache.put("ab" * 32, ANSWER)
    cache.put("cd" * 32, Answer("x", "", "", None, None))
    assert AnswerCache(folder).get("ab" * 32) == ANSWER
    usage = spent("mine")
    assert (usage.answers, usage.uncounted, usage.input_tokens, usage.output_tokens) == (2, 1, 100, 20)
    assert usage.cost({"input": 2, "output": 10}) == pytest.approx(0.0004)
    assert spent((tmp_path / "nothing here").as_uri()).answers == 0


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "text": 3}', b"\xff" * 20, b"[" * 99_999],
)
def test_a_damaged_entry_counts_as_none_and_is_written_anew(tmp_path: Path, damage: bytes) -> None:
    cache = AnswerCache(tmp_path)
    cache.put("ab" * 32, ANSWER)
    (path,) = tmp_path.rglob("*.json")
    path.write_bytes(damage)
    assert cache.get("ab" * 32) is None
    cache.put("ab" * 32, ANSWER)
    assert cache.get("ab" * 32) == ANSWER


def test_many_writers_of_one_entry_never_show_a_reader_half_of_it(tmp_path: Path) -> None:
    answers = [Answer(letter * 50_000, "stop", "toy", 1, 1) for letter in "ab"]
    AnswerCache(tmp_path).put("ab" * 32, answers[0])
    stop = threading.Event()

    def write(answer: Answer) -> None:
        while not stop.is_set():
            AnswerCache(tmp_path).put("ab" * 32, answer)

    threads = [threading.Thread(target=write, args=(a,)) for a in answers]
    for thread in threads:
        thread.start()
    try:
        assert all(AnswerCache(tmp_path).get("ab" * 32) in answers for _ in range(200))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not list(tmp_path.rglob("*.part"))


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be kept"):
        AnswerCache(tmp_path / "file" / "cache")
    cache = AnswerCache(tmp_path / "cache")
    (tmp_path / "cache" / "ab").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be kept"):
        cache.put("ab" * 32, ANSWER)


def test_where_a_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder("a-b_1") == Path("~/.cache/florence-data-engine/chat/a-b_1").expanduser()
    spaced = tmp_path / "with space"
    assert cache_folder(spaced.as_uri()) == spaced
    assert cache_folder(None) is None
    # A path's content would be part of the fingerprint, and a cache's content changes.
    for wrong in (str(tmp_path), "../x", "", "a.b", "file://host/x", "s3://bucket/x", 3):
        with pytest.raises(RecipeError, match="neither a name nor a file URL"):
            cache_folder(wrong)  # type: ignore[arg-type]


# --- sample


def test_the_sample_is_about_its_share() -> None:
    ids = [f"{n:032x}" for n in np.random.default_rng(0).integers(0, 2**62, 20_000).tolist()]
    for share in (0.0, 0.01, 0.3, 1.0):
        count = sum(in_sample(i, share) for i in ids)
        # Four standard deviations of a binomial.
        assert abs(count - share * 20_000) <= 4 * (20_000 * share * (1 - share)) ** 0.5


@given(st.text(alphabet="0123456789abcdef", min_size=32, max_size=32))
def test_a_smaller_sample_is_part_of_a_larger_one(image_id: str) -> None:
    shares = [0.0, 0.001, 0.01, 0.1, 0.5, 1.0]
    chosen = [in_sample(image_id, share) for share in shares]
    assert chosen == [in_sample(image_id, share) for share in shares]
    assert all(b or not a for a, b in pairwise(chosen)) and chosen[0] is False and chosen[-1] is True
