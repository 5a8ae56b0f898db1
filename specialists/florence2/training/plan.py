"""What a data set holds for a training, counted once before it begins, and kept beside it as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError
from data_engine.fingerprint import digest
from data_engine.held_out import is_held_out
from data_engine.shards import read_provenances
from data_engine.trainer import Learn
from specialists.florence2.training.kept import LOOKED_AT, Kept, teaches

_CORPUS = 20_000
"""Distinct texts that a new tokenizer is made from, at most."""

_WORDS = 256
"""Words that a dense head tells apart, at most: the most frequent ones of the regions' texts."""


@dataclass(frozen=True)
class Shard:
    """How many images of a shard teach something, and how many of those that are held out would."""

    name: str
    taught: int
    held: int


@dataclass(frozen=True)
class Plan:
    """What is learnt from. `data` is a digest of all that was read, `tokenizer` a definition in JSON.

    `words` are those of a dense head. `statements` counts the kept rows that teach, by kind and granularity.
    """

    url: str
    learn: Learn
    shards: tuple[Shard, ...]
    words: tuple[str, ...]
    statements: dict[str, int]
    data: str
    settings: str = ""
    tokenizer: str = ""
    corpus: list[str] = field(default_factory=list, repr=False)

    @property
    def images(self) -> int:
        return sum(shard.taught for shard in self.shards)

    @property
    def held(self) -> int:
        return sum(shard.held for shard in self.shards)

    def write(self, file: Path) -> None:
        """As JSON, without the corpus, in one step."""
        partial = file.with_name(file.name + ".partial")
        partial.write_text(json.dumps(asdict(replace(self, corpus=[]))), encoding="utf-8")
        partial.replace(file)


def read_plan(file: Path) -> Plan:
    """What `Plan.write` wrote. Raises OSError, or ValueError, KeyError or TypeError for anything else."""
    value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    learn = value["learn"]
    return Plan(
        **value
        | {
            "learn": Learn(tuple(learn["sources"]), learn["verdicts"], learn["held_out"]),
            "shards": tuple(Shard(**shard) for shard in value["shards"]),
            "words": tuple(value["words"]),
        }
    )


def data_digest(kept: Kept, tasks: Collection[str]) -> str:
    """What the rows are that a training would read: the fingerprints of their shards, and the choice."""
    names = [name for shard in kept.dataset.shards for name in kept.names(shard)]
    found = read_provenances(kept.dataset.store, names)
    facts = [
        [name, (p or {}).get("fingerprint", p), (p or {}).get("rows")]
        for name, p in zip(names, found, strict=True)
    ]
    return digest([kept.dataset.info.id, asdict(kept.learn), sorted(tasks), facts])


def survey(dataset: Dataset, learn: Learn, tasks: Collection[str]) -> Plan:
    """Count what there is, one shard after the other. Raises DatasetError where nothing is to be learnt."""
    kept = Kept(dataset, learn)
    shards: list[Shard] = []
    words: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    corpus: dict[str, None] = {}
    rows_in_all = 0
    for name in dataset.shards:
        rows = kept.table(name, LOOKED_AT)
        rows_in_all += rows.num_rows
        rows = rows.filter(pa.array(teaches(rows, tasks)))
        ids = rows["image_id"].unique()
        held = is_held_out(ids, learn.held_out)
        shards.append(Shard(name, int((~held).sum()), int(held.sum())))
        rows = rows.filter(pc.is_in(rows["image_id"], ids.filter(pa.array(~held))))
        kinds.update(_kinds(rows))
        labels = rows.filter(pc.equal(rows["kind"], "region"))["text"].drop_null()
        for row in pc.value_counts(labels).to_pylist():
            for word in row["values"].split():
                words[word] += row["counts"]
        if len(corpus) < _CORPUS:
            texts = pc.unique(rows["text"].drop_null())[: _CORPUS - len(corpus)].to_pylist()
            corpus.update(dict.fromkeys(texts))
    if not any(shard.taught for shard in shards):
        raise DatasetError(*_nothing(dataset, learn, rows_in_all, sum(shard.held for shard in shards)))
    return Plan(
        dataset.url,
        learn,
        tuple(shards),
        tuple(word for word, _ in sorted(words.items(), key=lambda w: (-w[1], w[0]))[:_WORDS]),
        dict(sorted(kinds.items())),
        data_digest(kept, tasks),
        corpus=list(corpus),
    )


def _nothing(dataset: Dataset, learn: Learn, rows: int, held: int) -> tuple[str, str]:
    """Why there is nothing to learn from, and what to do."""
    sources = " and ".join(learn.sources)
    if held:
        return (
            f"{dataset.url}: all {held} images that teach something are held out",
            "hold out a smaller share, or add images",
        )
    if rows:
        return (
            f"{dataset.url}: none of the {rows} statements of {sources} that are kept teaches one of the tasks",
            "name other tasks, or other sources to learn from",
        )
    if learn.verdicts is None:
        return f"{dataset.url}: {sources} said nothing", "run fde annotate first"
    return (
        f"{dataset.url}: round {learn.verdicts} of the filters keeps nothing of {sources}",
        "loosen the recipe's filters and run fde filter again; fde qa shows what they dropped",
    )


def _kinds(rows: pa.Table) -> dict[str, int]:
    masked = rows["mask"].is_valid()
    name = pc.if_else(masked, "mask", pc.coalesce(rows["granularity"], ""))
    joined = pc.utf8_trim_whitespace(pc.binary_join_element_wise(rows["kind"], name, " "))
    return {row["values"]: row["counts"] for row in pc.value_counts(joined).to_pylist()}
