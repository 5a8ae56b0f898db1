"""Images that show the same again: what falls is what a plain loop over all pairs finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data_engine.annotation import MAX_LABEL, Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.embedding_codes import WIDEST, codes_of, to_text
from data_engine.embedding_lists import nearest_lists
from data_engine.errors import RecipeError, SpecialistError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import FilterPart, Recipe
from data_engine.schema import ANNOTATIONS
from data_engine.shards import write_shard
from filters.near_embedding import NearEmbedding, near_earlier
from pipelines.filter import filter_dataset

few_codes = arrays.arrays(
    np.int8, st.tuples(st.integers(0, 40), st.integers(1, 3)), elements=st.integers(-3, 3)
)


def cosines_of(codes: np.ndarray) -> np.ndarray:
    vectors = codes.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    lengths[lengths == 0] = np.inf
    return vectors @ vectors.T / (lengths[:, None] * lengths)


def plainly(codes: np.ndarray, similarity: float) -> list[float | None]:
    """Of each the largest cosine with one before it that stays, where it falls to one; else None."""
    cosines = cosines_of(codes)
    found: list[float | None] = []
    for i in range(len(codes)):
        near = [float(cosines[i, j]) for j in range(i) if found[j] is None]
        found.append(max(near) if near and max(near) >= similarity - 1e-6 else None)
    return found


def same(found: np.ndarray, expected: list[float | None]) -> bool:
    return found.tolist() == [
        pytest.approx(np.nan if value is None else value, abs=1e-5, nan_ok=True) for value in expected
    ]


@given(few_codes, st.floats(0.05, 1))
def test_what_stays_and_what_falls_is_what_a_plain_loop_says(codes, similarity):
    # On the very edge, single and double precision may differ.
    assume(not np.any(np.abs(cosines_of(codes) - (similarity - 1e-6)) < 5e-7))
    assert same(near_earlier(codes, similarity), plainly(codes, similarity))


def clustered(count: int, seed: int, width: int = 16, groups: int = 60) -> np.ndarray:
    """Vectors about centres, so near that some are copies of others at a cosine of 0.95."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, width))
    spread = rng.choice([0.03, 0.1, 0.3], size=(count, 1))
    return codes_of(
        (centres[rng.integers(0, groups, count)] + spread * rng.normal(size=(count, width))).astype(
            np.float32
        )
    )


def test_many_blocks_and_many_copies_of_one_thing():
    codes = clustered(3_000, 1)
    codes[500:2_000] = codes[0]
    found = near_earlier(codes, 0.95)
    assert same(found, plainly(codes, 0.95))
    assert 100 < np.isnan(found).sum() < 1_500


@given(few_codes)
@settings(max_examples=25)
def test_in_lists_none_falls_but_to_one_before_it_that_stays(codes):
    assume(len(codes) >= 3)  # as many as lists
    found = near_earlier(codes, 0.9, exact=0)
    cosines = cosines_of(codes)
    for i in np.flatnonzero(~np.isnan(found)).tolist():
        near = [cosines[i, j] for j in range(i) if np.isnan(found[j])]
        assert found[i] >= 0.9 - 1e-5 and any(found[i] == pytest.approx(cosine, abs=1e-5) for cosine in near)


def test_lists_find_nearly_all_that_comparing_all_finds(monkeypatch):
    monkeypatch.setattr("filters.near_embedding._LIST", 400)
    codes = clustered(4_000, 2)
    whole, listed = near_earlier(codes, 0.95), near_earlier(codes, 0.95, exact=100)
    fall, found = ~np.isnan(whole), ~np.isnan(listed)
    assert 1_000 < fall.sum() < 3_900
    assert (fall & found).sum() > 0.95 * fall.sum() and (found & ~fall).sum() < 0.05 * fall.sum()
    assert np.array_equal(listed, near_earlier(codes, 0.95, exact=100), equal_nan=True)


def test_a_row_s_lists_are_its_nearest_and_differ():
    codes = clustered(2_000, 3, groups=5)
    lists = nearest_lists(codes, 5, 2)
    assert (lists[:, 0] != lists[:, 1]).all() and set(lists.ravel().tolist()) == set(range(5))
    near = cosines_of(codes) > 0.99
    assert (lists[:, :1] == lists[:, 0])[near].mean() > 0.99


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=st.floats(-1, 1, width=32)
    )
)
def test_codes_are_within_half_a_step_of_the_vector(vectors):
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    told = codes_of(vectors).astype(np.float64) * largest / 127
    assert np.all(np.abs(told - vectors) <= largest / 254 * 1.001 + 1e-30)


