"""Which statements the reports are about: those that a round of verdicts kept, or all; of all sources, or some."""

from __future__ import annotations

from dataclasses import dataclass

from data_engine.dataset import Dataset
from data_engine.entry_point import did_you_mean
from data_engine.errors import DatasetError


@dataclass(frozen=True)
class Scope:
    """`round`: only sources that this round of verdicts judged, without what it dropped; None: all statements.

    A statement is left out for a reason, never for want of one: in a source that was judged, one without a
    verdict counts (the check `verdict_counts` names it). `sources`: only these; none given, all.
    """

    round: int | None = None
    sources: tuple[str, ...] = ()

    def sql(self) -> str:
        """The SELECT of the view `statements`."""
        conditions = []
        if self.sources:
            names = ", ".join("'" + name.replace("'", "''") + "'" for name in self.sources)
            conditions.append(f"a.source IN ({names})")
        if self.round is not None:
            judged = f"FROM verdicts v WHERE v.round = {int(self.round)}"
            conditions.append(f"a.source IN (SELECT DISTINCT v.source {judged})")
            conditions.append(
                f"NOT EXISTS (SELECT 1 {judged} AND NOT v.kept AND v.annotation_id = a.annotation_id)"
            )
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT * FROM annotations a{where}"

    def __str__(self) -> str:
        what = "all statements" if self.round is None else f"what round {self.round} of verdicts kept"
        return what + (f", of {', '.join(self.sources)}" if self.sources else "")


def rounds(dataset: Dataset) -> list[int]:
    """The rounds of verdicts that a data set has, in order."""
    return sorted(int(name) for name in dataset.store.folders("verdicts") if name.isdecimal())


def find_scope(
    dataset: Dataset, round_: int | None = None, sources: tuple[str, ...] = (), *, everything: bool = False
) -> Scope:
    """What the last round kept (all, where nothing was filtered), or a round's, or with `everything` all.

    Raises DatasetError for a round or a source that the data set does not have.
    """
    there = rounds(dataset)
    known = dataset.sources()
    for name in sources:
        if name not in known:
            raise DatasetError(
                f"{dataset.url} has no annotations by {name!r}{did_you_mean(name, known)}",
                f"its sources: {', '.join(known) or 'none'}",
            )
    if round_ is not None and round_ not in there:
        raise DatasetError(
            f"{dataset.url} has no verdicts of round {round_}",
            f"its rounds: {', '.join(map(str, there)) or 'none; make some with fde filter'}",
        )
    if round_ is None and there and not everything:
        round_ = there[-1]
    return Scope(None if everything else round_, sources)
