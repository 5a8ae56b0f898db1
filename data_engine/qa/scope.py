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

    def views(self) -> dict[str, str]:
        """The SELECTs of the relations that `statements` is made of, and of itself, in their order.

        Ids are held against each other by a 64-bit hash, which takes a quarter of their memory: among the
        5 billion statements of an FLD-5B, of which a fifth is dropped, 0.2 are expected to fall with another's.
        """
        if self.round is None:
            return {"statements": f"SELECT a.* FROM annotations a {self._where([])}"}
        verdicts = f"FROM verdicts WHERE round = {int(self.round)}"
        return {
            "_judged": f"SELECT DISTINCT source {verdicts}",
            "_dropped": f"SELECT hash(annotation_id) AS id {verdicts} AND NOT kept",
            # Not as joins: DuckDB might put the larger side, the statements, into memory.
            "statements": "SELECT a.* FROM annotations a "
            + self._where(
                [
                    "list_contains((SELECT list(source) FROM _judged), a.source)",
                    "hash(a.annotation_id) NOT IN (SELECT id FROM _dropped)",
                ]
            ),
        }

    def _where(self, conditions: list[str]) -> str:
        if self.sources:
            names = ", ".join("'" + name.replace("'", "''") + "'" for name in self.sources)
            conditions = [f"a.source IN ({names})", *conditions]
        return f"WHERE {' AND '.join(conditions)}" if conditions else ""

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
