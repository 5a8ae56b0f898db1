"""Models that lie in a data set: students, trained on what it holds.

FLD-5B leaves out a task with too few labels at first; later the model that was trained on the rest is
fine-tuned on the few and becomes the specialist for it (arXiv 2311.06242, section 4.3). In a recipe that
is one line, `model: dataset:models/detailed`: as long as the folder is not there, the specialist waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.ingest.listing import join
from data_engine.recipe import RESERVED, Recipe
from data_engine.storage import local_path

_PREFIX = "dataset:"


def with_students(recipe: Recipe, dataset: Dataset, note: Callable[[str], None]) -> Recipe:
    """The recipe for one data set: every `dataset:FOLDER` in its arguments as the path that it means.

    A specialist whose folder is not there is left out and so are those that need nothing but such ones;
    others go on without it. `note` is told who waits for what. When the folder appears, a specialist that
    had to do without it has other inputs, and so is run again. Labels that a source may have or not (`human`,
    `alt_text`, ...) are left out of `needs` where this data set has none, unless nothing else is needed.

    Raises RecipeError for a folder outside of the data set, and for a filter's folder that is not there.
    """
    waiting: dict[str, str] = {}
    unlabelled = set(RESERVED) - set(dataset.sources())
    parts = {}
    for name in recipe.ordered():
        part = recipe.specialists[name]
        needs = [need for need in part.needs if need not in waiting and need not in unlabelled]
        if not needs and not any(need in waiting for need in part.needs):
            needs = part.needs  # it needs labels that are not there, and nothing else: the plan says so
        missing: list[str] = []
        args = _placed(part.args, dataset, f"specialists.{name}", missing)
        if part.needs and not needs:
            missing = [next(waiting[need] for need in part.needs if need in waiting)]
        if missing:
            waiting[name] = missing[0]
            note(f"{name} waits: {missing[0]} is not in the data set yet")
            continue
        parts[name] = part.model_copy(update={"args": args, "needs": needs})
    filters = {}
    for name, rule in recipe.filters.items():
        missing = []
        args = _placed(rule.args, dataset, f"filters.{name}", missing)
        if missing:
            raise RecipeError(
                f"filters.{name}: {missing[0]} is not in the data set", "make it, or leave the filter out"
            )
        filters[name] = rule.model_copy(update={"args": args})
    # In the recipe's own order, in which progress is shown.
    ordered = {name: parts[name] for name in recipe.specialists if name in parts}
    return recipe.model_copy(update={"specialists": ordered, "filters": filters})


def _placed(args: Mapping[str, Any], dataset: Dataset, where: str, missing: list[str]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: one(item) for key, item in value.items()}
        if isinstance(value, list):
            return [one(item) for item in value]
        if isinstance(value, str) and value.startswith(_PREFIX):
            inside = value.removeprefix(_PREFIX)
            if not inside or inside.startswith("/") or ".." in inside.split("/"):
                raise RecipeError(
                    f"{where}: {value!r} is no folder of a data set", "write dataset:models/NAME"
                )
            if not dataset.store.exists(inside):
                missing.append(inside)
            # From a store it is fetched where it is loaded (data_engine.fetched).
            return str(local_path(dataset.url) / inside) if dataset.store.local else join(dataset.url, inside)
        return value

    return {key: one(value) for key, value in args.items()}
