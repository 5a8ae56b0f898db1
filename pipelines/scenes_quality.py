"""How good the specialists of a recipe are on drawn scenes, each by itself and in every way that it can be.

What a source said decides what is measured of it. A specialist that answers to others is also asked
about truth itself (truth's texts, boxes and phrases in place of what the recipe feeds it), so that its
figures are its own and not those of whatever came before it in the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.quality.captions import caption_quality, region_agreement
from data_engine.quality.cider import cider
from data_engine.quality.detection import average_precision
from data_engine.quality.grounding import grounding_quality
from data_engine.quality.masks import mask_quality
from data_engine.quality.scores import ranking_quality
from data_engine.quality.text import text_quality
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.scenes.attributes import Reader
from data_engine.scenes.claims import ClaimReader, claim_quality
from data_engine.scenes.scene import SOURCE as TRUTH
from data_engine.scenes.world import World
from data_engine.scenes.write import make_scenes
from data_engine.storage import storage_errors
from pipelines.annotate import Runner, annotate

_ASKED = ".asked"
"""What is put behind a specialist's name for what it said when it was asked about truth."""

_WRONG = "mismatched" + _ASKED

_TEXTS = ("brief", "detailed", "more_detailed")
_REGION_TEXTS = {"phrase": "category", "brief": "description", "ocr": "writing"}

_SAID = """
    SELECT DISTINCT a.source, a.kind, coalesce(a.granularity, '') AS granularity,
        CASE WHEN a.mask IS NOT NULL THEN 'mask' WHEN a.text IS NOT NULL THEN 'text'
             WHEN a.box IS NOT NULL THEN 'box' ELSE 'score' END AS what,
        CASE WHEN a.parent_id IS NULL THEN 'nothing' WHEN p.source IS NULL OR p.source = a.source THEN 'own'
             ELSE p.source END AS about
    FROM annotations a LEFT JOIN annotations p ON p.annotation_id = a.parent_id
"""


@dataclass(frozen=True)
class Figure:
    """One measured number of one specialist: what it is, its value and how many statements it is over."""

    specialist: str
    measure: str
    value: float
    over: int


@dataclass(frozen=True, order=True)
class _Said:
    """A sort of statement: `what` is a text, box, mask or score, `about` the source of its parent."""

    kind: str
    granularity: str
    what: str
    about: str


def compare(
    folder: Path,
    recipe: Recipe,
    worlds: Sequence[World],
    count: int = 500,
    seed: int = 0,
    *,
    reporter: Reporter,
    say: Callable[[str], None],
    runner: Runner = "auto",
) -> dict[str, list[Figure]]:
    """`measure` in several worlds, and one table of them side by side. The figures are by world."""
    found = {
        world.name: measure(folder, recipe, world, count, seed, reporter=reporter, say=say, runner=runner)
        for world in worlds
    }
    say(f"recipe {recipe.name}, {count:,} scenes of seed {seed} in each world:")
    for line in table(found):
        say(line)
    return found


def measure(
    folder: Path,
    recipe: Recipe,
    world: World,
    count: int = 500,
    seed: int = 0,
    *,
    reporter: Reporter,
    say: Callable[[str], None],
    runner: Runner = "auto",
) -> list[Figure]:
    """Draw scenes of a world below `folder`, run a recipe over them, and measure every specialist of it.

    Running it again goes on where it stopped. Raises IncompleteError when a specialist failed, and what
    drawing, ingest and annotate raise.
    """
    place = folder / f"{world.name}-{count}-of-seed-{seed}"
    say(f"{world.name}: drawing {count:,} scenes (seed {seed}) into {place}")
    with storage_errors(str(place)):
        make_scenes(place / "scenes", count, seed, world=world)
    url = str(place / "dataset")
    ingest(str(place / "scenes"), url)
    dataset = Dataset.open(url)
    say(f"{world.name}: annotating by {', '.join(recipe.specialists)}")
    annotate(dataset, recipe, runner=runner, reporter=reporter)
    asked = about_truth(recipe, _said(dataset))
    if asked.specialists:
        names = ", ".join(name.removesuffix(_ASKED) for name in asked.specialists if name != _WRONG)
        say(f"{world.name}: asking {names} about the truth")
        annotate(dataset, asked, runner=runner, reporter=reporter)
    return figures(dataset, recipe)


