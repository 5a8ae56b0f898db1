"""Mentions of things in texts, held against descriptions of things: words alone, no model."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from specialists.florence2.contradicting import Claim, mentions


def link(text: str, phrase: str, *numbers: int) -> tuple[tuple[int, int], tuple[int, ...]]:
    start = text.index(phrase)
    return (start, start + len(phrase)), numbers


def contradicted(text: str, links, described: list[str]) -> list[Claim]:
    return [claim for mention in mentions(text, links, described) for claim in mention.claims]


def changed(text: str, claim: Claim) -> str:
    return text[: claim.start] + claim.words + text[claim.end :]


def outcomes(text: str, links, described: list[str]) -> set[str]:
    return {changed(text, claim) for claim in contradicted(text, links, described)}


def test_a_phrase_that_its_thing_does_not_fit_may_have_any_other_word_of_it() -> None:
    text = "A red star lies left of a cup."
    found = contradicted(text, [link(text, "A red star", 0)], ["small blue star", "white cup"])
    assert {changed(text, claim) for claim in found} == {
        "A small star lies left of a cup.",
        "A blue star lies left of a cup.",
    }
    assert {(claim.old, claim.new, claim.places) for claim in found} == {
        ("red", "small", (0,)),
        ("red", "blue", (0,)),
    }


def test_what_some_thing_of_the_kind_fits_is_not_contradicted() -> None:
    text = "a red star and a blue star"
    links = [link(text, "a red star", 0), link(text, "a blue star", 1)]
    assert contradicted(text, links, ["blue star", "small red star"]) == []
    assert contradicted(text, [], ["small blue star", "red star"]) == []


def test_a_noun_without_a_link_is_held_against_all_of_its_kind() -> None:
    text = "next to an orange star"
    described = ["green star", "blue star", "orange cup"]
    assert outcomes(text, [], described) == {"next to a green star", "next to a blue star"}


def test_a_link_to_a_thing_of_another_kind_says_nothing() -> None:
    text = "a red star"
    assert outcomes(text, [link(text, "a red star", 1)], ["blue star", "green cup"]) == {"a blue star"}
    assert outcomes(text, [link(text, "a red star", 0)], ["green cup"]) == set()


def test_a_plural_is_held_against_several_things_and_takes_what_all_of_them_have() -> None:
    text = "two red stars"
    assert outcomes(text, [], ["small blue star", "large blue star"]) == {"two blue stars"}
    assert outcomes(text, [], ["small blue star"]) == set()
    assert outcomes(text, [], ["red star", "large red star"]) == set()
    linked = [link(text, "two red stars", 1, 2)]
    assert outcomes(text, linked, ["green star", "blue star", "blue star"]) == {"two blue stars"}


def test_a_number_is_that_of_the_things_which_fit_or_are_linked() -> None:
    text = "Six red stars and a cup"
    stars = ["red star", "small red star", "red star"]
    assert outcomes(text, [], stars) == {"Three red stars and a cup"}
    linked = [link(text, "Six red stars", 0, 1)]
    assert outcomes(text, linked, stars) == {"Three red stars and a cup", "Two red stars and a cup"}
    text = "three red stars"
    assert outcomes(text, [link(text, text, 0, 1)], stars) == set()
    (claim,) = contradicted("four red stars", [], stars[:2])
    assert claim.places == ()


def test_a_thing_that_lacks_three_words_is_another_one() -> None:
    text = "a large dotted red star"
    assert outcomes(text, [], ["small striped blue star"]) == set()
    assert "a small dotted red star" in outcomes(text, [], ["small striped red star"])


def test_a_mention_has_the_things_that_fit_it_and_none_where_they_are_too_few() -> None:
    text = "two red stars, a cup and the blue star"
    described = ["small red star", "red star", "blue star", "key"]
    found = {text[slice(*one.span)]: one.fitting for one in mentions(text, [], described)}
    assert found == {"two red stars": (0, 1), "the blue star": (2,)}
    assert [one.fitting for one in mentions("two blue stars", [], described)] == [()]
    assert [one.fitting for one in mentions("the star", [], described)] == [(0, 1, 2)]


def test_what_is_quoted_is_no_mention() -> None:
    text = 'a sign that says "a red star"'
    assert contradicted(text, [], ["blue star"]) == []


words = st.text(string.ascii_lowercase + " \"'-,.AZé", max_size=40)


@given(words, st.lists(words, max_size=4), st.data())
def test_claims_name_whole_words_of_the_text(text: str, described: list[str], data: st.DataObject) -> None:
    spans = [tuple(sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))) for _ in range(2)]
    links = [(span, range(len(described))) for span in spans]
    for claim in contradicted(text, links, described):
        assert 0 <= claim.start < claim.end <= len(text)
        assert text[: claim.end].casefold().endswith(claim.old)
        assert all(0 <= number < len(described) for number in claim.places)
        assert changed(text, claim).casefold() != text.casefold()
        assert claim.words.casefold().endswith(claim.new)
