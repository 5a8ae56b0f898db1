"""How well a Florence-2 checkpoint answers about drawn scenes, asked through the specialist itself.

Every scene is drawn and stored as JPEG, as a person's data would be. Prompts that are about something
(a caption to ground, a phrase to outline, a region to name) are given the truth, so that each measure is
of one task.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pycocotools.mask

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.image import Image
from data_engine.scenes.claims import ClaimReader
from data_engine.scenes.scene import UNSEEN_SEED, make_scene
from data_engine.scenes.world import PRETRAINING, World

TASKS = (
    "CAPTION", "OCR", "OD", "CAPTION_TO_PHRASE_GROUNDING", "REFERRING_EXPRESSION_SEGMENTATION", "REGION_TO_CATEGORY",
)  # fmt: skip

_OVERLAP = 0.5
_BATCH = 32

Box = Sequence[float]


@dataclass(frozen=True)
class Quality:
    """Shares in 0..1, over `images` scenes.

    - `detection_f1`: OD. A box counts if its label is a true box's and their IoU is 0.5 or more; each
      true box is found once.
    - `grounding_recall`: phrases of the true brief caption whose best-scored box has an IoU of 0.5 or more
      with a true box of the phrase.
    - `attributes`: generated brief captions that name something and in which every noun phrase (number,
      size, colour, texture, material, kind) is true of the scene; `data_engine.scenes.attributes` reads
      and judges them.
    - `quotations`, `actions`: of those in generated brief captions, the true ones (`data_engine.scenes.claims`); -1 where
      there is none.
    - `caption_true`: generated brief captions that name something and whose noun phrases, quotations and actions are all
      true.
    - `caption_exact`: captions equal to the truth's, which is one of several that are true.
    - `writing_exact`: OCR, on scenes with writing, white space apart. -1 where no scene has any.
    - `category`: REGION_TO_CATEGORY on true boxes.
    - `referring_iou`: mean IoU of REFERRING_EXPRESSION_SEGMENTATION's masks with the true ones of the
      phrases of the brief caption; a mask that is missing counts 0.
    """

    detection_f1: float
    grounding_recall: float
    attributes: float
    quotations: float
    actions: float
    caption_true: float
    caption_exact: float
    writing_exact: float
    category: float
    referring_iou: float
    images: int


def measure(
    model: Path | str,
    count: int = 200,
    seed: int = UNSEEN_SEED,
    world: World = PRETRAINING,
    num_beams: int = 1,
    max_new_tokens: int = 192,
) -> Quality:
    """Of a checkpoint's folder, on scenes 0 to `count` - 1 of `seed`, 320 x 240 pixels.

    Raises what `Florence2` raises for a checkpoint that cannot be loaded.
    """
    from specialists.florence2.specialist import Florence2

    specialist = Florence2(
        str(model), list(TASKS), num_beams=num_beams, max_new_tokens=max_new_tokens, max_prompts_per_batch=64
    )
    counts = _Counts()
    reader = ClaimReader()
    for first in range(0, count, _BATCH):
        images, truths, table = [], [], AnnotationRows("truth")
        for index in range(first, min(first + _BATCH, count)):
            scene = make_scene(seed, index, world=world)
            with PIL.Image.open(io.BytesIO(scene.jpeg())) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            truth = _Truth(scene.annotations)
            image_id = f"{index:032x}"
            table.add(image_id, truth.asked)
            images.append(Image(image_id, pixels))
            truths.append(truth)
        said = table.table()
        ids = iter(said.column("annotation_id").to_pylist())
        for truth, rows in zip(truths, specialist(images, said), strict=True):
            counts.add(truth, {next(ids): row for row in truth.asked}, rows, reader)
    return counts.quality(count)


class _Truth:
    """What a scene's rows say, sorted by what is measured. `asked` is what the specialist is told."""

    def __init__(self, annotations: Sequence[Annotation]) -> None:
        self.texts = [a.text or "" for a in annotations if a.kind == "text" and a.granularity != "ocr"]
        self.caption = next(a for a in annotations if a.kind == "text" and a.granularity == "brief")
        self.writing = next(
            (a.text for a in annotations if a.granularity == "ocr" and a.kind == "text"), None
        )
        self.regions = [a for a in annotations if a.kind == "region" and a.granularity == "phrase"]
        self.descriptions = [
            a.text or "" for a in annotations if a.kind == "region" and a.granularity == "brief"
        ]
        self.phrases = [a for a in annotations if a.kind == "phrase" and a.parent is self.caption]
        named = {id(a) for a in self.phrases}
        self.masks = {
            id(a.parent): a.mask for a in annotations if a.mask is not None and id(a.parent) in named
        }
        self.asked = [self.caption, *self.regions, *self.phrases]


