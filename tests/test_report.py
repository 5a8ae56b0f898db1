"""The report as a file: what stands in it, also of data sets that lack something or hold what they should not."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_engine.dataset import Dataset, DatasetInfo
from data_engine.errors import StorageError
from data_engine.ingest.run import ingest
from data_engine.qa.plots import PLOTS
from data_engine.qa.scope import Scope, find_scope
from pipelines.cli import main
from pipelines.report.gallery import gallery
from pipelines.report.layout import MOST_SHAPES, SHOWN_CHARACTERS
from pipelines.report.write import write_report
from tests.damage import damage_pages
from tests.qa_sets import edit, hand_made, statement

ROOT = Path(__file__).resolve().parents[1]


def written(dataset: Dataset, folder: Path, **more) -> str:
    """The report's HTML."""
    output = folder / "out" / "report.html"
    scope = more.pop("scope", None) or find_scope(dataset)
    write_report(dataset, output, scope, **more)
    assert [path.name for path in output.parent.iterdir()] == ["report.html"]
    return output.read_text(encoding="utf-8")


def table(page: str, name: str) -> list[list[str]]:
    """The cells of one report's table, with the tags out."""
    (found,) = re.findall(rf'id="table-{name}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", found, re.DOTALL)
    return [
        [re.sub(r"<[^>]+>", " ", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in rows
    ]


def test_what_stands_in_a_report(tmp_path):
    dataset = hand_made(tmp_path)
    page = written(dataset, tmp_path, scope=find_scope(dataset, 0))
    assert "what round 0 of verdicts kept" in page and "26 of 26 checks passed" in re.sub(r"\s+", " ", page)
    # Ours, and below it the paper's.
    assert table(page, "table2")[0] == ["text", "brief", "3 235 M", "8.00 7.95", "–", "–", "–"]
    assert table(page, "classes")[0][:2] == ["dog", "9"]
    for name in ("table1", "table3", "sources", "composition", "changed", "runs"):
        assert table(page, name), name
    assert page.count('<figure class="plot') == len(PLOTS)
    assert page.count('class="card"') == 3
    assert "dropped by low (0.25)" in page
    # Nothing is loaded, and nothing but the page's own script may run.
    assert not re.search(r"""(?:src|href)=["'](?!data:image/jpeg|#)""", page)
    policy = html.unescape(re.findall(r'Security-Policy" content="(.*?)"', page)[0])
    assert (
        policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy
    )
    assert not re.search(r"<[^>]*\s(?:style|on\w+)=", page.split("<script>")[0].split("</style>")[1])


def test_the_same_images_every_time_and_at_most_as_many_as_wanted(tmp_path):
    dataset = hand_made(tmp_path, tuple((f"{n:02d}a", f"{n:02d}b") for n in range(4)))
    shown = [card.image_id for card in gallery(dataset, Scope(), 3)]
    assert len(shown) == 3 and shown == sorted(shown)
    assert shown == [card.image_id for card in gallery(dataset, Scope(), 3)]
    assert set(shown) < {card.image_id for card in gallery(dataset, Scope(), 7)}
    assert len(list(gallery(dataset, Scope(), 99))) == 8 and list(gallery(dataset, Scope(), 0)) == []


def test_only_some_sources_and_all_statements(tmp_path):
    dataset = hand_made(tmp_path)
    page = written(dataset, tmp_path, scope=Scope(None, ("detector",)))
    assert "all statements, of detector" in page
    assert "an old dog" in page and "Rex, an old dog" not in page.split('id="gallery"')[1]


def test_an_empty_data_set(tmp_path):
    info = DatasetInfo("0" * 16, "nowhere", "folder", "0" * 32, 0, 0, 1000, False, [], "0")
    page = written(Dataset.create(str(tmp_path / "empty"), info), tmp_path)
    assert "What is not there" in page and "no specialist has run" in page
    assert page.count("There is nothing to draw") == len(PLOTS) and "There are no images to show" in page
    assert len(table(page, "table2")) == 8


@pytest.mark.parametrize("kind", ["text", "region", "phrase"])
def test_a_data_set_without_some_kind(tmp_path, kind):
    dataset = hand_made(tmp_path)
    for source in dataset.sources():
        for shard in dataset.shards:
            file = f"annotations/{source}/{shard}"
            edit(dataset, file, lambda rows: [row for row in rows if row["kind"] != kind])
    page = written(dataset, tmp_path)
    wanted = {"text": "brief texts", "region": "regions with a class", "phrase": "phrases with a box"}
    assert f"<strong>{wanted[kind]}</strong>" in page and page.count('class="card"') == 3


def test_a_half_written_and_damaged_data_set(tmp_path):
    dataset = hand_made(tmp_path)
    dataset.store.delete("annotations/grounder/00001.parquet")
    path = Path(dataset.store.path("annotations/captioner/00000.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    page = written(dataset, tmp_path)
    assert "grounder has not come to shard 00001 yet" in page
    assert "annotations/captioner/00000.parquet is left out" in page
    assert "missing_shards" in page and "damaged_shards" in page and 'class="failed"' in page
    assert page.count('class="card"') == 3


def test_a_shard_that_breaks_while_it_is_read(tmp_path):
    dataset = hand_made(tmp_path)
    damage_pages(Path(dataset.store.path("annotations/detector/00000.parquet")))
    page = written(dataset, tmp_path)
    assert "damaged_shards" in page and "annotations/detector/00000.parquet" in page
    assert "could not be run" not in page and "cannot be told" not in page and page.count('class="card"') == 3
    assert page.count("annotations/detector/00000.parquet is left out") == 3


def test_a_million_characters_are_cut_with_a_note(tmp_path):
    dataset = hand_made(tmp_path)
    long = statement("long", "a", "captioner", "text", granularity="brief", text="dog " * 250_000)
    far = statement("far", "a", "grounder", "phrase", text="dog", span=[999_996, 999_999], box=[1, 1, 9, 9], parent_id="long")  # fmt: skip
    label = statement("label", "a", "captioner", "region", granularity="phrase", text="cat" * 300_000, box=[1, 1, 2, 2])  # fmt: skip
    edit(dataset, "annotations/captioner/00000", lambda rows: [*rows, long, label])
    edit(dataset, "annotations/grounder/00000", lambda rows: [*rows, far])
    page = written(dataset, tmp_path)
    assert len(page) < 1_000_000
    assert f"cut: 1,000,000 characters, of which the first {SHOWN_CHARACTERS:,} are shown" in page
    assert "900,000 characters" in page  # the class, in the table of classes
    assert 'aria-label="Phrases that stand elsewhere in the text"' in page


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }} {% raw %}",
    "</style>",
    "a`<b>`",
)


def test_what_stands_in_texts_is_text(tmp_path):
    dataset = hand_made(tmp_path)
    rows = []
    for n, text in enumerate(HOSTILE):
        rows += [
            statement(f"t{n}", "a", "captioner", "text", granularity="brief", text=text),
            statement(f"l{n}", "a", "captioner", "region", granularity="phrase", text=text, box=[1, 1, 2, 2], score=0.5),
            statement(f"g{n}", "a", "captioner", "region", granularity=text, text="x", box=[1, 1, 2, 2], score=0.5),
            statement(f"p{n}", "a", "captioner", "phrase", text=text, span=[0, len(text)], box=[1, 1, 2, 2], parent_id=f"t{n}"),
        ]  # fmt: skip
    edit(dataset, "annotations/captioner/00000", lambda before: [*before, *rows])
    page = written(dataset, tmp_path)
    assert "<img" not in page and "<b>" not in page and page.count("<script>") == 1 == page.count("</style>")
    assert "{{ 7*7 }} {% raw %}" in page and "alert(1)<" not in page.split("</style>")[1]


def test_images_that_have_been_deleted(tmp_path):
    dataset = hand_made(tmp_path)
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"other")
    (tmp_path / "pictures" / "b.jpg").unlink()
    page = written(dataset, tmp_path)
    assert "The picture cannot be shown (changed)" in page and "The picture cannot be shown (missing)" in page
    shutil.rmtree(tmp_path / "pictures")
    page = written(dataset, tmp_path)
    assert page.count("The picture cannot be shown (missing)") == 3 == page.count('class="blank"')
    assert "image_files" in page and "data:image" not in page.split("</head>")[1]


def test_boxes_that_are_none_and_too_many_of_them(tmp_path):
    dataset = hand_made(tmp_path)
    nan, inf = float("nan"), float("inf")
    odd = [[nan, 0, 1, 1], [-inf, 0, inf, 9], [40, 30, 8, 8]]
    boxes = odd + [[1, 1, 5, 5]] * (MOST_SHAPES + 5)
    rows = [
        statement(f"n{n:04d}", "a", "other", "region", granularity="phrase", text="odd", box=box, score=nan)
        for n, box in enumerate(boxes)
    ]
    bad = statement("mm", "a", "other", "region", parent_id="n0002", box=[0, 0, 9, 9], mask={"size": [48, 64], "counts": "zzz"})  # fmt: skip
    edit(dataset, "annotations/detector/00000", lambda before: [*before, *rows, bad])
    page = written(dataset, tmp_path).split('id="gallery"')[1]
    assert "more boxes are left out of this page" in page and "3 masks are damaged and not drawn" in page
    assert not re.search(r'\s(?:width|height|x|y)="(?:-\d|nan|inf)', page)


def test_where_it_cannot_be_written(tmp_path):
    dataset = hand_made(tmp_path)
    with pytest.raises(StorageError, match="is a folder"):
        write_report(dataset, tmp_path, find_scope(dataset))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_report(dataset, tmp_path / "file" / "report.html", find_scope(dataset))


def test_measures_of_the_picture_and_why_a_statement_is_there(tmp_path):
    dataset = hand_made(tmp_path)
    rows = [
        statement("m1", "a", "measures", "image", granularity="sharpness", score=0.25),
        statement("m2", "a", "measures", "image", granularity="bytes", text="4321"),
        statement("m3", "a", "measures", "region", granularity="change", text="moved", parent_id="ad"),
    ]
    edit(dataset, "annotations/scorer/00000", lambda before: [*before, *rows])
    (card,) = [card for card in gallery(dataset, Scope(), 9) if card.image_id == "a"]
    assert card.measures == ["bytes 4321 · measures", "sharpness 0.25 · measures"]
    (line,) = [line for regions in card.regions for line in regions.lines if line.text == "Dog"]
    assert line.facts == "0.88 · scorer 0.12 · moved"


def test_the_command(tmp_path, capfd, monkeypatch):
    dataset = hand_made(tmp_path)
    output = tmp_path / "new" / "a report.html"
    monkeypatch.setattr(sys, "argv", ["fde", "report", dataset.url, "-o", str(output), "--images", "1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0 and output.read_text().count('class="card"') == 1
    assert capfd.readouterr().out == f"{output}: 0.1 MB; all checks passed\n"
    monkeypatch.setattr(sys, "argv", ["fde", "report", dataset.url, "--all", "--round", "1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 3 and "exclude each other" in capfd.readouterr().err


@pytest.mark.parametrize("package", ["altair", "jinja2"])
def test_without_the_extra_it_says_what_to_install(tmp_path, package):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"sys.argv = ['fde', 'report', {hand_made(tmp_path).url!r}]\n"
        "from pipelines.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 5 and "florence-data-engine[report]" in done.stderr


def test_real_photos(tmp_path, shared):
    url = str(tmp_path / "photos")
    ingest(str(shared / "data" / "photos" / "instances.json"), url)
    page = written(Dataset.open(url), tmp_path, images=4)
    assert page.count("data:image/jpeg;base64,") == 4 and "regions with a class" not in page
    assert page.count('class="mask') > 0


def test_the_example_of_the_document_runs(tmp_path, monkeypatch):
    hand_made(tmp_path)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "report.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example.replace("DATASET", "dataset"), "docs/report.md", "exec"), names)
    assert "$schema" in names["chart"].to_dict() and names["rows"].num_rows  # type: ignore[attr-defined]
