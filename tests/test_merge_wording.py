"""Wordings of one text: words exchanged one for one keep their places."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from specialists.merge_wording import moved_span, words_apart

word = st.sampled_from(["a", "red", "blue", "star", "cup", "and", "left", "two"])
sentence = st.lists(word, min_size=1, max_size=12)


def spans(words: list[str]) -> list[tuple[int, int]]:
    """(start, end) of each word in the words joined by blanks."""
    ends = [len(" ".join(words[: i + 1])) for i in range(len(words))]
    return [(end - len(one), end) for one, end in zip(words, ends, strict=True)]


@given(sentence, st.data())
def test_a_word_that_is_exchanged_stands_where_the_old_one_stood(
    words: list[str], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(words) - 1))
    other = [*words[:at], "green", *words[at + 1 :]]
    old, new = spans(words), spans(other)
    for first in range(len(words)):
        for last in range(first, len(words)):
            span = (old[first][0], old[last][1])
            assert moved_span(" ".join(words), " ".join(other), span) == (new[first][0], new[last][1])
    assert 1 <= words_apart(" ".join(words), " ".join(other)) <= len(words)


@given(sentence, sentence)
def test_distance_is_symmetric_bounded_and_zero_for_the_same_words(a: list[str], b: list[str]) -> None:
    ours, theirs = " ".join(a), " ".join(b)
    assert words_apart(ours, ours) == 0
    assert 0 <= words_apart(ours, theirs) <= max(len(a), len(b))


def test_spans_that_are_no_whole_words_or_have_no_counterpart_have_no_place() -> None:
    assert moved_span("a red star", "a blue star", (0, 4)) is None
    assert moved_span("a red star, two cups", "a red star", (12, 20)) is None
    assert moved_span("a red star.", "a blue star.", (0, 10)) == (0, 11)
