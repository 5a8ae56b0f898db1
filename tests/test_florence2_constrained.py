"""Whatever a model would like to say, a constrained answer is read by the parser without any rest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists.florence2.constrained import Constraint, rules
from specialists.florence2.grammar import Found, Vocabulary, parse
from specialists.florence2.prompts import TASKS, Grammar
from tests.toy_florence2 import tokenizer

SHAPED = [grammar for grammar in Grammar if grammar is not Grammar.TEXT]
BEGIN, END = 0, 2
EXTRA = 5
"""A model may have more logits than its tokenizer has tokens."""


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary(tokenizer())


@cache
def constraint() -> Constraint:
    return Constraint(vocabulary(), BEGIN, END, len(vocabulary().meaning) + EXTRA, "cpu")


def babble(grammars: Sequence[Grammar], seed: int, limit: int, wishes: tuple[float, ...]) -> list[list[int]]:
    """Answers by logits drawn at random, with a wish for each class of tokens; rows that have ended stay as they are."""
    rng = torch.Generator().manual_seed(seed)
    rule = constraint()
    rows = len(grammars)
    tokens = torch.zeros((rows, limit), dtype=torch.long)
    lengths = torch.zeros(rows, dtype=torch.long)
    going = torch.ones(rows, dtype=torch.bool)
    wish = torch.tensor(wishes)[rule.classes]
    for step in range(limit):
        logits = torch.randn((rows, len(rule.classes)), generator=rng) + wish
        chosen = rule.choose(logits, tokens[:, :step], lengths, rules(grammars, "cpu"), limit - lengths)
        allowed = rule.allowed(tokens[:, :step], lengths, rules(grammars, "cpu"), limit - lengths)
        at = torch.arange(rows)
        assert bool(allowed[at, chosen][going].all())
        free = logits.argmax(1)
        assert bool((chosen == free)[allowed[at, free]].all())
        assert bool(allowed[going].any(1).all())
        tokens[:, step] = chosen
        going &= chosen != END
        lengths += going
    return [tokens[row, : int(lengths[row])].tolist() for row in range(rows)]


def left_over(ids: list[int], found: list[Found]) -> list[str]:
    """Tokens that no finding was made of, but for marks and for the one that begins an answer."""
    used = {i for f in found for i in (*f.label_tokens, *f.location_tokens)}
    names = vocabulary().meaning
    return [str(ids[i]) for i in range(len(ids)) if i not in used and names[ids[i]] >= -1]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    limit=st.integers(1, 60),
    wishes=st.tuples(*[st.floats(-3, 6)] * 8),
)
def test_whatever_the_logits_nothing_is_malformed(seed: int, limit: int, wishes: tuple[float, ...]) -> None:
    grammars = SHAPED * 2
    for grammar, ids in zip(grammars, babble(grammars, seed, limit, wishes), strict=True):
        assert len(ids) < limit  # the end stands within it
        found = parse(ids, grammar, vocabulary(), (1000, 1000))
        assert left_over(ids, found) == []
        for f in found:
            x0, y0, x1, y1 = f.box
            assert x1 > x0 and y1 > y0
            assert f.label or grammar in (Grammar.BOXES, Grammar.POLYGONS)
            assert all(len(ring) >= 3 for ring in f.rings) or f.shape == "box"
        if grammar is Grammar.LABELLED_QUADS:
            assert all(f.shape == "quad" for f in found)


@pytest.mark.parametrize("grammar", SHAPED)
def test_every_shape_can_be_written(grammar: Grammar) -> None:
    shapes = {f.shape for seed in range(12) for ids in babble([grammar] * 8, seed, 60, (0,) * 8)
              for f in parse(ids, grammar, vocabulary(), (1000, 1000))}  # fmt: skip
    wanted = {
        Grammar.BOXES: {"box"}, Grammar.LABELLED_BOXES: {"box"}, Grammar.LABELLED_QUADS: {"quad"},
        Grammar.POLYGONS: {"polygons"}, Grammar.LABELLED_BOXES_OR_POLYGONS: {"box", "polygons"},
    }  # fmt: skip
    assert shapes == wanted[grammar]


def test_a_polygon_may_begin_along_one_line_and_a_label_without_a_place_gets_one() -> None:
    rule = constraint()
    ids = tokenizer()("".join(f"<loc_{b}>" for b in (10, 20, 30, 20)), add_special_tokens=False)["input_ids"]
    along = tokenizer().convert_tokens_to_ids("<loc_20>")
    tokens, lengths = torch.tensor([[*ids, ids[0]]]), torch.tensor([5])
    for left, may in ((20, True), (3, False)):
        allowed = rule.allowed(tokens, lengths, rules([Grammar.POLYGONS], "cpu"), torch.tensor([left]))
        assert bool(allowed[0, along]) is may
    label = torch.tensor([tokenizer()("ball", add_special_tokens=False)["input_ids"]])
    wants_to_end = torch.zeros((1, len(rule.classes)))
    wants_to_end[0, END], wants_to_end[0, label[0, 0]] = 9.0, 8.0
    lengths, left = torch.tensor([label.shape[1]]), torch.tensor([50])
    (chosen,) = rule.choose(
        wants_to_end, label, lengths, rules([Grammar.LABELLED_BOXES], "cpu"), left
    ).tolist()
    assert vocabulary().meaning[chosen] >= 0


def test_texts_are_left_alone() -> None:
    rule = constraint()
    tokens = torch.tensor([[BEGIN, 300, 301]])
    may = rule.allowed(tokens, torch.tensor([3]), rules([Grammar.TEXT], "cpu"), torch.tensor([1]))
    assert bool(may.all())


def test_what_was_taught_is_allowed_token_by_token() -> None:
    from tests.toy_florence2 import ANSWERS

    made = tokenizer()
    rule = constraint()
    for answers in ANSWERS:
        for (name, _), answer in answers.items():
            ids = made(answer)["input_ids"]
            tokens = torch.tensor([ids] * len(ids))
            lengths = torch.arange(len(ids))
            grammars = rules([TASKS[name].grammar] * len(ids), "cpu")
            may = rule.allowed(tokens, lengths, grammars, torch.full((len(ids),), 1000) - lengths)
            assert np.flatnonzero(~may[lengths, torch.tensor(ids)].numpy()).tolist() == [], answer
