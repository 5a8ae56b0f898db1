"""What a data set's statements are worth where people's labels exist: AP and recall of boxes, CIDEr, grounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, MissingPackageError, StorageError
from data_engine.qa.scope import Scope
from data_engine.qa.session import Session
from data_engine.quality.cider import cider
from data_engine.quality.coco import check_source
from data_engine.quality.detection import average_precision
from data_engine.quality.grounding import grounding_quality
from data_engine.quality.selected import Labels, Selected
from data_engine.query import run

_TEXTS = ("brief", "detailed", "more_detailed")

_SORTS = """
    SELECT DISTINCT s.source, s.kind,
        CASE WHEN s.kind = 'phrase' THEN (SELECT t.source FROM annotations t WHERE t.annotation_id = s.parent_id)
            ELSE s.granularity END AS sort
    FROM said s
    WHERE s.kind <> 'region' OR s.parent_id IS NULL
"""


@dataclass(frozen=True)
class TruthFigure:
    """One measure of one source against truth, over how many of truth's statements; `note` says why it has no value."""

    source: str
    measure: str
    value: float | None
    over: int | None = None
    note: str | None = None


def truth_figures(session: Session, truth: str) -> Iterator[TruthFigure]:
    """Measure what counts of every source (the session's scope) against the source `truth`.

    Raises DatasetError when there is no such source. A measure that cannot be taken (shards are missing, a
    package is not installed) is a figure without a value.
    """
    check_source(session.dataset, truth)
    sorts = {tuple(row.values()) for row in run(session.connection, _SORTS).read_all().to_pylist()}
    sources = sorted({source for source, _, _ in sorts} - {truth})
    judged = _counted(session.dataset, session.scope, sources)
    if (truth, "region", "phrase") in sorts:
        for source in sources:
            if (source, "region", "phrase") in sorts:
                yield from _figures(source, "boxes", partial(_boxes, judged, source, truth))
    for granularity in _TEXTS:
        for source in sources if (truth, "text", granularity) in sorts else []:
            if (source, "text", granularity) in sorts:
                yield from _figures(
                    source,
                    f"{granularity} texts",
                    partial(_texts, judged, source, truth, granularity),
                )
    for source in sources:
        if (source, "phrase", truth) in sorts:
            yield from _figures(source, "phrases", partial(_phrases, judged, source, truth))


def _counted(dataset: Dataset, scope: Scope, sources: list[str]) -> Dataset:
    """The data set with what the scope leaves of the sources; truth is taken as it is."""
    labels = {source: Labels((source,), scope.round) for source in sources}
    return Selected(dataset, 0.0, labels, held_out=False)  # none is held out: all images


def _figures(
    source: str, what: str, measured: Callable[[], list[tuple[str, float, int]]]
) -> Iterator[TruthFigure]:
    try:
        for measure, value, over in measured():
            yield TruthFigure(source, f"{what}: {measure}", value, over)
    except (DatasetError, StorageError, MissingPackageError) as error:
        yield TruthFigure(source, what, None, None, error.message)


def _boxes(dataset: Dataset, source: str, truth: str) -> list[tuple[str, float, int]]:
    found = average_precision(dataset, source, truth, threshold=0.0)
    values = {"AP": found.ap, "AP50": found.ap50, "recall": found.recall, "precision": found.precision}
    return [(name, value, found.truth) for name, value in values.items()]


def _texts(dataset: Dataset, source: str, truth: str, granularity: str) -> list[tuple[str, float, int]]:
    found = cider(dataset, source, truth, granularity=granularity)
    return [("CIDEr", found.score * 100, found.texts)]


def _phrases(dataset: Dataset, source: str, truth: str) -> list[tuple[str, float, int]]:
    found = grounding_quality(dataset, source, truth)
    return [("recall@1", found.recall, found.phrases), ("precision", found.precision, found.predicted)]
