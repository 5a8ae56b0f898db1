"""Parquet with images inside, as the `datasets` library writes it and as others do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine.errors import SourceError
from data_engine.ingest.run import ingest
from tests.ingested import by_key, failures, images, labels
from tests.picture_files import jpeg, put

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def with_features(table: pa.Table, features: dict[str, Any]) -> pa.Table:
    """The metadata that the `datasets` library keeps in the schema."""
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(path: Path, table: pa.Table, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)


def test_a_data_set_of_the_datasets_library(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": pa.array([{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(5)], IMAGE),
            "label": pa.array([0, 1, -1, None, 7]),
            "caption": ["one", " two ", "", None, "five"],
            "url": [f"http://{i}" for i in range(5)],
            "when": pa.array([0] * 5, pa.timestamp("s")),
            "embedding": pa.array([b"x"] * 5),
        }
    )
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
        "caption": {"dtype": "string", "_type": "Value"},
    }
    write(tmp_path / "in/data/train-00000.parquet", with_features(table, features))
    summary = ingest(str(tmp_path / "in"), str(tmp_path / "out"))
    assert (summary.format, summary.images) == ("parquet", 5)
    assert summary.labels == {"human": 2, "alt_text": 3}
    assert summary.failures == {"bad_annotation": 1}
    found = images(tmp_path / "out")
    assert [row["bytes"] for row in found] == [jpeg(i) for i in range(5)]
    assert found[2]["keys"] == ["data/train-00000.parquet/2"] and found[2]["uri"] is None
    assert json.loads(found[0]["metadata"]) == {
        "url": "http://0",
        "when": "1970-01-01 00:00:00",
        "path": "0.jpg",
    }
    assert [(r["granularity"], r["text"]) for r in labels(tmp_path / "out")] == [
        ("class", "cat"),
        ("class", "dog"),
    ]
    texts = labels(tmp_path / "out", "alt_text")
    assert [(r["granularity"], r["text"]) for r in texts] == [("brief", t) for t in ("one", "two", "five")]


@pytest.mark.parametrize(
    ("column", "type"),
    [("image", pa.binary()), ("jpg", pa.large_binary()), ("content", pa.binary()), ("img", IMAGE)],
)
def test_image_columns_by_other_names(tmp_path: Path, column: str, type: pa.DataType) -> None:
    data: list[Any] = [jpeg(i) for i in range(3)]
    values = [{"bytes": d, "path": None} for d in data] if type == IMAGE else data
    table = pa.table({"TEXT": [["a", "b"], [], ["c"]], column: pa.array(values, type)})
    write(tmp_path / "in/x.parquet", table)
    summary = ingest(str(tmp_path / "in/x.parquet"), str(tmp_path / "out"))
    assert (summary.images, summary.labels) == (3, {"alt_text": 3})
    assert [row["bytes"] for row in images(tmp_path / "out")] == data


def test_the_column_called_image_comes_before_other_bytes(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", pa.table({"mask": pa.array([jpeg(1)]), "image": pa.array([jpeg(2)])}))
    ingest(str(tmp_path / "x.parquet"), str(tmp_path / "out"))
    assert [row["bytes"] for row in images(tmp_path / "out")] == [jpeg(2)]


def test_rows_without_an_image_are_failures(tmp_path: Path) -> None:
    rows = [
        {"bytes": None, "path": "/etc/passwd"},
        None,
        {"bytes": b"", "path": None},
        {"bytes": jpeg(1), "path": ""},
    ]
    write(tmp_path / "x.parquet", pa.table({"image": pa.array(rows, IMAGE)}))
    summary = ingest(str(tmp_path / "x.parquet"), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (1, {"empty": 1, "missing": 2})
    assert sorted(f["key"] for f in failures(tmp_path / "out")) == [f"x.parquet/{i}" for i in range(3)]


def test_a_parquet_file_without_images_names_its_columns(tmp_path: Path) -> None:
    write(tmp_path / "in/x.parquet", pa.table({"url": ["a"], "width": [3]}))
    for source in (tmp_path / "in", tmp_path / "in/x.parquet"):
        with pytest.raises(SourceError) as caught:
            ingest(str(source), str(tmp_path / "out"))
        assert "url (string), width (int64)" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_one_failure_and_the_next_goes_on(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([jpeg(i) for i in range(3)])})
    write(tmp_path / "in/a.parquet", table)
    put(tmp_path / "in", {"b.parquet": (tmp_path / "in/a.parquet").read_bytes()[:-50], "c.parquet": b""})
    write(tmp_path / "in/d.parquet", pa.table({"image": pa.array([jpeg(9)])}))
    write(tmp_path / "in/e.parquet", pa.table({"no": [1]}))
    summary = ingest(str(tmp_path / "in"), str(tmp_path / "out"))
    assert (summary.images, summary.failures, summary.ignored) == (4, {"broken_archive": 2}, 1)
    assert [f["key"] for f in failures(tmp_path / "out")] == ["b.parquet", "c.parquet"]


def test_damaged_pages_cost_only_the_rows_behind_them(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([jpeg(i) for i in range(3000)])})
    write(tmp_path / "in/a.parquet", table, row_group_size=1000, compression="none", write_page_checksum=True)
    data = bytearray((tmp_path / "in/a.parquet").read_bytes())
    place = pq.ParquetFile(tmp_path / "in/a.parquet").metadata.row_group(1).column(0)
    at = place.data_page_offset
    data[at : at + 64] = b"\xff" * 64
    put(tmp_path / "in", {"a.parquet": bytes(data)})
    summary = ingest(str(tmp_path / "in"), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (2000, {"broken_archive": 1})


def test_row_groups_of_any_size_make_units_of_a_thousand_rows(tmp_path: Path) -> None:
    data = [jpeg(i) for i in range(2300)]
    write(tmp_path / "x.parquet", pa.table({"image": pa.array(data)}), row_group_size=90)
    summary = ingest(str(tmp_path / "x.parquet"), str(tmp_path / "out"), shard_size=500)
    assert (summary.units, summary.images, summary.shards) == (3, 2300, 5)
    assert [row["bytes"] for row in images(tmp_path / "out")] == data
    assert by_key(tmp_path / "out")["x.parquet/2299"]["bytes"] == data[2299]


def test_a_photo_folder_with_a_table_beside_it_stays_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "in/table.parquet", pa.table({"url": ["a"]}))
    put(tmp_path / "in", {"a.jpg": jpeg(1)})
    assert ingest(str(tmp_path / "in"), str(tmp_path / "out")).format == "folder"


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": {"features": []}}', b'{"info": 3}'])
def test_features_that_are_nonsense_are_passed_over(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"image": pa.array([jpeg(1)]), "label": [0]})
    write(tmp_path / "x.parquet", table.replace_schema_metadata({b"huggingface": metadata}))
    ingest(str(tmp_path / "x.parquet"), str(tmp_path / "out"))
    (row,) = images(tmp_path / "out")
    assert json.loads(row["metadata"]) == {"label": 0}