def about_truth(recipe: Recipe, said: dict[str, set[_Said]]) -> Recipe:
    """The specialists of a recipe that answer to other statements, with truth's in their place.

    Those are the ones that need others (truth alone is no other), and those that ground phrases in texts
    of their own. One whose rows are scores and nothing else is given wrong statements too. Of their arguments `sources`, which
    in the shipped specialists chooses among what is needed, is left out. Names end in `.asked`.
    """
    parts: dict[str, SpecialistPart] = {}
    for name, part in recipe.specialists.items():
        rows = said.get(name, set())
        scores = bool(rows) and all(row.what == "score" for row in rows)
        others = bool(part.needs) or any(row.kind == "phrase" for row in rows)
        if not others or (TRUTH in part.needs and not scores):
            continue
        needs = [TRUTH]
        if scores:
            parts[_WRONG] = SpecialistPart(
                use="specialists.mismatched:Mismatched", needs=[TRUTH], batch=64, cpus=part.cpus
            )
            needs.append(_WRONG)
        args = {key: value for key, value in part.args.items() if key != "sources"}
        parts[name + _ASKED] = part.model_copy(update={"args": args, "needs": needs})
    return recipe.model_copy(update={"specialists": parts, "filters": {}})


def figures(dataset: Dataset, recipe: Recipe) -> list[Figure]:
    """What can be measured of a recipe's specialists in a data set of scenes, in the recipe's order.

    What was said to a specialist's name with `.asked` behind it counts as that specialist's answers about
    truth, as does what it said about truth under its own name. A specialist that said nothing has no
    figures. Raises DatasetError or StorageError for a data set that is not annotated.
    """
    said = _said(dataset)
    found: list[Figure] = []
    for name in recipe.specialists:
        found += [
            Figure(name, *figure)
            for figure in _alone(dataset, recipe, name, said.get(name, set()), said[TRUTH])
        ]
        asked = name + _ASKED if name + _ASKED in said else name
        found += [Figure(name, *figure) for figure in _about_truth(dataset, asked, said.get(asked, set()))]
    return found


def table(found: dict[str, list[Figure]]) -> Iterator[str]:
    """Lines of one table: a row per specialist and measure, a column per world; - where there is no figure."""
    by_row: dict[tuple[str, str], dict[str, float]] = {}
    for world, some in found.items():
        for figure in some:
            by_row.setdefault((figure.specialist, figure.measure), {})[world] = figure.value
    # Specialists in their order, also where the first world lacks a measure that a later one has.
    order = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in by_row))}
    rows = sorted(by_row, key=lambda row: order[row[0]])
    first = max([len(name) for name, _ in rows], default=0)
    second = max([len(measure) for _, measure in rows], default=0)
    yield f"  {'':<{first}}  {'':<{second}}" + "".join(f"  {world:>11}" for world in found)
    for name, what in rows:
        cells = "".join(f"  {_cell(by_row[name, what].get(world)):>11}" for world in found)
        yield f"  {name:<{first}}  {what:<{second}}{cells}"


