"""Sentences and where they stand."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.errors import MissingPackageError
from specialists import sentences as module
from specialists.florence2.long_texts import spans_that_fit
from specialists.noun_phrases import parser
from specialists.sentences import check_installed, sentences

TEXTS = [
    "A red cup stands on a table. It is 2.5 m from Mr. Smith, who wears a hat.",
    "",
    "  \n ",
    "Two cats sleep.\n\n  A dog   runs!",
    "İ see a 😀 mug. Is it blue?",
    "?!. ... $$",
    "one word",
]


def test_abbreviations_and_decimal_points_end_no_sentence() -> None:
    found = [[sentence for sentence, _, _ in some] for some in sentences(TEXTS)]
    assert found[0] == ["A red cup stands on a table.", "It is 2.5 m from Mr. Smith, who wears a hat."]
    assert found[1] == found[2] == []
    assert found[3] == ["Two cats sleep.", "A dog   runs!"]
    assert len(found[4]) == 2 and found[6] == ["one word"]


MIXED = st.one_of(st.text(), st.lists(st.sampled_from(TEXTS), max_size=4).map(" \t".join))


@settings(deadline=None, max_examples=60)
@given(st.lists(MIXED, max_size=4))
def test_sentences_are_the_whole_text_but_white_space(texts: list[str]) -> None:
    found = sentences(texts)
    assert len(found) == len(texts)
    for text, some in zip(texts, found, strict=True):
        after = 0
        for sentence, start, end in some:
            assert text[start:end] == sentence == sentence.strip() != ""
            assert not text[after:start].strip()
            after = end
        assert not text[after:].strip()


def test_a_texts_sentences_do_not_depend_on_the_others() -> None:
    assert sentences(TEXTS) == [sentences([text])[0] for text in TEXTS]
    assert sentences([]) == []


def test_missing_weights_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setattr(module, "PARSERS", ("no_such_parser",))
    module._splitter.cache_clear()
    try:
        for ask in (check_installed, lambda: sentences(["A dog. A cat."])):
            with pytest.raises(MissingPackageError, match="no_such_parser") as caught:
                ask()
            assert "[text]" in caught.value.hint
    finally:
        module._splitter.cache_clear()


@pytest.mark.parametrize("ask", [lambda: sentences(["A dog. A cat."]), parser])
def test_what_an_installed_package_lacks_is_named(ask, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spacy.py").write_text("import no_such_part")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spacy", raising=False)
    for cached in (module._splitter, parser):
        cached.cache_clear()
    with pytest.raises(MissingPackageError, match="'no_such_part' is not installed"):
        ask()


# --- texts in parts


@settings(deadline=None, max_examples=60)
@given(MIXED, st.integers(1, 40))
def test_parts_fit_and_leave_nothing_out(text: str, most: int) -> None:
    spans = spans_that_fit(text, lambda part: len(part) <= most)
    after = 0
    for start, end in spans:
        assert 0 < end - start <= most and start >= after
        assert not text[after:start].strip()
        after = end
    assert not text[after:].strip()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from(["A dog runs.", "The red cup is small.", "It is 2.5 m tall."]), min_size=1),
    st.integers(5, 30),
)
def test_parts_are_as_many_whole_sentences_as_fit(some: list[str], most: int) -> None:
    # Every sentence has at most five words.
    text = " ".join(some)
    spans = spans_that_fit(text, lambda part: len(part.split()) <= most)
    ends = {end for _, _, end in sentences([text])[0]}
    assert {end for _, end in spans} <= ends
    for (start, _), (beyond, _) in pairwise(spans):
        one_more = min(end for end in ends if end > beyond)
        assert len(text[start:one_more].split()) > most


def test_a_sentence_that_does_not_fit_is_parted_between_words_and_a_word_within_itself() -> None:
    text = "A small dog runs. " + "x" * 25 + " is  written on it."
    spans = spans_that_fit(text, lambda part: len(part) <= 10)
    assert [text[start:end] for start, end in spans] == [
        "A small", "dog runs.", "xxxxxxxxxx", "xxxxxxxxxx", "xxxxx", "is", "written on", "it.",
    ]  # fmt: skip


def test_a_long_text_is_not_looked_at_from_every_place_to_its_end() -> None:
    text = "A dog runs over the field. " * 2000
    looked = 0

    def fits(part: str) -> bool:
        nonlocal looked
        looked += len(part)
        return len(part) <= 500

    assert len(spans_that_fit(text, fits)) == 112
    assert looked < 20 * len(text)
