"""Metadata and texts of a hostile data set, through the real commands."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import DatasetError
from data_engine.logs import JsonLine, PlainLine
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.plan import make_plan
from data_engine.runner.progress import Reporter
from data_engine.schema import ANNOTATIONS
from data_engine.shards import read_provenance, write_shard
from data_engine.terminal_text import plain, plain_lines
from pipelines.annotate import annotate
from pipelines.cli import main
from tests.hostile_rows import honest, with_rows
from tests.picture_files import png

ORDERS = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2028\r\nfde: all is well"
"""What sets a terminal's title, clears it, colours it, turns the writing round, and feigns another line."""

Fde = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fde(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fde:
    """Run `fde ARGS` in this process: exit code, standard output, standard error."""

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fde", *map(str, args)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        return (left.value.code if isinstance(left.value.code, int) else 0), out, err

    return call


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(honest(tmp_path_factory.mktemp("sound"), embed=True).url)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "ds"))


def claim(folder: Path, **fields: Any) -> str:
    """The data set's URL, with other facts in its dataset.json."""
    place = folder / "dataset.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **fields}))
    return str(folder)


# --- dataset.json


@pytest.mark.parametrize(
    "fields",
    [
        {"shards": 10**12},
        {"shards": -1},
        {"shards": "1"},
        {"shards": True},
        {"shards": 1.5},
        {"images": -1},
        {"shard_size": 0},
        {"labels": "human"},
        {"labels": ["../../home"]},
        {"labels": [["x"]]},
        {"labels": ["a'); DROP TABLE x; --"]},
        {"source": None},
        {"source": {"a": 1}},
        {"id": 7},
        {"embedded": "no"},
        {"format": "9"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_facts_that_no_ingest_writes_are_damage(folder: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.json is damaged"):
        Dataset.open(claim(folder, **fields))


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"format": ' + "9" * 5000 + "}", '{"x": "' + "y" * (2 << 20) + '"}', "null", "[]", "\x00"]
)  # fmt: skip
def test_a_dataset_json_that_is_a_bomb_or_nonsense_is_damage(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_text(text)
    with pytest.raises(DatasetError):
        Dataset.open(str(folder))


# --- metadata of shards


@pytest.mark.parametrize(
    "text", [b"[" * 200_000, b"[]", b"7", b"\xff", b'{"fingerprint": ' + b"9" * 5000 + b"}"]
)
def test_metadata_that_is_nonsense_means_that_the_shard_is_made_again(folder: Path, text: bytes) -> None:
    dataset = Dataset.open(str(folder))
    name = "annotations/numbers/00000.parquet"
    write_shard(dataset.store, name, ANNOTATIONS.empty_table(), ANNOTATIONS, {})
    import pyarrow.parquet as pq

    table = ANNOTATIONS.empty_table().replace_schema_metadata({b"fde": text})
    pq.write_table(table, folder / name)
    assert read_provenance(dataset.store, name) is None
    part = SpecialistPart(use="tests.toy_specialists:Numbers")
    plan = make_plan(Recipe(name="toy", specialists={"numbers": part}).check(), dataset)
    assert plan.stages["numbers"].todo == ["00000"]


# --- what reaches a terminal


def orderly(*texts: str) -> bool:
    """Whether a terminal would show all of it and obey none: no control character but line breaks."""
    return all(c.isprintable() or c == "\n" for text in texts for c in text)


def test_text_for_a_terminal_is_one_line_and_no_order() -> None:
    assert plain(ORDERS).isprintable() and "\\x1b]0;owned\\x07" in plain(ORDERS)
    assert plain("Größe 日本 \ud800").isprintable()
    assert plain_lines("a\n\x1bb") == "a\n\\x1bb"


def test_no_command_sends_orders_of_a_data_set_to_a_terminal(folder: Path, fde: Fde, tmp_path: Path) -> None:
    url = claim(folder, source=ORDERS)
    with_rows(
        Dataset.open(url), {"keys": [ORDERS], "uri": ORDERS, "bytes": b"not the image"}, {"keys": [ORDERS]}
    )
    dataset = Dataset.open(url)
    image = dataset.sql("SELECT image_id FROM images").to_pylist()[0]["image_id"]
    rows = AnnotationRows("hostile")
    rows.add(image, [Annotation("text", "x", "brief")], (24, 16))
    said = rows.table().to_pylist()
    said[0]["text"] = ORDERS
    table = pa.Table.from_pylist(said, schema=ANNOTATIONS)
    write_shard(dataset.store, "annotations/hostile/00000.parquet", table, ANNOTATIONS, {})
    (tmp_path / "toy.yaml").write_text(
        "name: toy\nspecialists: {numbers: {use: 'tests.toy_specialists:Numbers'}}\n"
        "filters: {short: {use: 'filters.text_length:TextLength', args: {minimum_words: 2}}}\n"
    )
    (tmp_path / "other.png").write_bytes(png(9))
    commands = [
        ("ingest", str(tmp_path / "other.png"), url),
        ("sql", url, "FROM annotations"),
        ("sql", url, "SELECT keys, uri FROM images"),
        ("sql", url, f"SELECT '{ORDERS}' AS \"{ORDERS}\", no_such_column"),
        ("annotate", url, "--recipe", str(tmp_path / "toy.yaml"), "--runner", "inline"),
        ("sql", url, "FROM failures"),
        ("sql", f"{tmp_path}/{ORDERS}", "FROM images"),
        ("qa", url),
    ]
    for command in commands:
        code, out, err = fde(*command)
        assert code == (0 if command[0] == "annotate" else code), err
        assert out + err and orderly(out, err), command


def test_a_crafted_key_is_escaped_in_errors_too(folder: Path, fde: Fde) -> None:
    code, out, err = fde("ingest", "/nowhere/\x1b[31mred", str(folder))
    assert code == 3 and "\\x1b[31mred" in err and orderly(out, err)


def test_an_image_without_a_name_is_one_all_the_same(folder: Path) -> None:
    dataset = with_rows(Dataset.open(str(folder)), {"keys": []})
    part = SpecialistPart(use="tests.toy_specialists:Numbers")
    recipe = Recipe(name="toy", specialists={"numbers": part}).check()
    annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))
    assert dataset.sql("FROM texts").num_rows == 3


# --- names of folders


def test_names_of_sources_are_data_to_sql(folder: Path, fde: Fde) -> None:
    """Folders of a hostile data set have any name that the file system takes."""
    dataset = Dataset.open(str(folder))
    names = ["a'b", 'a"b', "a'); COPY (SELECT 1) TO 'pwned'; --", "[x]*", "$(touch pwned)", "x\ny"]
    for name in names:
        write_shard(
            dataset.store, f"annotations/{name}/00000.parquet", ANNOTATIONS.empty_table(), ANNOTATIONS, {}
        )
    assert set(names) <= set(dataset.sources())
    for command in (("sql", str(folder), "FROM annotations"), ("qa", str(folder))):
        code, out, err = fde(*command)
        assert code in (0, 7) and orderly(out, err), err
    assert not list(folder.rglob("pwned")) and not Path("pwned").exists()


# --- CSV


def test_formulas_in_texts_are_exported_as_they_are(folder: Path, fde: Fde) -> None:
    """A CSV is for programs, and changing texts would spoil what is learnt from them (docs/security.md)."""
    code, out, _ = fde(
        "sql", str(folder), "SELECT '=HYPERLINK(\"http://evil\")' AS t, '+1' AS u", "--format", "csv"
    )
    assert code == 0 and '"=HYPERLINK(""http://evil"")","+1"' in out


def test_log_lines_obey_nothing_and_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_API_KEY", "plainly-a-secret")
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s said plainly-a-secret", (ORDERS,), None)
    for formatter in (PlainLine("%(message)s"), JsonLine()):
        shown = formatter.format(record)
        assert orderly(shown) and "plainly-a-secret" not in shown
