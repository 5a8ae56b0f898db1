"""Objects of any named class, by OWLv2 or OWL-ViT: boxes for a list of names that needs no training.

FLD-5B's object regions come from a detector with a fixed list of classes (arXiv 2311.06242, section 4.1);
this one finds what the recipe names. `specialists.fusion:Fusion` can join the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError
from data_engine.image import Image
from specialists.owl_model import OwlModel, Patches

VERSION = 1  # raised too when what specialists.owl_model says changes


class OwlDetector:
    """Regions of granularity `phrase`: class name, box, score; best first. Each box has its best class only.

    - `classes`: names of what to look for. They are embedded once, when the specialist is built.
    - `prompt`: what is asked for a class, `{}` standing for its name; "a photo of a {}" is the model card's.
    - `model`: OWLv2 or OWL-ViT, a name on the hub or a folder, and a `revision` of it.
    - `threshold`: boxes of at most that score are left out. 0.1 is the model card's. It is low on purpose, for
      filters can raise it and not lower it: for training on such boxes, the model's authors found loose
      thresholds such as 0.3 better than strict ones (OWL-ST, arXiv 2306.09683).
    - `max_boxes` per image. The model is trained to give an object one box; where it gives several, none is
      suppressed here: that is left to filters.
    - `max_images`, `dtype`: as in `OwlModel`. `device`: as torch names it; by default the GPU where there is one.

    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        classes: list[str],
        prompt: str = "a photo of a {}",
        model: str = "google/owlv2-base-patch16-ensemble",
        revision: str | None = None,
        threshold: float = 0.1,
        max_boxes: int = 300,
        max_images: int = 8,
        device: str | None = None,
        dtype: str = "auto",
    ) -> None:
        if not 0 <= threshold <= 1:
            raise RecipeError(f"threshold is {threshold}", "it must lie in 0..1")
        if max_boxes < 1:
            raise RecipeError(f"max_boxes is {max_boxes}", "it must be at least 1")
        if prompt.count("{}") != 1:
            raise RecipeError(f"prompt is {prompt!r}", "write {} once in it, where the class's name goes")
        self.classes = _names(classes)
        self.threshold = threshold
        self.max_boxes = max_boxes
        self.model = OwlModel(model, revision, max_images, device, dtype)
        queries = self.model.tokens([prompt.replace("{}", name) for name in self.classes])
        for name, query in zip(self.classes, queries, strict=True):
            if not query or len(query) > self.model.max_tokens:
                raise RecipeError(
                    f"the class {name!r} makes a query of {len(query)} tokens; the model reads 1 to "
                    f"{self.model.max_tokens}",
                    "give it a shorter name, or shorten `prompt`",
                )
        self.queries = self.model.embedded(queries)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One list per image, boxes by falling score."""
        return [self._regions(patches) for patches in self.model.patches(images)]

    def _regions(self, patches: Patches) -> list[Annotation]:
        import torch

        with torch.inference_mode():
            logits, classes = self.model.logits(patches, self.queries).max(dim=0)
            logits, order = logits.sort(descending=True, stable=True)
            scores = logits[: self.max_boxes].sigmoid()
            count = int((scores > self.threshold).sum())
        boxes = patches.boxes[order[:count].cpu().numpy()]
        return [
            Annotation("region", self.classes[index], "phrase", box=box, score=score)
            for index, box, score in zip(
                classes[order[:count]].tolist(), boxes.tolist(), scores[:count].tolist(), strict=True
            )
        ]


def _names(classes: object) -> list[str]:
    """The classes, as a list of names. Raises RecipeError."""
    if not isinstance(classes, list | tuple) or not classes:
        raise RecipeError("`classes` names nothing to look for", "give a list of names")
    names: dict[str, str] = {}
    for name in classes:
        if not isinstance(name, str) or not name.strip():
            raise RecipeError(f"the class {name!r} is no name", "put it in quotes")
        if name.strip().casefold() in names:
            raise RecipeError(f"`classes` names {name!r} twice", "leave one out")
        names[name.strip().casefold()] = name.strip()
    return list(names.values())
