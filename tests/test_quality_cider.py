"""CIDEr over data sets on disk: the reference implementation's figures, on the right texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation
from data_engine.errors import DatasetError
from data_engine.quality.cider import cider, words
from tests.test_quality_detection import make_dataset

CAPTIONS = [
    ["A small red cup stands on the table.", "On the table stands a cup."],
    ["Two dogs run over a meadow."],
    ["A woman reads a newspaper on a bench in the park."],
    [],
]


def texts(*said: str, granularity: str = "brief") -> list[Annotation]:
    return [Annotation("text", words, granularity, score=0.5) for words in said]


TRUTH = [texts(*said) for said in CAPTIONS]


def test_truth_is_most_like_itself_and_a_wrong_picture_s_caption_is_not(tmp_path: Path) -> None:
    said = {
        "own": [texts(*one[:1]) for one in CAPTIONS],
        "near": [
            texts("a red cup on the table"),
            texts("dogs run"),
            texts("A woman on a bench."),
            texts("What is that?"),
        ],
        "swapped": [texts(CAPTIONS[1][0]), texts(CAPTIONS[2][0]), texts(CAPTIONS[0][1]), []],
        "long": [texts(*one[:1], granularity="detailed") for one in CAPTIONS],
    }
    dataset = make_dataset(tmp_path, {"human": TRUTH, **said}, 4)
    own, near, swapped = (cider(dataset, name, "human") for name in ("own", "near", "swapped"))
    assert (own.texts, near.texts, swapped.texts) == (3, 3, 3)  # of the fourth image nothing is known
    assert own.score > near.score > swapped.score >= 0
    # An image with a single reference scores 10 for its own words.
    assert own.score > 20 / 3
    assert cider(dataset, "long", "human").texts == 0
    assert cider(dataset, "long", "human").score == 0


def test_the_figure_is_the_reference_implementation_s(tmp_path: Path) -> None:
    from pycocoevalcap.cider.cider import Cider

    said = ["A cup stands on the red table", "Two dogs, running.", "a park with a woman's newspaper"]
    dataset = make_dataset(tmp_path, {"human": TRUTH, "own": [*(texts(one) for one in said), []]}, 4)
    references = {i: [words(text) for text in CAPTIONS[i]] for i in range(3)}
    expected, _ = Cider().compute_score(references, {i: [words(text)] for i, text in enumerate(said)})
    assert cider(dataset, "own", "human").score == pytest.approx(expected)
    with pytest.raises(DatasetError):
        cider(dataset, "nobody", "human")


@given(st.text(max_size=60))
def test_words_have_neither_case_nor_punctuation(text: str) -> None:
    found = words(text)
    assert found == words(found) == found.strip()
    assert not set(found) & set('.,;:!?"()_\n\t')


def test_words_keep_what_belongs_to_them() -> None:
    assert words("The dog's 2 RED cups -- don't_fall!") == "the dog's 2 red cups don't fall"