class _Counts:
    def __init__(self) -> None:
        self.right: dict[str, float] = {}
        self.all: dict[str, float] = {}

    def _count(self, name: str, right: float, of: float = 1) -> None:
        self.right[name] = self.right.get(name, 0) + right
        self.all[name] = self.all.get(name, 0) + of

    def _share(self, name: str) -> float:
        return self.right[name] / self.all[name] if self.all.get(name) else -1.0

    def quality(self, images: int) -> Quality:
        return Quality(
            detection_f1=self._share("detection"),
            grounding_recall=self._share("grounding"),
            attributes=self._share("attributes"),
            quotations=self._share("quotations"),
            actions=self._share("actions"),
            caption_true=self._share("true"),
            caption_exact=self._share("caption"),
            writing_exact=self._share("writing"),
            category=self._share("category"),
            referring_iou=self._share("referring"),
            images=images,
        )

    def add(
        self, truth: _Truth, asked: dict[str, Annotation], rows: Sequence[Annotation], reader: ClaimReader
    ) -> None:
        about = [(asked.get(a.parent) if isinstance(a.parent, str) else None, a) for a in rows]
        found = [a for of, a in about if a.kind == "region" and a.granularity == "phrase" and of is None]
        matched = _matched(truth.regions, found)
        self._count("detection", 2 * matched, len(truth.regions) + len(found))

        for span in {a.span for a in truth.phrases}:
            boxes = [a.box or () for a in truth.phrases if a.span == span]
            said = [a for of, a in about if of is truth.caption and a.span == span and a.box is not None]
            best = max(said, key=lambda a: a.score or 0.0, default=None)
            hit = best is not None and max(_iou(best.box or (), box) for box in boxes) >= _OVERLAP
            self._count("grounding", hit)

        caption = next((a.text or "" for a in rows if a.kind == "text" and a.granularity == "brief"), "")
        lines = [] if truth.writing is None else truth.writing.split("\n")
        judged = reader.reader.judge(caption, truth.descriptions)
        quotations, acts = reader.judge(caption, truth.texts, truth.descriptions, lines)
        self._count("attributes", bool(judged) and all(judged))
        self._count("quotations", sum(quotations), len(quotations))
        self._count("actions", sum(acts), len(acts))
        self._count("true", bool(judged) and all([*judged, *quotations, *acts]))
        self._count("caption", _words(caption) == _words(truth.caption.text))

        if truth.writing is not None:
            read = next((a.text for a in rows if a.kind == "text" and a.granularity == "ocr"), "")
            self._count("writing", _words(read) == _words(truth.writing))

        named = {id(of): a.text for of, a in about if a.granularity == "phrase" and of is not None}
        for region in truth.regions:
            self._count("category", named.get(id(region)) == region.text)

        drawn = {id(of): a.mask for of, a in about if a.mask is not None and of is not None}
        for phrase in truth.phrases:
            self._count("referring", _mask_iou(drawn.get(id(phrase)), truth.masks[id(phrase)]))


def _words(text: str | None) -> str:
    return " ".join((text or "").split())


def _iou(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    common = wide * high
    return float(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common))


def _matched(truth: Sequence[Annotation], found: Sequence[Annotation]) -> int:
    """How many pairs of like label overlap enough, the best-scored taking first and its best partner."""
    free = list(truth)
    matched = 0
    for row in sorted(found, key=lambda a: -(a.score or 0.0)):
        partners = [a for a in free if a.text == row.text]
        best = max(partners, key=lambda a: _iou(row.box or (), a.box or ()), default=None)
        if best is not None and _iou(row.box or (), best.box or ()) >= _OVERLAP:
            free.remove(best)
            matched += 1
    return matched


def _mask_iou(found: dict[str, Any] | None, true: dict[str, Any] | None) -> float:
    if found is None or true is None:
        return 0.0
    return float(pycocotools.mask.iou([found], [true], [False])[0, 0])
