"""Captions of whole images by a captioning model: FLD-5B's brief texts (arXiv 2311.06242, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError
from data_engine.image import Image
from specialists.caption_model import CaptionModel
from specialists.said import DESCRIPTIONS

VERSION = 1  # raised too when what specialists.caption_model says changes


class Captioner:
    """One text for each image.

    - `model`: a name on the hub or a folder (`CaptionModel` says which kinds), and a `revision` of it.
    - `granularity`: what the texts are, `brief` for the captions that BLIP and its like write; a model
      that is asked for more by its `prompt` may write `detailed` or `more_detailed` ones.
    - `prompt`, `num_beams`, `max_new_tokens`, `max_batch`: as in `CaptionModel`.

    Texts have no score: how sure a model is of its words says little of whether they are true of the
    image. `specialists.scorer:Scorer` judges that. Raises RecipeError, ModelLoadError or
    MissingPackageError.
    """

    def __init__(
        self,
        model: str = "Salesforce/blip-image-captioning-base",
        revision: str | None = None,
        granularity: str = "brief",
        prompt: str | None = None,
        num_beams: int = 3,
        max_new_tokens: int = 40,
        max_batch: int = 16,
        device: str | None = None,
        dtype: str = "auto",
    ) -> None:
        if granularity not in DESCRIPTIONS:
            raise RecipeError(
                f"granularity is {granularity!r}", f"it must be one of {', '.join(DESCRIPTIONS)}"
            )
        self.granularity = granularity
        self.model = CaptionModel(
            model, revision, prompt, num_beams, max_new_tokens, max_batch, device, dtype
        )

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        texts = self.model.captions(image.pixels for image in images)
        return [[Annotation("text", text, self.granularity)] if text else [] for text in texts]
