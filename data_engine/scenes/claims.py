"""What a text says of a scene beside its things: what is written there, and who does what to what.

Quotations are held against truth's lines of writing. Truth has no rows of actions, but its more detailed caption tells
the scene's one action where actor and object can be told from all other things; so actions are held against those of
truth's own texts. How things stand to one another (above, next to, in front of) is not judged.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from data_engine.dataset import Dataset
from data_engine.quality.captions import texts_by_image
from data_engine.quality.coco import check_source
from data_engine.scenes.attributes import QUOTED, NounPhrase, Reader

_GRANULARITIES = ("brief", "detailed", "more_detailed")


@dataclass(frozen=True, slots=True)
class Act:
    """`verb` in the third person, such as "pushes", whichever way it was said."""

    actor: NounPhrase
    verb: str
    object: NounPhrase


@dataclass(frozen=True)
class ClaimQuality:
    """Shares; 0 where nothing of the sort was said. `quotations` and `actions` are how many were said.

    `quoted_true` of the quotations, `acted_true` of the actions; `true` of the texts: it has a noun phrase, and all of
    its noun phrases, quotations and actions are true.
    """

    quoted_true: float
    acted_true: float
    true: float
    quotations: int
    actions: int
    texts: int


@dataclass(frozen=True)
class ClaimReader:
    """Finds quotations and actions, by the words of the reader's worlds."""

    reader: Reader = field(default_factory=Reader)

    def quotations(self, text: str) -> list[str]:
        """What stands in quotation marks."""
        return [match.group().strip('"') for match in QUOTED.finditer(text)]

    def acts(self, text: str) -> list[Act]:
        """Each verb of an action that stands between two noun phrases and nothing else."""
        phrases = self.reader.phrases(text)
        found = []
        for actor, thing in itertools.pairwise(phrases):
            between = " ".join(text[actor.span[1] : thing.span[0]].casefold().split())
            if between in self._verbs:
                found.append(Act(actor, self._verbs[between], thing))
        return found

    def judge(
        self, text: str, truths: Sequence[str], descriptions: Sequence[str], lines: Sequence[str]
    ) -> tuple[list[bool], list[bool]]:
        """Whether each quotation of a text is a line, or lines in a row, of the scene's writing (`lines`, in reading
        order), and whether each act is told in one of `truths`: the same verb, of things that this one's noun phrases fit.
        """
        ends = range(1, len(lines) + 1)
        written = {" ".join(lines[first:end]) for end in ends for first in range(end)}
        known = [act for truth in truths for act in self.acts(truth)]
        things = self.reader.things(descriptions)

        def told(act: Act) -> bool:
            return any(
                act.verb == other.verb
                and _same(act.actor, other.actor, things)
                and _same(act.object, other.object, things)
                for other in known
            )

        return [quoted in written for quoted in self.quotations(text)], [told(a) for a in self.acts(text)]

    @cached_property
    def _verbs(self) -> dict[str, str]:
        actions = [action for world in self.reader.worlds for action in world.actions]
        return {f"is {action.doing}": action.verb for action in actions} | {
            action.verb: action.verb for action in actions
        }


def claim_quality(
    dataset: Dataset, predictions: str, truth: str, granularity: str, reader: ClaimReader
) -> ClaimQuality:
    """Judge the texts of a granularity of one source by the texts and descriptions of another.

    One shard lies in memory at a time. Raises DatasetError when a source is missing.
    """
    quoted: list[bool] = []
    acted: list[bool] = []
    whole: list[bool] = []
    for text, truths, descriptions, lines in _texts(dataset, predictions, truth, granularity):
        phrases = reader.reader.judge(text, descriptions)
        quotations, acts = reader.judge(text, truths, descriptions, lines)
        quoted += quotations
        acted += acts
        whole.append(bool(phrases) and all([*phrases, *quotations, *acts]))
    return ClaimQuality(_share(quoted), _share(acted), _share(whole), len(quoted), len(acted), len(whole))


def _texts(
    dataset: Dataset, predictions: str, truth: str, granularity: str
) -> Iterator[tuple[str, list[str], list[str], list[str]]]:
    """Each text of a source, with truth's texts of that image, its descriptions of the things, and its lines."""
    check_source(dataset, predictions)
    check_source(dataset, truth)
    for shard in dataset.shards:
        said = texts_by_image(dataset, predictions, shard, "text", granularity)
        told = [texts_by_image(dataset, truth, shard, "text", one) for one in _GRANULARITIES]
        things = texts_by_image(dataset, truth, shard, "region", "brief")
        written = texts_by_image(dataset, truth, shard, "text", "ocr")
        for image_id, texts in said.items():
            lines = [line for text in written.get(image_id, []) for line in text.split("\n")]
            truths = [text for texts_of in told for text in texts_of.get(image_id, [])]
            for text in texts:
                yield text, truths, things.get(image_id, []), lines


def _same(ours: NounPhrase, theirs: NounPhrase, things: Sequence[NounPhrase]) -> bool:
    """Whether a thing that truth's phrase names is one that our phrase fits."""
    return any(theirs.fits(thing) and ours.fits(thing) for thing in things)


def _share(verdicts: Sequence[bool]) -> float:
    return sum(verdicts) / len(verdicts) if verdicts else 0.0
