"""What there is to choose from: sources, rounds, filters, and the most frequent labels of some shards."""

from __future__ import annotations

import time
from typing import Any

from data_engine.schema import KINDS, REVIEWER
from pipelines.viewer.tables import Relations, Tables, unreadable

_SECONDS = 0.5
_MOST_SHARDS = 8
_LABELS = 200

_WORDS = """
    SELECT 'label' AS what, lower(text) AS word, count(*) AS n FROM {0.annotations}
    WHERE text IS NOT NULL AND length(text) < 60
        AND ((kind = 'region' AND granularity = 'phrase') OR granularity = 'class') GROUP BY ALL
    UNION ALL SELECT 'granularity', granularity, count(*) FROM {0.annotations}
    WHERE granularity IS NOT NULL GROUP BY ALL
    UNION ALL SELECT 'filter', dropped_by, count(*) FROM {0.verdicts} WHERE dropped_by IS NOT NULL GROUP BY ALL
"""


def overview(tables: Tables, read_only: bool) -> dict[str, Any]:
    """What the data set is, and which sources and rounds there are.

    `missing` says in a line each what is not there yet or unreadable.
    """
    info = tables.dataset.info
    return {
        "dataset": tables.dataset.url,
        "source": info.source,
        "images": info.images,
        "shards": len(tables.shards),
        "sources": list(tables.folders("annotations")),
        "kinds": KINDS,
        "rounds": tables.rounds(),
        "read_only": read_only,
        "missing": _missing(tables) + tables.aside,
    }


def suggestions(tables: Tables) -> dict[str, Any]:
    """Labels, granularities and filters of a few shards spread over the data set, the most frequent first.

    `sampled` says of how many shards.
    """
    counts: dict[str, dict[str, int]] = {"label": {}, "granularity": {}, "filter": {}}
    shards = tables.shards
    step = max(1, len(shards) // _MOST_SHARDS)
    started, sampled = time.monotonic(), 0

    def build(r: Relations) -> tuple[str, list[str]]:
        return _WORDS.format(r), []

    for shard in shards[::step]:
        for row in tables.select([shard], build).to_pylist():
            of = counts[row["what"]]
            of[row["word"]] = of.get(row["word"], 0) + row["n"]
        sampled += 1
        if time.monotonic() - started > _SECONDS:
            break
    ordered = {what: sorted(of, key=lambda word: (-of[word], word)) for what, of in counts.items()}
    return {
        "labels": ordered["label"][:_LABELS],
        "granularities": ordered["granularity"],
        "filters": ordered["filter"],
        "sampled": sampled,
    }


def _missing(tables: Tables) -> list[str]:
    """Of each folder: shards that are not there, and its first shard where it cannot be used."""
    shards = tables.shards
    lines = []
    if not shards:
        lines.append("the data set has no images")
    elif not tables.folders("annotations"):
        lines.append("nothing was said of the images yet: fde annotate does that")
    for table, what in (("annotations", "{}"), ("verdicts", "the verdicts of round {}")):
        for name, there in tables.folders(table).items():
            lacking = len(set(shards) - there)
            if lacking and name != REVIEWER:
                lines.append(f"{what.format(name)}: {lacking:,} of {len(shards):,} shards are not there yet")
            first = f"{table}/{name}/{min(there)}.parquet" if there else ""
            why = unreadable(tables.dataset, first, whole=False) if first else None
            if why is not None:
                tables.set_aside(first, why)
    return lines
