"""Quotations and actions in texts: truth's own are all true, and what is exchanged in them is not."""

from __future__ import annotations

import pytest

from data_engine.scenes.claims import ClaimReader
from data_engine.scenes.scene import Scene, make_scene
from data_engine.scenes.world import WORLDS, World

READER = ClaimReader()
BOTH = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def truths(scene: Scene) -> list[str]:
    return [caption.text for caption in scene.captions]


def lines(scene: Scene) -> list[str]:
    texts = [a.text or "" for a in scene.annotations if (a.kind, a.granularity) == ("text", "ocr")]
    return texts[0].split("\n") if texts else []


def descriptions(scene: Scene) -> list[str]:
    return [a.text or "" for a in scene.annotations if (a.kind, a.granularity) == ("region", "brief")]


@BOTH
def test_all_that_truth_says_is_true(world: World) -> None:
    acted = written = 0
    for index in range(80):
        scene = make_scene(0, index, world=world)
        for text in truths(scene):
            quotations, acts = READER.judge(text, truths(scene), descriptions(scene), lines(scene))
            assert all(quotations) and all(acts), text
        more = scene.captions[2].text
        written += len(READER.quotations(more))
        verbs = {act.action.verb for act in scene.layout.acts}
        assert {act.verb for act in READER.acts(more)} <= verbs
        acted += len(READER.acts(more))
    assert acted > 5 and written > 40


@BOTH
def test_another_verb_thing_or_word_is_false(world: World) -> None:
    seen = 0
    for index in range(150):
        scene = make_scene(0, index, world=world)
        brief = scene.captions[0].text
        for act in READER.acts(brief):
            seen += 1
            span = act.actor.span[1], act.object.span[0]
            other = next(action.verb for action in world.actions if action.verb != act.verb)
            wrong = f"{brief[: span[0]]} {other} {brief[span[1] :]}"
            swapped = (
                f"{brief[act.object.span[0] : act.object.span[1]]} {act.verb} {brief[slice(*act.actor.span)]}"
            )
            for text in (wrong, swapped):
                assert READER.judge(text, truths(scene), descriptions(scene), lines(scene))[1] == [False], (
                    text
                )
    assert seen > 10


def test_a_quotation_is_held_against_what_is_written_word_for_word() -> None:
    for text, verdicts in (
        ('A sign that says "OPEN".', [True]),
        ('A sign that says "CLOSED" and "OPEN".', [False, True]),
        ('A sign that says "Hotel Kemo".', [True]),
        ('A sign that says "Kemo Hotel".', [False]),
        ('A sign that says "OPE', [False]),
        ("A sign.", []),
    ):
        assert READER.judge(text, [], ["large red sign"], ["OPEN", "Hotel", "Kemo"])[0] == verdicts


def test_what_is_written_acts_on_nothing() -> None:
    assert READER.acts('A sign that says "a dog pushes a ball".') == []
    assert [act.verb for act in READER.acts("A dog is pushing a red ball on a plain background.")] == [
        "pushes"
    ]
    assert READER.acts("A dog and a ball. It pushes a cup.") == []
