"""The demo: the main job on the embedded scenes, offline, judged against their exact truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.runner.progress import Reporter
from data_engine.scenes.world import PRETRAINING
from data_engine.scenes.write import make_scenes
from data_engine.storage import storage_errors
from data_engine.verdicts import PARENT
from pipelines.annotate import annotate
from pipelines.draw import draw_dataset
from pipelines.filter import filter_dataset
from pipelines.recipe_files import find_recipe
from pipelines.scenes_quality import figures, table

_MADE = """
    SELECT source, kind, CASE WHEN mask IS NOT NULL THEN 'mask' ELSE granularity END AS what, count(*) AS n
    FROM annotations GROUP BY ALL ORDER BY ALL
"""

_ASK = (
    "SELECT text, count(*) FROM regions WHERE source = 'detector' GROUP BY 1 ORDER BY 2 DESC",
    "SELECT source, dropped_by, count(*) FROM verdicts GROUP BY ALL ORDER BY ALL",
)


def run_demo(folder: Path, count: int, seed: int, *, reporter: Reporter, say: Callable[[str], None]) -> None:
    """Draw scenes, ingest and annotate them, filter, and say how good the result is and what to open.

    Running it again goes on where it stopped, and repeats what it says.
    """
    scenes, url, world = folder / "scenes", str(folder / "dataset"), PRETRAINING
    recipe = find_recipe("scenes")
    say(f"1. drawing {count:,} scenes (seed {seed}) into {scenes}")
    with storage_errors(str(scenes)):
        make_scenes(scenes, count, seed, world=world)
    summary = ingest(str(scenes), url)
    say(f"2. ingested {summary.images:,} images, with their truth as the source 'truth', into {url}")
    dataset = Dataset.open(url)
    done = annotate(dataset, recipe, runner="inline", reporter=reporter)
    say(f"3. annotated by {', '.join(recipe.specialists)} in {done.seconds:.1f} s; rows by source:")
    for row in sql(dataset, _MADE).to_pylist():
        say(f"     {row['source']:<12} {row['kind']:<7} {row['what'] or '':<14} {row['n']:>6,}")
    funnel = filter_dataset(dataset, recipe)
    say(f"4. filtered {funnel.seen:,} statements:")
    for name in (*recipe.filters, PARENT):
        if funnel.dropped[name]:
            say(f"     {funnel.dropped[name]:>8,} dropped by {name}")
    say(f"     {funnel.kept:>8,} kept")
    say("5. against the truth of the scenes:")
    for line in table({world.name: figures(dataset, recipe)}):
        say(f"   {line}")
    picture = folder / "scenes.png"
    # Two sources that say what the eye can check at a glance; all of them at once hide the scenes.
    draw_dataset(dataset, picture, sources=["segmenter", "ocr"], images=6, kept=True)
    say(f"Look at {picture}, browse the labels, have them as one page, or ask:")
    say(f"  fde view {url}")
    say(f"  fde report {url} --output {folder / 'report.html'}")
    for query in _ASK:
        say(f'  fde sql {url} "{query}"')
