"""Open Images: fractions become pixels, label ids become words."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine.errors import SourceError
from data_engine.ingest.run import ingest
from tests.ingested import by_key, labels
from tests.picture_files import jpeg, put

BOXES = """ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside
aa,xclick,/m/01,1,0.25,0.5,0.5,1,0,0,0,0,0
aa,xclick,/m/02,1,0,1.5,-1,0.5,0,0,0,0,0
aa,xclick,/m/01,1,0,1,0,1,0,0,1,0,0
bb,xclick,/m/99,1,0,1,0,1,0,0,0,0,0
bb,xclick,/m/01,1,oops,1,0,1,0,0,0,0,0
bb,xclick,/m/01,1,0.5,0.5,0,1,0,0,0,0,0
absent,xclick,/m/01,1,0,1,0,1,0,0,0,0,0
"""
IMAGE_LABELS = """ImageID,Source,LabelName,Confidence
bb,verification,/m/02,1
bb,verification,/m/01,0
aa,machine,/m/02,1
aa,crowdsource-verification,/m/01,1.0
"""
NAMES = '/m/01,Tortoise\n/m/02,"Container, glass"\n'


@pytest.mark.parametrize(("below", "header"), [("", ""), ("annotations/", "LabelName,DisplayName\n")])
def test_boxes_and_confirmed_labels(tmp_path: Path, below: str, header: str) -> None:
    source = put(
        tmp_path / "in",
        {
            "train/aa.jpg": jpeg(1, 40, 20),
            "train/deep/bb.jpg": jpeg(2, 40, 20),
            "train/cc.jpg": jpeg(3),
            f"{below}validation-annotations-bbox.csv": BOXES,
            f"{below}validation-annotations-human-imagelabels.csv": IMAGE_LABELS,
            f"{below}validation-annotations-machine-imagelabels.csv": IMAGE_LABELS,
            f"{below}class-descriptions-boxable.csv": header + NAMES,
            "readme.txt": "x",
        },
    )
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.format, summary.images, summary.ignored) == ("open_images", 3, 1)
    assert summary.left_out == {"group regions": 1, "labels not confirmed": 2, "labels of absent images": 1}
    # An unknown label, a coordinate that is no number, and a box without area.
    assert summary.failures == {"bad_annotation": 3}
    ids = {row["image_id"]: key for key, row in by_key(tmp_path / "out").items()}
    found = [
        (ids[r["image_id"]], r["kind"], r["granularity"], r["text"], r["box"])
        for r in labels(tmp_path / "out")
    ]
    assert found == [
        ("train/aa.jpg", "text", "class", "Tortoise", None),
        ("train/aa.jpg", "region", "phrase", "Tortoise", [10, 10, 20, 20]),
        ("train/aa.jpg", "region", "phrase", "Container, glass", [0, 0, 40, 10]),
        ("train/deep/bb.jpg", "text", "class", "Container, glass", None),
    ]
    assert all(r["source"] == "human" and r["score"] is None for r in labels(tmp_path / "out"))
    assert ingest(str(source), str(tmp_path / "out")).already


def test_labels_without_words_for_them_are_of_no_use(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"aa.jpg": jpeg(1), "train-annotations-bbox.csv": BOXES})
    with pytest.raises(SourceError, match="class-descriptions"):
        ingest(str(source), str(tmp_path / "out"))


@pytest.mark.parametrize("text", ["", "a,b\n1\n1,2,3\n", '"ImageID'])
def test_a_csv_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    files = {"aa.jpg": jpeg(1), "x-annotations-bbox.csv": text, "class-descriptions.csv": NAMES}
    source = put(tmp_path / "in", dict(files))
    with pytest.raises(SourceError, match="is not the CSV"):
        ingest(str(source), str(tmp_path / "out"))
