"""Scores judged by how they rank right statements against wrong ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import DatasetError
from data_engine.quality.scores import RankingQuality, area_under_curve, ranking_quality
from tests.test_quality_detection import image_id, make_dataset

scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=20)


@given(scores, scores)
def test_the_area_is_the_share_of_pairs_ranked_right(good: list[float], bad: list[float]) -> None:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in good for b in bad]
    area = area_under_curve(np.array(good), np.array(bad))
    assert area == pytest.approx(np.mean(pairs))
    assert area_under_curve(np.array(bad), np.array(good)) == pytest.approx(1 - area)
    # Only the order counts.
    assert area_under_curve(np.array(good) ** 3 + 7, np.array(bad) ** 3 + 7) == pytest.approx(area)


def text(words: str, granularity: str = "brief") -> Annotation:
    return Annotation("text", words, granularity)


def region(words: str) -> Annotation:
    return Annotation("region", words, "phrase", box=(1, 1, 9, 9))


def score(number: int, source: str, of: Annotation, value: float) -> Annotation:
    rows = AnnotationRows(source)
    rows.add(image_id(number), [of])
    parent = rows.table()["annotation_id"][0].as_py()
    return Annotation(of.kind, granularity=of.granularity, parent=parent, score=value)


def test_scores_of_right_statements_are_held_against_those_of_wrong_ones(tmp_path: Path) -> None:
    right, wrong = text("a cup"), text("a dog")
    right_region, wrong_region = region("cup"), region("dog")
    long = text("a cup on a table", "detailed")
    images = 5
    said = [
        [score(0, "human", right, 0.9), score(0, "wrong", wrong, 0.1), score(0, "human", long, 0.0)],
        [score(1, "human", right, 0.3), score(1, "wrong", wrong, 0.3)],
        [score(2, "human", right_region, 0.2), score(2, "wrong", wrong_region, 0.8)],
        [Annotation("text", "a cup", "brief", score=0.0)],  # its own statement, not a score of one
        [score(4, "other", right, 0.0)],
    ]
    dataset = make_dataset(
        tmp_path,
        {
            "human": [[right, right_region, long]] * images,
            "wrong": [[wrong, wrong_region]] * images,
            "scorer": said,
            "quiet": [[]] * images,
        },
        images,
    )
    # 0.9 and 0.3 against 0.1 and 0.3: three pairs right, 0.3 against 0.3 a tie.
    briefs = ranking_quality(dataset, "scorer", "human", "wrong", kind="text", granularity="brief")
    assert briefs == RankingQuality((1 + 1 + 1 + 0.5) / 4, 2, 2)
    assert ranking_quality(dataset, "scorer", "human", "wrong", kind="region") == RankingQuality(0, 1, 1)
    # 0.9, 0.3, 0.0 and 0.2 against 0.1, 0.3 and 0.8.
    every = ranking_quality(dataset, "scorer", "human", "wrong")
    assert every == RankingQuality(pytest.approx((3 + 1.5 + 0 + 1) / 12), 4, 3)
    silent = ranking_quality(dataset, "quiet", "human", "wrong")
    assert math.isnan(silent.auc) and (silent.good, silent.bad) == (0, 0)
    with pytest.raises(DatasetError, match="no annotations by 'bad'"):
        ranking_quality(dataset, "scorer", "human", "bad")
