"""Noun phrases and where they stand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.errors import MissingPackageError
from specialists import noun_phrases as module
from specialists.noun_phrases import noun_phrases

TEXTS = [
    "A man in a red shirt is riding a brown horse near the old barn.",
    "",
    "  \n ",
    "He smiles at it.",
    "Two dogs and the neighbour's  cat sleep.\nSt. Louis is far.",
    "İ see a 😀 mug.",
    "?!. ... $$",
]


def test_phrases_keep_their_determiners_and_pronouns_are_left_out() -> None:
    found = noun_phrases(TEXTS)
    assert [p for p, _, _ in found[0]] == ["A man", "a red shirt", "a brown horse", "the old barn"]
    assert found[1] == found[2] == found[3] == found[6] == []
    assert {"Two dogs", "St. Louis"} <= {p for p, _, _ in found[4]}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(st.text(), st.lists(st.sampled_from(TEXTS), max_size=3).map(" \t".join)),
        max_size=4,
    )
)
def test_a_phrase_is_what_stands_at_its_place(texts: list[str]) -> None:
    found = noun_phrases(texts)
    assert len(found) == len(texts)
    for text, phrases in zip(texts, found, strict=True):
        after = 0
        for phrase, start, end in phrases:
            assert text[start:end] == phrase == phrase.strip() != ""
            assert start >= after
            after = end


def test_a_texts_phrases_do_not_depend_on_the_others() -> None:
    assert noun_phrases(TEXTS) == [noun_phrases([text])[0] for text in TEXTS]
    assert noun_phrases([]) == []


def test_missing_weights_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARSERS", ("no_such_parser",))
    module.parser.cache_clear()
    try:
        with pytest.raises(MissingPackageError, match="no_such_parser") as caught:
            noun_phrases(["a dog"])
        assert "[text]" in caught.value.hint
    finally:
        module.parser.cache_clear()
