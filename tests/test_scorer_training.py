"""The toy scorer's training: its loss, what it calls true, and a folder that the scorer reads alone."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.errors import MissingPackageError, RecipeError, StorageError
from data_engine.image import Image
from data_engine.scenes.scene import TRAINING_SEED, make_scene
from data_engine.scenes.world import PRETRAINING, TARGET, WORLDS
from specialists.scorer import Scorer, crop_box
from specialists.scorer_card import card
from specialists.scorer_pairs import SIDE, Pairs, squashed
from specialists.scorer_quality import evaluate, swaps
from specialists.scorer_scenes import Picture, Thing, scenes
from specialists.scorer_training import CARD, CONFIG, WEIGHTS, text_features, train
from specialists.unicl import unicl_loss

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
pytest.importorskip("transformers")

TINY = {"steps": 3, "images": 12, "batch": 16, "evaluate_on": 4}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorer") / "new" / "folder"
    train(folder, **TINY)
    return folder


# The loss


def features(seed: int, n: int, d: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn((n, d), generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=-1)


def marked(seed: int, n: int, m: int) -> torch.Tensor:
    """A random (n, m) matrix of positives with one at least in every row and column."""
    drawn = np.random.default_rng(seed).random((n, m)) < 0.3
    drawn[np.arange(max(n, m)) % n, np.arange(max(n, m)) % m] = True
    return torch.from_numpy(drawn)


some = st.tuples(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 7), st.floats(0.5, 30))


@given(some)
@settings(max_examples=40, deadline=None)
def test_with_a_label_for_every_pair_it_is_clips_loss(drawn) -> None:
    seed, n, _, scale = drawn
    images, texts = features(seed, n), features(seed + 1, n)
    clip = open_clip.ClipLoss()(images, texts, scale)
    assert unicl_loss(images, texts, torch.eye(n, dtype=torch.bool), scale).item() == pytest.approx(
        clip.item()
    )


@given(some)
@settings(max_examples=40, deadline=None)
def test_it_is_the_equations_of_the_paper_written_out(drawn) -> None:
    seed, n, m, scale = drawn
    images, texts, positives = features(seed, n), features(seed + 1, m), marked(seed, n, m)
    similar = np.exp(scale * (images @ texts.T).numpy())
    ways = []
    for table, marks in ((similar, positives.numpy()), (similar.T, positives.numpy().T)):
        rows = [
            -np.mean([np.log(table[i, k] / table[i].sum()) for k in np.flatnonzero(marks[i])])
            for i in range(len(table))
        ]
        ways.append(np.mean(rows))
    assert unicl_loss(images, texts, positives, scale).item() == pytest.approx(np.mean(ways))


@given(some)
@settings(max_examples=40, deadline=None)
def test_images_and_texts_may_change_places_and_order(drawn) -> None:
    seed, n, m, scale = drawn
    images, texts, positives = features(seed, n), features(seed + 1, m), marked(seed, n, m)
    loss = unicl_loss(images, texts, positives, scale).item()
    assert unicl_loss(texts, images, positives.T, scale).item() == pytest.approx(loss)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(n), rng.permutation(m)
    moved = unicl_loss(images[rows], texts[columns], positives[rows][:, columns], scale).item()
    assert moved == pytest.approx(loss)


@given(some)
@settings(max_examples=40, deadline=None)
def test_it_is_never_below_the_entropy_of_its_targets(drawn) -> None:
    seed, n, m, scale = drawn
    positives = marked(seed, n, m)
    least = sum(positives.sum(dim=d).double().log().mean().item() for d in (0, 1)) / 2
    assert unicl_loss(features(seed, n), features(seed + 1, m), positives, scale).item() >= least - 1e-9


def test_a_label_that_two_identical_pairs_share_costs_less_than_two_labels() -> None:
    # Two images alike with one text: for CLIP each is the other's negative, and half of the loss stays.
    image, text = features(0, 1), features(0, 1)
    other_image, other_text = -image, -text
    clip = open_clip.ClipLoss()(
        torch.cat([image, image, other_image]), torch.cat([text, text, other_text]), 100.0
    )
    positives = torch.tensor([[True, False], [True, False], [False, True]])
    unicl = unicl_loss(
        torch.cat([image, image, other_image]), torch.cat([text, other_text]), positives, 100.0
    )
    assert clip.item() == pytest.approx(2 / 3 * np.log(2))
    assert unicl.item() == pytest.approx(1 / 4 * np.log(2))  # the text has two images in equal shares


def test_an_image_without_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="every image needs a text"):
        unicl_loss(features(0, 2), features(1, 2), torch.tensor([[True, True], [False, False]]), 1.0)


# What is true of what


def thing(description: str, category: str, *phrases: str) -> Thing:
    return Thing((10.0, 10.0, 60.0, 50.0), category, description, phrases)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    things = (
        thing("large striped red star", "star", "Two red stars", "the striped star"),
        thing("medium red star", "star", "two red stars", "a plain star on the left"),
        thing("medium blue wooden cup", "cup"),
        thing("white sign", "sign", "the white sign"),
    )
    return Pairs([Picture(pixels, ("A", "B", "C"), things)], PRETRAINING, 4, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("text", "true_of"),
    [
        ("star", [0, 1]),
        ("a star", [0, 1]),
        ("red star", [0, 1]),
        ("Two red stars", [0, 1]),  # how many there are is no matter of one crop
        ("striped star", [0]),
        ("large striped red star", [0]),
        ("medium red star", [1]),
        ("medium", [1, 2]),
        ("wooden cup", [2]),
        ("the white sign", [3]),
        ("a plain star on the left", [1]),  # words that nothing else is said of
    ],
)
def test_a_text_belongs_to_the_crops_of_which_all_of_its_words_were_said(pairs: Pairs, text, true_of) -> None:
    assert np.flatnonzero(pairs.positives(np.arange(4), [text])[:, 0]).tolist() == true_of


def test_a_batch_pairs_every_crop_with_a_text_that_is_true_of_it() -> None:
    pictures = list(scenes(12, 7, PRETRAINING, (320, 240)))
    pairs = Pairs(pictures, PRETRAINING, 24, np.random.default_rng(1))
    for _, batch in zip(range(5), pairs, strict=False):
        assert batch.pixels.shape == (24 + 6, 3, SIDE, SIDE)
        assert batch.pixels.dtype == torch.float32
        assert batch.pixels.min() >= 0 and batch.pixels.max() <= 1
        assert len(set(batch.texts)) == len(batch.texts)
        assert batch.positives.shape == (24, len(batch.texts))
        assert batch.positives.any(dim=0).all() and batch.positives.any(dim=1).all()
        assert (batch.picture_positives.sum(dim=1) == 1).all()
        assert set(batch.captions) <= {text for picture in pictures for text in picture.captions}


def test_pictures_are_scenes_as_they_are_stored() -> None:
    (picture,) = scenes(1, 7, TARGET, (320, 240), 3)
    scene = make_scene(7, 3, (320, 240), TARGET)
    assert picture.captions == tuple(
        a.text for a in scene.annotations if a.kind == "text" and a.granularity != "ocr"
    )
    categories = [a for a in scene.annotations if a.kind == "region" and a.granularity == "phrase"]
    assert [(t.category, t.box) for t in picture.things] == [(a.text, a.box) for a in categories]
    briefs = [a.text for a in scene.annotations if a.kind == "region" and a.granularity == "brief"]
    assert [t.description for t in picture.things] == briefs
    for a in scene.annotations:
        if a.kind == "phrase" and a.text:
            assert any(a.box == t.box and a.text in t.phrases for t in picture.things)


@pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))
def test_a_swap_changes_one_attribute_for_another_value_of_it(world) -> None:
    texture, material = world.textures[0], world.materials[1]
    colour = next(iter(world.colours))
    kind = world.kinds[0]
    rng = np.random.default_rng(0)
    for words, names in (
        (f"small {colour} {kind}", ["size", "colour", "kind"]),
        (f"large {texture} {colour} {kind}", ["size", "texture", "colour", "kind"]),
        (f"large {colour} {material} {kind}", ["size", "colour", "material", "kind"]),
    ):
        swapped = list(swaps(thing(words, kind), world, rng))
        assert [name for name, _ in swapped] == names
        for at, (_, text) in enumerate(swapped):
            differs = [a != b for a, b in zip(text.split(), words.split(), strict=True)]
            assert differs == [i == at for i in range(len(names))]


# Training


def test_the_folder_is_all_that_the_scorer_needs(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert {p.name for p in made.iterdir()} == {
        CONFIG, WEIGHTS, CARD, "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    scorer = Scorer(pretrained=str(made))
    pixels = make_scene(7, 0).pixels
    image = Image("0" * 32, np.ascontiguousarray(pixels))
    assert scorer.clip.image_features([image], [(0, (5, 5, 60, 40))]).shape == (1, 96)
    # Case, and how many texts come together, change nothing.
    told = scorer.clip.text_features(["a red star", "A Red STAR", "Zürich \u2603 \U0001f600", "word " * 300])
    assert torch.allclose(told[0], told[1])
    assert torch.allclose(told[:1], scorer.clip.text_features(["a red star"]), atol=1e-6)
    assert torch.isfinite(told).all() and not torch.allclose(told[0], told[2])


def test_a_tokenizer_whose_library_is_missing_says_what_to_install(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackageError) as caught:
        Scorer(pretrained=str(made))
    assert "transformers" in caught.value.message and "scorer" in caught.value.hint


def test_training_sees_the_pixels_and_tokens_that_scoring_sees(made: Path) -> None:
    scorer = Scorer(pretrained=str(made))
    pixels = np.ascontiguousarray(make_scene(7, 1).pixels)
    place = crop_box((20, 30, 150, 77), (320, 240), 0.0, 16)
    shown = torch.from_numpy(squashed(pixels, place).copy()).permute(2, 0, 1).float() / 255
    prepared = scorer.clip.preprocess(Image("0" * 32, pixels).pil.crop(place))
    assert torch.allclose((shown - 0.5) / 0.25, prepared, atol=1e-5)

    texts = ["star", "a large striped red star", 'A picture of a black sign that says "Vakorten Theater".']
    ids = [scorer.clip.tokenizer.tokenizer(text, truncation=True).input_ids for text in texts]
    with torch.no_grad():
        short = text_features(scorer.clip.network, ids)
        full = scorer.clip.network.encode_text(scorer.clip.tokenizer(texts))
    assert torch.allclose(short, full, atol=1e-5)


def test_the_model_is_small_and_its_card_tells_its_facts(made: Path) -> None:
    facts = json.loads((made / CONFIG).read_text())["trained"]
    assert facts["parameters"] <= 1_300_000
    assert (made / WEIGHTS).stat().st_size <= 2_600_000
    assert (facts["steps"], facts["images"], facts["world"]) == (3, 12, "pretraining")
    text = (made / CARD).read_text()
    assert text == card(facts)
    assert "Apache-2.0" in text and "3 steps" in text and "arXiv 2204.03610" in text
    assert str(made) not in text


def test_what_is_told_of_the_quality_is_what_evaluation_finds(made: Path) -> None:
    facts = json.loads((made / CONFIG).read_text())["trained"]["unseen"]
    for world in WORLDS.values():
        quality = evaluate(made, world, count=4)
        told = facts[world.name]
        assert (quality.regions, quality.descriptions) == (told["regions"], told["descriptions"])
        assert quality.flips == pytest.approx(told["flips"])
        assert quality.description == pytest.approx(told["description"])
        shares = [
            quality.description,
            quality.category,
            quality.flip,
            quality.caption,
            *quality.flips.values(),
        ]
        assert all(0 <= share <= 1 for share in shares)
        assert quality.description <= quality.true_description


def test_the_same_arguments_give_the_same_folder(made: Path, tmp_path: Path) -> None:
    train(tmp_path, **TINY)
    for name in (WEIGHTS, "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


@pytest.mark.slow
def test_a_short_training_learns(tmp_path: Path) -> None:
    quality = train(tmp_path, steps=60, images=160, batch=64, evaluate_on=20)
    assert quality.flips["colour"] > 0.8
    assert quality.caption > 0.6


@pytest.mark.parametrize(
    "arguments",
    [{"images": 3}, {"batch": 3}, {"evaluate_on": 1}, {"minutes": 0}, {"steps": 0}],
)
def test_arguments_that_cannot_train_are_refused(tmp_path: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(RecipeError) as caught:
        train(tmp_path, **arguments)
    assert caught.value.hint


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        train(tmp_path / "file" / "scorer", **TINY)


# The shipped model

SHIPPED = Path(__file__).resolve().parents[1] / "specialists" / "weights" / "scenes-scorer"
shipped = pytest.mark.skipif(not SHIPPED.is_dir(), reason="no scorer is shipped")


@shipped
def test_the_shipped_scorer_is_as_good_on_other_unseen_scenes_as_its_card_says() -> None:
    seed = 424_242
    assert seed < TRAINING_SEED
    told = json.loads((SHIPPED / CONFIG).read_text())["trained"]["unseen"]["pretraining"]
    quality = evaluate(SHIPPED, count=60, seed=seed)
    # Some 250 regions: one standard deviation is 0.02 to 0.03. To choose among fewer descriptions is easier.
    for name in ("description", "true_description", "category", "flip", "caption"):
        assert getattr(quality, name) > told[name] - 0.1, name
    assert quality.category > 0.5
    assert quality.flip > 0.8


@shipped
def test_the_shipped_card_says_what_the_folder_says() -> None:
    facts = json.loads((SHIPPED / CONFIG).read_text())["trained"]
    assert (SHIPPED / CARD).read_text() == card(facts)
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) <= 2_800_000
