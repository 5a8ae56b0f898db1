"""An ingest that was killed is finished by the same command, to the same rows as one never disturbed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine.errors import DatasetError, SourceError
from data_engine.ingest.run import ingest
from tests.ingested import everything
from tests.picture_files import jpeg, put

RUN = """
import sys, time
from pathlib import Path
from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest

def wait(*_):
    Path(sys.argv[4]).touch()
    time.sleep(600)

Dataset.create = wait
ingest(sys.argv[1], sys.argv[2], shard_size=40, embed=sys.argv[3] == "embed", workers=2)
"""

"""An ingest that waits before it writes its last file: however late it is killed, it is not done."""


def make_folder(root: Path) -> Path:
    """Several units (a thousand files each) with duplicates across them, labels and failures."""
    for i in range(1500):
        name = f"{'abc'[i % 3]}/{i:05d}.jpg"
        put(root, {name: b"broken" if i % 97 == 0 else jpeg(i % 1200)})
    return root


def make_parquet(root: Path) -> Path:
    """Images without an address of their own: the merge reads the source a second time."""
    root.mkdir(parents=True)
    for part in range(3):
        data = [jpeg(part * 400 + i) for i in range(600)]
        texts = [f"text {part} {i % 7}" for i in range(600)]
        pq.write_table(pa.table({"image": data, "text": texts}), root / f"{part}.parquet", row_group_size=300)
    return root


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bool, Path]]:
    """Each source with whether to embed it, and its data set ingested without a disturbance."""
    base = tmp_path_factory.mktemp("resume")
    made = {
        "folder": (make_folder(base / "folder"), False),
        "embedded": (base / "folder", True),
        "parquet": (make_parquet(base / "parquet"), False),
    }
    found = {}
    for name, (source, embed) in made.items():
        out = base / f"{name}.calm"
        ingest(str(source), str(out), shard_size=40, embed=embed, workers=2)
        found[name] = (source, embed, out)
    return found


def start(source: Path, out: Path, embed: bool) -> subprocess.Popen[bytes]:
    """It makes the file `nearly(out)` where it waits."""
    root = Path(__file__).resolve().parents[1]
    nearly(out).unlink(missing_ok=True)
    given = [str(source), str(out), "embed" if embed else "plain", str(nearly(out))]
    return subprocess.Popen([sys.executable, "-c", RUN, *given], cwd=root)


def nearly(out: Path) -> Path:
    return out.with_suffix(".nearly")


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("folder", "staging"),
        ("parquet", "merging"),
        pytest.param("folder", "merging", marks=pytest.mark.slow),
        pytest.param("embedded", "staging", marks=pytest.mark.slow),
        pytest.param("embedded", "merging", marks=pytest.mark.slow),
        pytest.param("parquet", "staging", marks=pytest.mark.slow),
    ],
)
def test_killed_at_a_random_moment_and_run_again(
    sources: dict[str, tuple[Path, bool, Path]], tmp_path: Path, name: str, when: str
) -> None:
    source, embed, calm = sources[name]
    out = tmp_path / "out"
    moments = random.Random(f"{name} {when}")
    for _ in range(2):
        process = start(source, out, embed)
        # Wait until that pass has left something on the disk, then a moment more.
        pattern = ".ingest/*.parquet" if when == "staging" else "images/*.parquet"
        seen = len(list(out.glob(pattern)))
        while process.poll() is None and not nearly(out).exists() and len(list(out.glob(pattern))) <= seen:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert (out / ".ingest").is_dir() and not (out / "dataset.json").exists()
    ingest(str(source), str(out), shard_size=40, embed=embed, workers=2)
    assert everything(out) == everything(calm)
    assert not (out / ".ingest").exists()


def test_units_that_were_staged_are_not_staged_again(tmp_path: Path) -> None:
    source = make_parquet(tmp_path / "in")

    class StoppedError(Exception):
        pass

    def stop(images: int, _: int) -> None:
        if images >= 1200:
            raise StoppedError

    with pytest.raises(StoppedError):
        ingest(str(source), str(tmp_path / "out"), progress=stop)
    assert not (tmp_path / "out/dataset.json").exists()
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.units, summary.resumed_units, summary.images) == (3, 1, 1400)
    assert summary.labels == {"alt_text": 1800}


def unfinished(source: Path, out: Path) -> None:
    process = start(source, out, False)
    while process.poll() is None and not list(out.glob("images/*.parquet")):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_source_that_changed_in_between_gives_what_it_is_now(tmp_path: Path) -> None:
    files = {f"{i:04d}.jpg": jpeg(i) for i in range(1500)}
    source = put(tmp_path / "in", dict(files))
    unfinished(source, tmp_path / "out")
    for i in range(200, 1500):
        (source / f"{i:04d}.jpg").unlink()
    put(source, {"0003.jpg": jpeg(5000), "x.jpg": jpeg(6000)})
    ingest(str(source), str(tmp_path / "out"), shard_size=40)
    ingest(str(source), str(tmp_path / "calm"), shard_size=40)
    assert everything(tmp_path / "out") == everything(tmp_path / "calm")


def test_an_unfinished_ingest_of_another_source_is_not_overwritten(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{i:04d}.jpg": jpeg(i) for i in range(100)})
    other = put(tmp_path / "other", {"a.jpg": jpeg(1)})
    out = tmp_path / "out"
    put(out, {".ingest/source.json": json.dumps({"source": str(source), "format": "folder"})})
    with pytest.raises(DatasetError, match="unfinished ingest"):
        ingest(str(other), str(out))
    assert ingest(str(source), str(out)).images == 100


def test_damaged_staged_files_and_shards_are_made_anew(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{i:04d}.jpg": jpeg(i) for i in range(100)})
    ingest(str(source), str(tmp_path / "calm"), shard_size=40)
    out = tmp_path / "out"
    ingest(str(source), str(out), shard_size=40)
    (out / "dataset.json").unlink()
    put(out, {".ingest/source.json": json.dumps({"source": str(source), "format": "folder"})})
    put(
        out,
        {
            ".ingest/00000000.parquet": b"PAR1",
            "images/00001.parquet": b"garbage",
            "images/00007.parquet": b"",
        },
    )
    ingest(str(source), str(out), shard_size=40)
    assert everything(out) == everything(tmp_path / "calm")


def test_a_file_that_changes_while_it_is_embedded_is_said(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{i:04d}.jpg": jpeg(i) for i in range(20)})
    with pytest.raises(SourceError, match="changed while it was being ingested"):
        ingest(
            str(source),
            str(tmp_path / "out"),
            embed=True,
            progress=lambda *_: (source / "0007.jpg").write_bytes(jpeg(77)) and None,
        )
    summary = ingest(str(source), str(tmp_path / "out"), embed=True)
    assert summary.images == 20
