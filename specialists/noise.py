"""Noise as specialists: one says a noisy copy of what others said, one says what was done to which row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import RecipeError
from data_engine.image import Image
from data_engine.noise.apply import labels, noisy
from data_engine.noise.donors import donor_bank
from data_engine.noise.model import noise_model
from data_engine.noise.page import Noisy

VERSION = 1


class Noise:
    """Copies the rows of the sources in `needs`, with errors (docs/noise.md says which, and how).

    `rates`: the share of rows that get each error, 0..1. `sigma`: how far jittered edges move, as a share
    of the box's side. `classes`: names for mislabelled and invented regions. `class_factors`: factors of
    the rates, by class and error. `confusions`: what a class is taken for, with weights. `systematic`:
    errors by rule. `attributes`: words that are mistaken for one another, by category. `donors`: captions
    for swapped ones: a list, a file, or a world's name.

    The same args, image id and rows give the same copy, whatever the batch. Raises RecipeError for
    args that make no sense.
    """

    needs_pixels = False

    def __init__(
        self,
        seed: int = 0,
        rates: Mapping[str, float] | None = None,
        sigma: float = 0.1,
        classes: Sequence[str] = (),
        class_factors: Mapping[str, Mapping[str, float]] | None = None,
        confusions: Mapping[str, Any] | None = None,
        systematic: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Sequence[str]] | None = None,
        donors: str | Sequence[str] = "pretraining",
    ) -> None:
        swaps = isinstance(rates, Mapping) and bool(rates.get("swapped"))
        args: dict[str, Any] = {
            "seed": seed,
            "rates": rates or {},
            "sigma": sigma,
            "classes": classes,
            "class_factors": class_factors or {},
            "confusions": confusions or {},
            "systematic": systematic or {},
            "donors": donor_bank(donors) if swaps else (),
        }
        if attributes is not None:
            args["attributes"] = attributes
        self.model = noise_model(args)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        return [made.annotations for made in self.made(images, _rows(said))]

    def made(self, images: Sequence[Image], rows: Mapping[str, list[dict[str, Any]]]) -> list[Noisy]:
        """Of each image the copy and its changes; `rows` are the true rows by image id."""
        return [
            noisy(image.width, image.height, rows.get(image.image_id, []), self.model) for image in images
        ]


class NoiseLabels:
    """Says what a `Noise` did: a row per change, whose text names it and whose parent is the changed row.

    `of` is the name of the noisy source, all else the args that it was given. `needs` lists what the
    noisy source needs, in that order, and then the noisy source. A row that has no label is the same in both.
    A true row that the noisy source lacks bears its label itself.

    It makes the copy again and finds its rows by their ids. Raises RecipeError when they are not those
    that the noisy source has, as with other args.
    """

    needs_pixels = False

    def __init__(self, of: str, **noise: Any) -> None:
        self.of = of
        self.noise = Noise(**noise)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        rows = _rows(said)
        true = {key: [row for row in found if row["source"] != self.of] for key, found in rows.items()}
        there = {key: [row for row in found if row["source"] == self.of] for key, found in rows.items()}
        return [
            labels(made, self._ids(image, made, there.get(image.image_id, [])))
            for image, made in zip(images, self.noise.made(images, true), strict=True)
        ]

    def _ids(self, image: Image, made: Noisy, there: list[dict[str, Any]]) -> list[str]:
        """Ids of the copy's rows: those that the store gives them, and has given them."""
        store = AnnotationRows(self.of, there[0]["round"] if there else 0)
        refused = store.add(image.image_id, made.annotations, (image.width, image.height))
        if refused:
            raise refused[0]
        ids: list[str] = store.table().column("annotation_id").to_pylist()
        if ids != [row["annotation_id"] for row in there]:
            raise RecipeError(
                f"the rows of {self.of!r} for image {image.image_id} are not what these args make",
                f"give it the args of {self.of!r}, and as `needs` those of {self.of!r} and then {self.of!r}",
            )
        return ids


def _rows(said: pa.Table | None) -> dict[str, list[dict[str, Any]]]:
    if said is None:
        raise RecipeError("noise has nothing to copy", "name the sources under `needs`")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in said.to_pylist():
        found.setdefault(row["image_id"], []).append(row)
    return found
