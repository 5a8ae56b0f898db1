"""Captions of regions: what a captioning model says of the crop of each.

FLD-5B's region-text pairs have them as their `brief` texts (arXiv 2311.06242, section 4.1); their noun
chunks (specialists.noun_chunks) are further candidates for a region's text.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from specialists.caption_model import CaptionModel
from specialists.clip_model import Place
from specialists.said import Statement, statements
from specialists.scorer import crop_box

VERSION = 1  # raised too when what specialists.caption_model says, or scorer.crop_box, changes


class RegionCaptions:
    """A further text of granularity `brief` for every region in `said`, with the region as its parent.

    Lines of text (granularity `ocr`) and further texts of a region get none. Crops of all images of a
    batch go through the model together, and equal crops of an image once.

    - `model`: a name on the hub or a folder (`CaptionModel` says which kinds), and a `revision` of it.
    - `context`: how much of the surroundings a crop shows, on each side as a share of the box's own.
    - `minimum_side`: smaller crops grow to so many pixels, where the image allows. Both are as in
      `specialists.scorer:Scorer`, which should judge the crop that was captioned.
    - `prompt`, `num_beams`, `max_new_tokens`, `max_batch`: as in `CaptionModel`.
    - `sources`: of the statements of `needs`, only those by these specialists.

    Texts have no score: the scorer gives them one. Raises RecipeError, ModelLoadError or
    MissingPackageError.
    """

    def __init__(
        self,
        model: str = "Salesforce/blip-image-captioning-base",
        revision: str | None = None,
        context: float = 0.0,
        minimum_side: int = 16,
        prompt: str | None = None,
        num_beams: int = 3,
        max_new_tokens: int = 20,
        max_batch: int = 32,
        device: str | None = None,
        dtype: str = "auto",
        sources: list[str] | None = None,
    ) -> None:
        if not context >= 0 or minimum_side < 1:
            raise RecipeError("context must not be negative, minimum_side must be at least 1", "raise them")
        self.context = context
        self.minimum_side = minimum_side
        self.sources = None if sources is None else frozenset(sources)
        self.model = CaptionModel(
            model, revision, prompt, num_beams, max_new_tokens, max_batch, device, dtype
        )

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One row per region, in the order of `said`."""
        if said is None:
            raise SpecialistError(
                "region captions are about regions, and none were given",
                "name the specialist that finds regions under this one's `needs`",
            )
        given = statements(said, self.sources)
        wanted: list[tuple[Place, Statement]] = []
        for i, image in enumerate(images):
            size = (image.width, image.height)
            for s in given.get(image.image_id, []):
                if s.box is not None and _is_object(s):
                    wanted.append(((i, crop_box(s.box, size, self.context, self.minimum_side)), s))
        places = list(dict.fromkeys(place for place, _ in wanted))
        crops = (images[i].pixels[y0:y1, x0:x1] for i, (x0, y0, x1, y1) in places)
        texts = dict(zip(places, self.model.captions(crops), strict=True))
        made: list[list[Annotation]] = [[] for _ in images]
        for place, s in wanted:
            if texts[place]:
                made[place[0]].append(Annotation("region", texts[place], "brief", s.reference, box=s.box))
        return made


def _is_object(statement: Statement) -> bool:
    """A region's own row, of a thing."""
    own = statement.kind == "region" and statement.parent is None and not statement.masked
    return own and statement.granularity != "ocr"
