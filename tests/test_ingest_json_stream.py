"""The streaming reader gives what `json.loads` gives, in pieces, from chunks of any size."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.errors import SourceError
from data_engine.ingest import json_stream
from data_engine.ingest.json_stream import array_elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(["images", "annotations", "info", "x"]), st.lists(VALUES) | VALUES)


@settings(max_examples=200, deadline=None)
@given(OBJECTS, st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_elements_are_those_of_json_loads(
    whole: dict[str, Any], chunk: int, indent: int | None, ascii: bool
) -> None:
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii)
    before, json_stream._CHUNK = json_stream._CHUNK, chunk
    try:
        found = list(array_elements(io.StringIO(text), ("images", "annotations"), "it"))
    finally:
        json_stream._CHUNK = before
    expected = [
        (k, v)
        for k in whole
        if k in ("images", "annotations") and isinstance(whole[k], list)
        for v in whole[k]
    ]
    assert [(name, value) for name, value, _ in found] == expected
    assert [json.loads(raw) for _, _, raw in found] == [value for _, value in expected]


@settings(max_examples=100, deadline=None)
@given(OBJECTS.filter(bool), st.data())
def test_text_that_is_cut_is_an_error(whole: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(whole)
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(SourceError):
        list(array_elements(io.StringIO(text[:cut]), ("images", "annotations"), "it"))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        '{"images": [1 2]}',
        '{"images": [1,]}',
        "{'a': 1}",
        '{"a": ' + "[" * 100_000,
        '{"images" [1]}',
    ],
)
def test_other_text_is_an_error_that_names_the_file(text: str) -> None:
    with pytest.raises(SourceError, match="labels.json is not the JSON"):
        list(array_elements(io.StringIO(text), ("images",), "labels.json"))
