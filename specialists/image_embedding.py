"""What a CLIP makes of each image, kept: `filters.near_embedding` finds by it what shows the same again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.embedding_codes import WIDEST, codes_of, to_text
from data_engine.errors import ImageError, ModelLoadError
from data_engine.image import Image
from specialists.clip_model import ClipModel

VERSION = 1


class ImageEmbedding:
    """A row of kind `image` and granularity `embedding` for every image; its text is the vector.

    The text is base64 of one signed byte a number (data_engine.embedding_codes says why and how near): the
    image feature of length one, scaled. Its rows are for filters and queries; nobody can read them.

    `model`, `pretrained`, `device`, `dtype`, `max_batch`: the CLIP, as ClipModel takes it.
    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        device: str | None = None,
        dtype: str = "auto",
        max_batch: int = 64,
    ) -> None:
        self.clip = ClipModel(model, pretrained, device, dtype, max_batch, texts=False)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation | ImageError]]:
        """One row per image. Raises ModelLoadError for a model whose vectors are too wide for a row."""
        if not images:
            return []
        vectors: np.ndarray = self.clip.whole_image_features(images).numpy()
        if vectors.shape[1] > WIDEST:
            raise ModelLoadError(
                f"the model makes vectors of {vectors.shape[1]:,} numbers, a row holds {WIDEST:,}",
                "take a model with narrower features",
            )
        finite = np.isfinite(vectors).all(axis=1)
        codes = codes_of(np.where(finite[:, None], vectors, 0))
        failed = ImageError("bad_annotation", "the image feature is not finite")
        return [
            [Annotation("image", to_text(code), "embedding") if sound else failed]
            for code, sound in zip(codes, finite.tolist(), strict=True)
        ]