def _cell(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _said(dataset: Dataset) -> dict[str, set[_Said]]:
    """The sorts of statements that each source made."""
    found: dict[str, set[_Said]] = {source: set() for source in dataset.sources()}
    for row in sql(dataset, _SAID).to_pylist():
        found[row.pop("source")].add(_Said(**row))
    return found


_Measured = tuple[str, float, int]


def _alone(
    dataset: Dataset, recipe: Recipe, name: str, said: set[_Said], true: set[_Said]
) -> Iterator[_Measured]:
    """What a source said of the image by itself: boxes, masks, texts, lines."""
    if _Said("region", "phrase", "text", "nothing") in said:
        least = _least_score(recipe, name, "phrase")
        boxes = average_precision(dataset, name, TRUTH, threshold=least)
        yield "boxes: AP", boxes.ap, boxes.truth
        yield "boxes: AP50", boxes.ap50, boxes.truth
        yield f"boxes: F1 of scores >= {least:g}", boxes.f1, boxes.truth
        located = average_precision(dataset, name, TRUTH, named=False)
        yield "boxes, whatever they are called: AP50", located.ap50, located.truth
        masked = {(row.kind, row.what, row.about) for row in said}
        if ("region", "mask", "own") in masked and any(row.what == "mask" for row in true):
            masks = average_precision(dataset, name, TRUTH, iou_type="segm", threshold=least)
            yield "masks: AP", masks.ap, masks.truth
            yield "masks: AP50", masks.ap50, masks.truth
    judge = Reader().judge
    for granularity in _TEXTS:
        if any((row.kind, row.granularity, row.what) == ("text", granularity, "text") for row in said):
            texts = caption_quality(dataset, name, TRUTH, judge, granularity=granularity)
            yield f"{granularity} texts: every noun phrase is true", texts.true, texts.texts
            yield f"{granularity} texts: noun phrases that are true", texts.phrases_true, texts.phrases
            claims = claim_quality(dataset, name, TRUTH, granularity, ClaimReader())
            if claims.quotations:
                yield f"{granularity} texts: quotations that are true", claims.quoted_true, claims.quotations
            if claims.actions:
                yield f"{granularity} texts: actions that are true", claims.acted_true, claims.actions
            yield f"{granularity} texts: all of these are true", claims.true, claims.texts
            yield f"{granularity} texts: with a phrase", texts.telling, texts.texts
            yield f"{granularity} texts: truth's own words", texts.same, texts.texts
            likeness = cider(dataset, name, TRUTH, granularity=granularity)
            yield f"{granularity} texts: CIDEr / 100", likeness.score, likeness.texts
    if any((row.kind, row.granularity, row.what) == ("text", "ocr", "text") for row in said):
        texts = caption_quality(dataset, name, TRUTH, judge, granularity="ocr")
        yield "ocr texts: truth's own words", texts.same, texts.texts
    if _Said("region", "ocr", "text", "nothing") in said:
        least = _least_score(recipe, name, "ocr")
        lines = text_quality(dataset, name, TRUTH, threshold=least)
        yield f"lines of scores >= {least:g}: found", lines.located.recall, lines.truth
        yield f"lines of scores >= {least:g}: read exactly", lines.exact.recall, lines.truth
        yield f"lines of scores >= {least:g}: precision", lines.exact.precision, lines.predicted


def _about_truth(dataset: Dataset, name: str, said: set[_Said]) -> Iterator[_Measured]:
    """What a source said of truth's own statements: phrases in its texts, masks, texts of regions, scores."""
    rows = {(row.kind, row.granularity, row.what) for row in said if row.about == TRUTH}
    about = {(kind, what) for kind, _, what in rows}
    if ("phrase", "text") in about:
        phrases = grounding_quality(dataset, name, TRUTH)
        yield "phrases of truth's texts: recall@1", phrases.recall, phrases.phrases
        yield "phrases of truth's texts: merged boxes", phrases.merged_recall, phrases.phrases
        yield "phrases of truth's texts: all boxes", phrases.box_recall, phrases.boxes
        yield "phrases of truth's texts: precision", phrases.precision, phrases.predicted
    if ("region", "mask") in about:
        masks = mask_quality(dataset, name, TRUTH, "region")
        yield "masks of truth's boxes: mean IoU", masks.mean_iou, masks.truth
    if ("phrase", "mask") in about:
        masks = mask_quality(dataset, name, TRUTH, "phrase")
        yield "masks of truth's phrases: mean IoU", masks.mean_iou, masks.truth
    for granularity, what in _REGION_TEXTS.items():
        if ("region", granularity, "text") in rows:
            agreement = region_agreement(dataset, name, TRUTH, granularity)
            yield f"{what} of truth's boxes: exact", agreement.same, agreement.texts
    if ("text", "score") in about and any(row.about == _WRONG for row in said):
        for kind, granularity, words in (
            ("text", "brief", "texts"),
            ("region", "phrase", "categories"),
            ("region", "brief", "descriptions"),
        ):
            ranking = ranking_quality(dataset, name, TRUTH, _WRONG, kind=kind, granularity=granularity)
            yield f"scores: right {words} above wrong (AUC)", ranking.auc, ranking.good


def _least_score(recipe: Recipe, name: str, granularity: str) -> float:
    """The score from which the recipe's filters keep a source's regions; 0 where none asks for one."""
    least = [0.0]
    for part in recipe.filters.values():
        wanted = (part.where.source, name), (part.where.kind, "region"), (part.where.granularity, granularity)
        if part.use == "filters.score:MinimumScore" and all(
            not some or value in some for some, value in wanted
        ):
            least.append(float(part.args["minimum"]))
    return max(least)
