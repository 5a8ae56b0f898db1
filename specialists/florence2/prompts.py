"""The tasks of the released Florence-2 checkpoints: what is asked, of what, and what comes back.

A task's marker (`<OD>`) is no token: it stands for the sentence that the model was trained on, and
the sentence alone is sent. Sentences and answer formats are those of the model's own processor,
misspellings and missing full stops included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError


class Grammar(Enum):
    """How the generated tokens are to be read; see `grammar.parse`."""

    TEXT = "text"
    BOXES = "boxes"
    LABELLED_BOXES = "labelled boxes"
    LABELLED_QUADS = "labelled quads"
    POLYGONS = "polygons"
    LABELLED_BOXES_OR_POLYGONS = "labelled boxes or polygons"


class Takes(Enum):
    """What one prompt is about, besides the image. The order is that of the waves they run in."""

    IMAGE = "nothing more"
    LABEL = "a label of the recipe"
    TEXT = "a text of the image"
    REGION = "a region of the image"
    PHRASE = "a phrase of a text"
    BOX = "a region, or a phrase's box"


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    `kind` and `granularity` are those of the rows that its answers become (masks take their
    parent's kind). `captions` marks the tasks that keep the checkpoint's `no_repeat_ngram_size`:
    in any other it would forbid a coordinate triple, or a word of the picture, to come back.
    `length` is a usual answer's length in tokens; it only decides which prompts share a batch.
    """

    name: str
    sentence: str
    takes: Takes
    grammar: Grammar
    kind: str
    granularity: str | None
    length: int
    captions: bool = False

    @property
    def marker(self) -> str:
        return f"<{self.name}>"

    def prompt(self, said: str = "") -> str:
        """The sentence sent. `said` fills `{input}`; it must have gone through `prompt_text`."""
        return self.sentence.replace("{input}", said)


_T, _G = Takes, Grammar

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("CAPTION", "What does the image describe?", _T.IMAGE, _G.TEXT, "text", "brief", 12, captions=True),
        Task("DETAILED_CAPTION", "Describe in detail what is shown in the image.", _T.IMAGE, _G.TEXT, "text", "detailed", 60, captions=True),
        Task("MORE_DETAILED_CAPTION", "Describe with a paragraph what is shown in the image.", _T.IMAGE, _G.TEXT, "text", "more_detailed", 90, captions=True),
        Task("OCR", "What is the text in the image?", _T.IMAGE, _G.TEXT, "text", "ocr", 60),
        Task("OCR_WITH_REGION", "What is the text in the image, with regions?", _T.IMAGE, _G.LABELLED_QUADS, "region", "ocr", 150),
        Task("OD", "Locate the objects with category name in the image.", _T.IMAGE, _G.LABELLED_BOXES, "region", "phrase", 60),
        Task("DENSE_REGION_CAPTION", "Locate the objects in the image, with their descriptions.", _T.IMAGE, _G.LABELLED_BOXES, "region", "brief", 80),
        Task("REGION_PROPOSAL", "Locate the region proposals in the image.", _T.IMAGE, _G.BOXES, "region", "proposal", 100),
        Task("OPEN_VOCABULARY_DETECTION", "Locate {input} in the image.", _T.LABEL, _G.LABELLED_BOXES_OR_POLYGONS, "region", "phrase", 16),
        Task("CAPTION_TO_PHRASE_GROUNDING", "Locate the phrases in the caption: {input}", _T.TEXT, _G.LABELLED_BOXES, "phrase", None, 50),
        Task("REFERRING_EXPRESSION_SEGMENTATION", "Locate {input} in the image with mask", _T.PHRASE, _G.POLYGONS, "phrase", None, 80),
        Task("REGION_TO_SEGMENTATION", "What is the polygon mask of region {input}", _T.BOX, _G.POLYGONS, "region", None, 80),
        Task("REGION_TO_CATEGORY", "What is the region {input}?", _T.REGION, _G.TEXT, "region", "phrase", 8),
        Task("REGION_TO_DESCRIPTION", "What does the region {input} describe?", _T.REGION, _G.TEXT, "region", "brief", 12),
        Task("REGION_TO_OCR", "What text is in the region {input}?", _T.REGION, _G.TEXT, "region", "ocr", 12),
    )
}  # fmt: skip


def chosen(names: Sequence[str]) -> list[Task]:
    """The tasks of a recipe, each once, by name or marker. Raises RecipeError for an unknown one."""
    if isinstance(names, str) or not names:
        raise RecipeError(
            "Florence-2 needs a list of tasks", "write, for example, tasks: [CAPTION, OD] in the recipe"
        )
    tasks: dict[str, Task] = {}
    for name in names:
        key = name.strip("<>") if isinstance(name, str) else str(name)
        if key not in TASKS:
            raise RecipeError(
                f"{name!r} is no task of Florence-2{did_you_mean(key, list(TASKS))}",
                "correct the recipe's `tasks`",
            )
        tasks[key] = TASKS[key]
    return list(tasks.values())


def prompt_text(text: str) -> str:
    """Text from data as a prompt can hold it: no `<`, so that it can spell no token; one line."""
    return " ".join(text.replace("<", " ").split())
