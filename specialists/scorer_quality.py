"""How much an image-text model knows of drawn scenes, measured through the scorer that uses it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.errors import RecipeError
from data_engine.image import Image
from data_engine.scenes.scene import UNSEEN_SEED
from data_engine.scenes.world import PRETRAINING, SIZES, World
from specialists.scorer import Scorer, crop_box
from specialists.scorer_scenes import Thing, scenes


@dataclass(frozen=True)
class Quality:
    """Shares of right answers on `images` scenes of a world, from 0 to 1.

    - `description`: the description of a region scores highest among all `descriptions` distinct ones;
    - `true_description`: the highest is one all of whose words are true of the region;
    - `category`: the region's class scores highest among the world's class names;
    - `flips`: of each attribute, the description scores above the same with that attribute swapped;
    - `flip`: the same over all swaps together;
    - `caption`: a picture's brief caption scores above another picture's.
    Equal scores are wrong answers. Chance is 1/2 for swaps and captions, and 1/n otherwise.
    """

    world: str
    images: int
    regions: int
    descriptions: int
    description: float
    true_description: float
    category: float
    flip: float
    flips: dict[str, float]
    caption: float


def evaluate(folder: Path, world: World = PRETRAINING, count: int = 200, seed: int = UNSEEN_SEED) -> Quality:
    """How well `Scorer(pretrained=folder)` knows `count` scenes of a seed, 320 x 240.

    The texts that compete are those of the same scenes. Which attribute's value a swap takes, and which
    other picture's caption competes, is drawn from the seed. Raises RecipeError, ModelLoadError or
    MissingPackageError.
    """
    if count < 2:
        raise RecipeError("one scene has no other to be compared with", "evaluate on 2 or more")
    pictures = list(scenes(count, seed, world, (320, 240)))
    scorer = Scorer(pretrained=str(folder), device="cpu")
    rng = np.random.default_rng([seed, 2])
    images = [Image(f"{i:032x}", picture.pixels) for i, picture in enumerate(pictures)]
    things = [(i, thing) for i, picture in enumerate(pictures) for thing in picture.things]
    places = [
        (i, crop_box(thing.box, (images[i].width, images[i].height), scorer.context, scorer.minimum_side))
        for i, thing in things
    ]
    crops = scorer.clip.image_features(images, places)

    def scores(features: Any, texts: Sequence[str]) -> np.ndarray:
        found: np.ndarray = (features @ scorer.clip.text_features(texts).T).clamp(0, 1).numpy()
        return found

    descriptions = list(dict.fromkeys(thing.description for _, thing in things))
    of_descriptions = scores(crops, descriptions)
    right = np.array([descriptions.index(thing.description) for _, thing in things])
    best = of_descriptions.argmax(axis=1)
    fits = _first(of_descriptions, best) & [
        set(descriptions[at].split()) <= set(thing.description.split())
        for at, (_, thing) in zip(best, things, strict=True)
    ]
    names = list(world.class_names)
    classes = np.array([names.index(thing.category) for _, thing in things])

    swapped: list[tuple[int, str, str]] = []
    for row, (_, thing) in enumerate(things):
        swapped += [(row, name, text) for name, text in swaps(thing, world, rng)]
    texts = list(dict.fromkeys(text for _, _, text in swapped))
    column = {text: at for at, text in enumerate(texts)}
    of_swapped = scores(crops, texts)
    won: dict[str, list[bool]] = {}
    for row, name, text in swapped:
        beaten = of_descriptions[row, right[row]] > of_swapped[row, column[text]]
        won.setdefault(name, []).append(bool(beaten))

    whole = scorer.clip.whole_image_features(images)
    of_captions = scores(whole, [picture.captions[0] for picture in pictures])
    own = np.diag(of_captions)
    told = [picture.captions[0] for picture in pictures]
    others = [
        int(rng.choice([j for j, text in enumerate(told) if text != told[i]] or [i])) for i in range(count)
    ]
    return Quality(
        world=world.name,
        images=count,
        regions=len(things),
        descriptions=len(descriptions),
        description=_share(_first(of_descriptions, right)),
        true_description=_share(fits),
        category=_share(_first(scores(crops, names), classes)),
        flip=_share(np.array([one for each in won.values() for one in each])),
        flips={name: _share(np.array(won[name])) for name in sorted(won)},
        caption=_share(own > of_captions[np.arange(count), others]),
    )


def _share(right: np.ndarray) -> float:
    return float(right.mean())


def _first(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether the right column is the only highest of each row."""
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, right] = -1
    found: np.ndarray = scores[rows, right] > others.max(axis=1)
    return found


def swaps(thing: Thing, world: World, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """For each attribute that the description names, its name and the description with another value."""
    alternatives = {
        "size": tuple(SIZES),
        "texture": world.textures,
        "colour": tuple(world.colours),
        "material": world.materials,
    }
    modifiers = thing.description.removesuffix(thing.category).split()
    for at, word in enumerate(modifiers):
        for name, values in alternatives.items():
            if word in values:
                other = str(rng.choice([value for value in values if value != word]))
                yield name, " ".join([*modifiers[:at], other, *modifiers[at + 1 :], thing.category])
                break
    other = str(rng.choice([kind for kind in world.class_names if kind != thing.category]))
    yield "kind", " ".join([*modifiers, other])
