"""Texts about an image held against truth's texts by CIDEr, the measure that captioners are compared by.

CIDEr-D (Vedantam et al., arXiv 1411.5726) is the mean similarity of n-grams, n of 1 to 4, weighted by how
few images' references have them. The arithmetic is the reference implementation's (pycocoevalcap). Words are
taken without its tokenizer, which needs Java: runs of letters, digits and apostrophes, in lower case. On
plain sentences that is the same; where it is not, figures differ a little from those of papers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data_engine.dataset import Dataset
from data_engine.errors import MissingPackageError
from data_engine.quality.captions import texts_by_image
from data_engine.quality.coco import check_source
from data_engine.quality.shares import Shares

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True)
class Cider:
    """`score` is the mean over `texts`, in 0..10: papers print it times 100. Needs references of 2 images."""

    score: float
    texts: int


def cider(dataset: Dataset, predictions: str, truth: str, *, granularity: str = "brief") -> Cider:
    """One source's texts of a granularity, all of truth's of that image as their references.

    Texts about images that truth has none for are left out. The references of the whole data set lie in
    memory, as their words' weights depend on all of them. The score is 0 where nothing can be compared.
    Raises DatasetError when a source is missing and MissingPackageError without pycocoevalcap.
    """
    by_image = cider_by_image(dataset, predictions, truth, granularity=granularity)
    texts = int(by_image.whole.sum())
    return Cider(by_image.value if texts else 0.0, texts)


def cider_by_image(dataset: Dataset, predictions: str, truth: str, *, granularity: str = "brief") -> Shares:
    """The same as parts of each image: the sum of its texts' scores, and how many they are.

    What a word weighs is told by all images here, whichever of them are drawn. Raises as `cider` does.
    """
    try:
        from pycocoevalcap.cider.cider import Cider as Scorer
    except ImportError as error:
        raise MissingPackageError.of(error.name or "pycocoevalcap", "eval") from error

    check_source(dataset, predictions)
    check_source(dataset, truth)
    pairs = list(_pairs(dataset, predictions, truth, granularity))
    if len(pairs) < 2:
        return Shares.of((image_id, 0.0, 1.0) for image_id, _, _ in pairs)
    references = {number: known for number, (_, _, known) in enumerate(pairs)}
    said = {number: [text] for number, (_, text, _) in enumerate(pairs)}
    _, scores = Scorer().compute_score(references, said)
    return Shares.of(
        (image_id, float(score), 1.0) for (image_id, _, _), score in zip(pairs, scores, strict=True)
    )


def words(text: str) -> str:
    """The words of a text in lower case, one blank between them."""
    return " ".join(_WORD.findall(text.casefold()))


def _pairs(
    dataset: Dataset, predictions: str, truth: str, granularity: str
) -> Iterator[tuple[str, str, list[str]]]:
    for shard in dataset.shards:
        known = texts_by_image(dataset, truth, shard, "text", granularity)
        said = texts_by_image(dataset, predictions, shard, "text", granularity)
        for image_id, texts in said.items():
            references = [words(text) for text in known.get(image_id, [])]
            if references:
                for text in texts:
                    yield image_id, words(text), references