def test_the_widest_vector_is_a_text_that_is_not_cut():
    text = to_text(np.full(WIDEST, -128, np.int8))
    assert len(text) == MAX_LABEL


SHARD = 2


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Five pictures over three shards, the last the largest."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(5):
        PIL.Image.fromarray(np.full((20 + i, 30, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    ingest(str(folder), str(tmp_path / "ds"), shard_size=SHARD)
    return Dataset.open(str(tmp_path / "ds"))


def embed(dataset: Dataset, texts: dict[str, list[str]], source: str = "clip") -> None:
    """Write embeddings of the pictures that are named, as texts, and a caption of each picture."""
    for shard in dataset.shards:
        rows = AnnotationRows(source)
        for batch in dataset.image_batches(shard, 100, ["image_id", "keys"]):
            for image in batch.to_pylist():
                said = [Annotation("image", text, "embedding") for text in texts.get(image["keys"][0], [])]
                assert not rows.add(image["image_id"], [*said, Annotation("text", "a picture", "brief")])
        write_shard(dataset.store, f"annotations/{source}/{shard}.parquet", rows.table(), ANNOTATIONS, {})


def vector(*numbers: int) -> str:
    return to_text(np.array(numbers, np.int8))


def dropped(dataset: Dataset, source: list[str] | None = None, **args: object) -> dict[str, float]:
    part = FilterPart(
        use="filters.near_embedding:NearEmbedding", args=args, where={"source": source} if source else {}
    )
    filter_dataset(dataset, Recipe(name="f", filters={"again": part}).check())
    rows = sql(
        dataset,
        "SELECT keys[1] AS key, max(value) AS value FROM verdicts JOIN images USING (image_id) "
        "WHERE NOT kept GROUP BY 1",
    ).to_pylist()
    return {row["key"]: row["value"] for row in rows}


def test_of_images_that_show_the_same_the_one_with_most_pixels_stays(dataset):
    embed(
        dataset,
        {
            "0.png": [vector(100, 10, 0)],  # near the largest, in another shard
            "1.png": [vector(0, 100, 0)],
            "2.png": [vector(0, 100, 30)],  # larger than the one that it is near
            "3.png": ["no vector!"],
            "4.png": [
                vector(100, 0, 0),
                vector(100, 1, 0),
            ],  # said twice, and no copy of itself
        },
    )
    found = dropped(dataset)
    assert set(found) == {"0.png", "1.png"}
    assert found["1.png"] == pytest.approx(100 / np.hypot(100, 30), abs=1e-5)
    assert set(dropped(dataset, similarity=0.99)) == {"0.png"}
    assert dropped(dataset, similarity=0.9999) == {}


def test_embeddings_of_two_models_are_not_compared(dataset):
    embed(dataset, {f"{i}.png": [vector(1, 2, 3)] for i in range(5)})
    embed(dataset, {f"{i}.png": [vector(i, 1, i * i)] for i in range(2)}, "other")
    with pytest.raises(SpecialistError, match="of 2 sources: clip, other") as caught:
        dropped(dataset)
    assert "where" in (caught.value.hint or "")
    assert set(dropped(dataset, ["clip"])) == {f"{i}.png" for i in range(4)}


def test_what_cannot_be_compared_is_said_in_one_line(dataset):
    embed(dataset, {"0.png": ["", "?"]})
    with pytest.raises(SpecialistError, match="no image has an embedding 'embedding'"):
        dropped(dataset)
    embed(dataset, {"0.png": [vector(1, 2)], "1.png": [vector(1, 2, 3)]})
    with pytest.raises(SpecialistError, match="of 3 and of 2 numbers|of 2 and of 3 numbers"):
        dropped(dataset)


@pytest.mark.parametrize("args", [{"similarity": 0}, {"similarity": 1.1}, {"name": "x' OR 1=1"}])
def test_settings_that_make_no_sense_are_refused(args):
    with pytest.raises(RecipeError) as caught:
        NearEmbedding(**args)
    assert caught.value.hint
