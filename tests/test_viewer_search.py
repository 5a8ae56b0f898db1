"""The viewer's search: pages by key say what one SQL query says, whatever is there and whatever is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.dataset import Dataset, DatasetInfo
from data_engine.errors import QueryError
from data_engine.query import sql
from pipelines.viewer.overview import overview, suggestions
from pipelines.viewer.paging import Place, count, page
from pipelines.viewer.search import Search
from pipelines.viewer.story import story
from pipelines.viewer.tables import Tables
from tests.damage import damage_pages
from tests.viewed import scenes

SEARCHES = {
    "": ({}, "true"),
    "words": (
        {"text": "RED dog"},
        r"regexp_matches(text, '(?i)\bred') AND regexp_matches(text, '(?i)\bdog')",
    ),
    "as it stands": ({"text": '"red dog"'}, "text ILIKE '%red dog%'"),
    "no beginning of a word": ({"text": "ircle"}, "false"),
    "label": ({"label": "Dog"}, "lower(text) = 'dog' AND kind = 'region'"),
    "source and kind": ({"source": "detector", "kind": "region"}, "source = 'detector'"),
    "scores": ({"minimum": "0.5", "maximum": "0.95"}, "score BETWEEN 0.5 AND 0.95"),
    "dropped": ({"kept": "no", "dropped_by": "low-score"}, "score < 0.5"),
    "kept": ({"kept": "yes", "source": "detector"}, "score > 0.5"),
    "a condition": ({"condition": "box[1] > 100 AND width = 320 -- wide"}, "box[1] > 100"),
    "a condition on views": (
        {"condition": "annotation_id IN (SELECT parent_id FROM masks) AND kept"},
        "annotation_id IN (SELECT parent_id FROM masks) AND NOT coalesce(score < 0.5, false)",
    ),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scenes(tmp_path_factory.mktemp("viewed"), 26, 7)


@pytest.fixture(scope="module")
def tables(dataset: Dataset) -> Tables:
    return Tables(dataset)


@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_found_and_counted_is_what_one_query_finds(dataset, tables, name):
    given_, where = SEARCHES[name]
    expected = sql(dataset, f"SELECT image_id, count(*) AS n FROM annotations WHERE {where} GROUP BY 1")
    wanted = dict(zip(*expected.to_pydict().values(), strict=True))
    found = page(tables, Search.of(given_), size=100, seconds=60)
    assert {image["image_id"]: image["matches"] for image in found["images"]} == wanted
    assert found["next"] is None and found["searched"] == len(dataset.shards)
    counted = count(tables, Search.of(given_), seconds=60)
    assert (counted["statements"], counted["images"], counted["next"]) == (
        sum(wanted.values()),
        len(wanted),
        None,
    )


@settings(max_examples=6)
@given(st.sampled_from(list(SEARCHES)[:-1]), st.integers(2, 9))
def test_pages_forth_and_back_are_the_whole_in_its_order(dataset, tables, name, size):
    search = Search.of(SEARCHES[name][0])
    whole = [image["image_id"] for image in page(tables, search, size=100, seconds=60)["images"]]
    order = sql(dataset, "SELECT image_id FROM images")["image_id"].to_pylist()
    assert whole == sorted(whole, key=order.index)
    forth: list[str] = []
    cursor: str | None = "0.-1"
    while cursor:
        # No time at all: each answer comes as soon as it can.
        answer = page(tables, search, after=Place.read(cursor), size=size, seconds=0)
        forth += [image["image_id"] for image in answer["images"]]
        cursor = answer["next"]
    assert forth == whole
    back: list[str] = []
    cursor = f"{len(dataset.shards) - 1}.999"
    while cursor:
        answer = page(tables, search, before=Place.read(cursor), size=size, seconds=0)
        back = [image["image_id"] for image in answer["images"]] + back
        cursor = answer["next"]
    assert back == whole


def test_an_image_is_found_by_its_id_and_by_a_part_of_its_key(tables):
    one = page(tables, Search.of({"image": "images/000017"}), seconds=60)["images"]
    assert [image["key"] for image in one] == ["images/000017.jpg"]
    assert page(tables, Search.of({"image": one[0]["image_id"].upper()}), seconds=60)["images"] == one
    assert count(tables, Search.of({"image": "images/000017"}), seconds=60)["images"] == 1


@pytest.mark.parametrize(
    "condition",
    [
        "true) UNION SELECT * FROM (FROM images",
        "true; DROP VIEW images",
        "(COPY (SELECT 1) TO '{ds}/x.csv')",
        "EXISTS (WITH x AS (COPY (SELECT 1) TO '{ds}/x.csv') SELECT 1)",
        "text = (SELECT content FROM read_text('{outside}'))",
        "EXISTS (FROM glob('{ds}/../*'))",
        "EXISTS (FROM read_csv('http://127.0.0.1:9/x.csv'))",
        "EXISTS (FROM '{outside}')",
        "text = ?",
        "kind, source",
        "no_such_column = 1",
        "score::INT[] = 3",
        "/* never closed",
        "(",
    ],
)
def test_a_condition_neither_writes_nor_reads_outside_and_its_error_is_one_line(
    dataset, tables, tmp_path, condition
):
    (tmp_path / "secret.txt").write_text("secret")
    inside = set(Path(dataset.url).rglob("*"))
    with pytest.raises(QueryError) as caught:
        text = condition.format(ds=dataset.url, outside=tmp_path / "secret.txt")
        page(tables, Search.of({"condition": text}))
    assert (
        "\n" not in caught.value.message
        and caught.value.hint
        and "secret" not in caught.value.message.split("'")
    )
    assert set(Path(dataset.url).rglob("*")) == inside


@pytest.mark.parametrize("seconds", [0.0, 0.2], ids=["before it has begun", "while it runs"])
def test_a_condition_that_would_never_end_is_stopped(tables, seconds):
    endless = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = 3"
    with pytest.raises(QueryError, match="stopped after"):
        tables.select(tables.shards, lambda r: (endless, []), seconds=seconds)
    assert page(tables, Search.of({}), seconds=60)["images"]


@pytest.mark.parametrize("given_", [{"minimum": "much"}, {"round": "-1"}, {"condition": ")"}])
def test_what_is_no_search_says_what_it_should_be(given_):
    with pytest.raises(QueryError) as caught:
        Search.of(given_)
    assert caught.value.hint


@pytest.mark.parametrize("written", ["", "x", "1", "1.-2", "1.2.3", "-1.0", "9" * 40 + ".1"])
def test_what_is_no_cursor_is_refused(written):
    with pytest.raises(QueryError):
        Place.read(written)


def test_words_of_scripts_without_word_borders_are_found(tmp_path):
    from data_engine.annotation import Annotation, AnnotationRows

    dataset = scenes(tmp_path, 2, 2)
    rows = AnnotationRows("captioner")
    image_id = sql(dataset, "SELECT image_id FROM images")["image_id"][0].as_py()
    assert rows.add(image_id, [Annotation("text", "一只红色的狗", "brief")]) == []
    dataset.write_annotations("captioner", "00000", rows.table(), {})
    assert len(page(Tables(dataset), Search.of({"text": "红色"}), seconds=60)["images"]) == 1


def test_an_empty_data_set_and_one_of_bare_images_open_and_say_so(tmp_path):
    info = DatasetInfo("0" * 16, "nothing", "folder", "0" * 32, 0, 0, 1000, False, [], "0")
    empty = Tables(Dataset.create(str(tmp_path / "empty"), info))
    assert overview(empty, False)["missing"] == ["the data set has no images"]
    assert page(empty, Search.of({"text": "dog"}), seconds=60)["images"] == []
    assert count(empty, Search.of({}), seconds=60)["next"] is None and suggestions(empty)["labels"] == []

    bare = scenes(tmp_path, 3, 3)
    shutil.rmtree(Path(bare.url) / "annotations")
    shutil.rmtree(Path(bare.url) / "verdicts")
    tables = Tables(bare)
    assert "nothing was said" in overview(tables, False)["missing"][0]
    (image, *_) = page(tables, Search.of({}), seconds=60)["images"]
    assert story(tables, image["shard"], image["image_id"])["statements"] == []
    assert page(tables, Search.of({"kept": "no"}), seconds=60)["images"] == []


def test_a_half_written_data_set_is_searched_as_far_as_it_goes(tmp_path):
    dataset = scenes(tmp_path, 9, 3)
    folder = Path(dataset.url)
    (folder / "annotations/detector/00002.parquet").unlink()
    (folder / "verdicts/0/00001.parquet").unlink()
    for name in ("annotations/truth/00001.parquet", "annotations/detector/00001.parquet"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    # An older writer knew fewer columns, a newer one knows more.
    old = pq.read_table(folder / "annotations/detector/00000.parquet").drop_columns(["quad", "round"])
    pq.write_table(
        old.append_column("mood", pa.repeat("good", len(old))), folder / "annotations/detector/00000.parquet"
    )
    tables = Tables(dataset)
    found = page(tables, Search.of({}), seconds=60)["images"]
    assert len(found) == 9
    assert [image["matches"] > 0 for image in found] == [True] * 3 + [False] * 3 + [True] * 3
    assert page(tables, Search.of({"label": "dog"}), seconds=60)["images"]
    said = "\n".join(overview(tables, False)["missing"])
    assert "detector: 1 of 3 shards are not there yet" in said and "verdicts of round 0: 1 of 3" in said
    assert "annotations/truth/00001.parquet is left out" in said
    told = story(tables, "00002", found[-1]["image_id"])
    assert "detector has not come to shard 00002 yet" in told["missing"] and told["statements"]


@pytest.mark.parametrize("name", ["annotations/detector", "annotations/truth", "verdicts/0"])
def test_a_shard_that_is_damaged_behind_its_footer_is_set_aside(tmp_path, name):
    dataset = scenes(tmp_path, 9, 3)
    damage_pages(Path(dataset.url) / name / "00001.parquet")
    tables = Tables(dataset)
    assert len(page(tables, Search.of({}), seconds=60)["images"]) == 9
    assert f"{name}/00001.parquet is left out" in "\n".join(overview(tables, False)["missing"])
    assert page(tables, Search.of({"label": "dog"}), seconds=60)["images"]


def test_a_shard_whose_names_of_columns_are_no_text_is_set_aside(tmp_path):
    dataset = scenes(tmp_path, 9, 3)
    file = Path(dataset.url) / "annotations/detector/00001.parquet"
    file.write_bytes(file.read_bytes().replace(b"granularity", b"\xee" * 11))
    tables = Tables(dataset)
    assert len(page(tables, Search.of({}), seconds=60)["images"]) == 9
    assert page(tables, Search.of({"label": "dog"}), seconds=60)["images"]


def test_a_shard_of_a_newer_format_is_told_of(tmp_path):
    dataset = scenes(tmp_path, 2, 2)
    name = Path(dataset.url) / "annotations/detector/00000.parquet"
    table = pq.read_table(name)
    described = json.loads(table.schema.metadata[b"fde"]) | {"format": 99}
    pq.write_table(table.replace_schema_metadata({b"fde": json.dumps(described).encode()}), name)
    assert any("format 99" in line for line in overview(Tables(dataset), False)["missing"])


def test_a_story_tells_every_statement_with_its_verdicts(dataset, tables):
    (image,) = page(tables, Search.of({"kept": "no"}), size=1, seconds=60)["images"]
    told = story(tables, image["shard"], image["image_id"])
    every = sql(dataset, f"SELECT * FROM annotations WHERE image_id = '{image['image_id']}'")
    assert {s["id"] for s in told["statements"]} == set(every["annotation_id"].to_pylist())
    fallen = [s for s in told["statements"] if s["source"] == "detector" and s["score"] < 0.5]
    assert fallen and all(
        v == {"round": 0, "kept": False, "dropped_by": "low-score", "value": s["score"]}
        for s in fallen
        for v in s["verdicts"]
    )
    assert sum(s["mask"] for s in told["statements"]) == pc.sum(pc.is_valid(every["mask"])).as_py()


def test_a_text_of_a_million_characters_is_cut_and_its_length_told(tmp_path):
    dataset = scenes(tmp_path, 2, 2)
    name = "annotations/hostile/00000.parquet"
    table = dataset.annotations("hostile", "00000")
    long = pc.if_else(pc.equal(table["kind"], "text"), "x" * 1_000_000, table["text"])
    pq.write_table(
        table.set_column(table.schema.get_field_index("text"), "text", long), Path(dataset.url) / name
    )
    image_id = table["image_id"][0].as_py()
    told = story(Tables(dataset), "00000", image_id)
    (text,) = [s for s in told["statements"] if s["source"] == "hostile" and s["kind"] == "text"]
    assert (len(text["text"]), text["length"]) == (20_000, 1_000_000)


def test_a_data_set_on_another_filesystem_is_searched_the_same(dataset, tables):
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in Path(dataset.url).rglob("*.*"):
        if file.is_file():
            memory.pipe(f"/viewed/{file.relative_to(dataset.url)}", file.read_bytes())
    there = Tables(Dataset.open("memory://viewed"))
    for given_ in (
        {},
        {"label": "dog"},
        {"kept": "no"},
        {"condition": "box_area(box) > 0.1 * width * height"},
    ):
        assert (
            page(there, Search.of(given_), seconds=60)["images"]
            == page(tables, Search.of(given_), seconds=60)["images"]
        )
    (image,) = page(there, Search.of({}), size=1, seconds=60)["images"]
    here, far = (story(t, image["shard"], image["image_id"]) for t in (tables, there))
    assert here["statements"] == far["statements"]
