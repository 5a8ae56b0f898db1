"""The reader of noun phrases understands every caption of the worlds, and tells true from false."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.scenes.attributes import NounPhrase, Reader
from data_engine.scenes.english import NUMBERS, article, plural
from data_engine.scenes.scene import Scene, make_scene
from data_engine.scenes.world import PRETRAINING, SIZES, TARGET, WORLDS, World

READER = Reader()
BOTH = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def descriptions(scene: Scene) -> list[str]:
    return [a.text or "" for a in scene.annotations if (a.kind, a.granularity) == ("region", "brief")]


@BOTH
def test_every_caption_is_true_of_its_scene_and_its_phrases_are_found_where_they_are(world: World) -> None:
    for index in range(40):
        scene = make_scene(0, index, world=world)
        for caption in scene.captions:
            assert all(READER.judge(caption.text, descriptions(scene))), caption.text
            found = [phrase.span for phrase in READER.phrases(caption.text)]
            assert sorted(found) == sorted(phrase.span for phrase in caption.phrases), caption.text
            for phrase in caption.phrases:
                (read,) = READER.phrases(caption.text[slice(*phrase.span)])
                things = READER.things(descriptions(scene))
                assert tuple(i for i, thing in enumerate(things) if read.fits(thing)) == phrase.things


@BOTH
def test_another_scenes_caption_is_mostly_not_true(world: World) -> None:
    scenes = [make_scene(0, index, world=world) for index in range(30)]
    verdicts = [
        all(READER.judge(a.captions[0].text, descriptions(b)))
        for a in scenes
        for b in scenes
        if a is not b and descriptions(a) != descriptions(b)
    ]
    assert sum(verdicts) < 0.02 * len(verdicts)


def phrases_of(world: World) -> st.SearchStrategy[tuple[str, NounPhrase]]:
    """A phrase in its usual order, and what is to be read in it."""

    def build(
        number: str, size: str, texture: str, colour: str, material: str, kind: str
    ) -> tuple[str, NounPhrase]:
        words = [word for word in (size, texture, colour, material, kind) if word]
        noun = " ".join(words)
        many = number in NUMBERS and number != "one"
        noun = plural(noun) if many else noun
        said = f"{article(noun) if number == 'a' else number} {noun}".strip()
        value = NUMBERS.index(number) if number in NUMBERS else None
        return said, NounPhrase((0, len(said)), value, many, frozenset(words[:-1]), kind)

    maybe = lambda words: st.sampled_from(["", *words])  # noqa: E731
    return st.builds(
        build,
        st.sampled_from(["", "a", "the", *NUMBERS]),
        maybe(SIZES),
        maybe([*world.textures, "plain"]),
        maybe(world.colours),
        maybe(world.materials),
        st.sampled_from(world.class_names),
    )


@given(st.sampled_from([PRETRAINING, TARGET]).flatmap(phrases_of), st.booleans())
def test_a_phrase_is_read_as_it_was_made(made: tuple[str, NounPhrase], capital: bool) -> None:
    said, expected = made
    text = said.upper() if capital else said
    assert READER.phrases(text) == [expected]
    start = len("There is, of old, ")
    (found,) = READER.phrases(f"There is, of old, {text}.")
    assert found.span == (start, start + len(said))


@given(st.text(alphabet=st.sampled_from('aredstarbox two" large,.\n'), max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    ends = [0]
    for phrase in READER.phrases(text):
        start, end = phrase.span
        assert ends[-1] <= start < end <= len(text)
        ends.append(end)


THINGS = ["small red star", "large striped red star", "blue wooden cup", "white sign"]


@pytest.mark.parametrize(
    ("said", "true"),
    [
        ("a red star", True),
        ("the large star", True),
        ("two red stars", True),
        ("three red stars", False),
        ("one red star", False),
        ("one small red star", True),
        ("red stars", True),
        ("blue cups", False),
        ("no blue stars", True),
        ("no stars", False),
        ("a blue star", False),
        ("a blue red star", False),
        ("a wooden blue cup", True),
        ("a metal cup", False),
        ("the plain star", True),
        ("a plain large star", False),
        ("a plain cup", False),
        ("a teal cup", False),
        ("a penguin", False),
        ('a white sign that says "GREEN HOUSE"', True),
        ('a white sign that says "GREEN HOUSE', True),
        ("a starfish, a reddish cup and a teacup", True),
    ],
)
def test_what_is_true_of_a_scene(said: str, true: bool) -> None:
    verdicts = READER.judge(f"A picture of {said}.", THINGS)
    assert verdicts and all(verdicts) is true


def test_what_names_nothing_has_no_phrases() -> None:
    for text in ("", "What a fine day.", "a plain red background", '"a red star"', "redstar"):
        assert READER.judge(text, THINGS) == []


def test_a_reader_of_one_world_skips_what_only_another_has() -> None:
    assert [p.kind for p in Reader((PRETRAINING,)).phrases("a penguin and a teal star")] == ["star"]
    assert [p.kind for p in READER.phrases("a penguin and a teal star")] == ["penguin", "star"]
