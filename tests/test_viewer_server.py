"""The viewer over HTTP: who may ask, what pictures and masks come, and how marks are written."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError, StorageError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.schema import REVIEW, REVIEWER
from pipelines.viewer.guard import POLICY
from pipelines.viewer.serve import Address, serving
from tests.picture_files import jpeg
from tests.viewed import ask, mark, scenes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scenes(tmp_path_factory.mktemp("served"), 12, 6)


@pytest.fixture(scope="module")
def address(dataset: Dataset) -> Iterator[Address]:
    with serving(dataset) as (address, _):
        yield address


def one(dataset: Dataset, query: str) -> Any:
    return sql(dataset, query).to_pylist()[0]


def test_every_answer_says_that_only_the_viewers_own_files_may_run(address):
    for path in ("/", "/static/main.js", "/api/overview", "/nowhere", "/api/search?minimum=x"):
        _, headers, _ = ask(address, path)
        assert headers["content-security-policy"] == POLICY and "'unsafe" not in POLICY
        assert headers["x-content-type-options"] == "nosniff"
    page = ask(address, "/")[2].decode()
    assert (
        "http://" not in page
        and "https://" not in page
        and " style=" not in page
        and " on" not in page.lower()
    )


def test_only_the_pages_own_files_are_files(address):
    assert ask(address, "/static/main.js")[0] == 200
    for path in ("/static/../app.py", "/static/..%2fapp.py", "/static/", "/static/nothing.js", "/app.py"):
        assert ask(address, path)[0] == 404, path


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "[", "a@b"]
)
def test_another_name_for_this_machine_is_refused(address, host):
    status, _, answer = ask(address, "/api/overview", Host=host)
    assert status in (400, 403) and (status == 400 or "name" in answer["error"])


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8000", "192.168.1.7:9"])
def test_addresses_and_localhost_are_not(address, host):
    assert ask(address, "/api/overview", Host=host)[0] == 200


def test_what_another_site_makes_the_browser_ask_is_refused(dataset, address):
    assert ask(address, "/api/search", **{"sec-fetch-site": "cross-site"})[0] == 403
    assert ask(address, "/api/search", **{"sec-fetch-site": "same-origin"})[0] == 200
    id_ = one(dataset, "SELECT annotation_id FROM regions")["annotation_id"]
    given = {"shard": "00000", "annotation_id": id_, "mark": "bad"}
    json_ = {"content-type": "application/json"}
    assert ask(address, "/api/marks", "POST", given, **json_)[0] == 403
    assert (
        ask(address, "/api/marks", "POST", given, **{"x-fde-viewer": "1", "content-type": "text/plain"})[0]
        == 403
    )
    assert mark(address, "00000", id_, "bad", origin="http://evil.example")[0] == 403
    assert ask(address, "/api/marks")[0] == 405
    assert REVIEWER not in dataset.sources()


def test_with_a_token_nothing_is_answered_without_it(dataset):
    with serving(dataset, token="s3cret-token") as (address, _):
        assert address.url.endswith("/?token=s3cret-token")
        for path in ("/", "/static/main.js", "/api/overview", "/images/00000/x.jpg", "/?token=wrong"):
            assert ask(address, path)[0] == 401, path
        status, headers, _ = ask(address, "/?token=s3cret-token")
        cookie = headers["set-cookie"]
        assert status == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert ask(address, "/api/overview", Cookie=cookie.split(";")[0])[0] == 200
        assert ask(address, "/api/overview", Authorization="Bearer s3cret-token")[0] == 200
        assert ask(address, "/api/overview", Authorization="Bearer s3cret-toke")[0] == 401
        assert ask(address, "/api/overview", Cookie="broken;;=")[0] == 401


def test_other_addresses_than_this_machines_own_get_a_token_by_themselves(dataset):
    with serving(dataset, host="0.0.0.0") as (address, _):
        assert address.token and len(address.token) >= 32
        local = Address("127.0.0.1", address.port, address.token)
        assert ask(local, "/api/overview")[0] == 401
        assert ask(local, f"/api/overview?token={address.token}")[0] == 200


@pytest.mark.parametrize(
    "token", ["", "short", "a b c d e f g h", "eight;characters", "line\nbreak-and-more"]
)
def test_a_token_that_would_be_none_is_refused(dataset, token):
    with pytest.raises(RecipeError, match="token"), serving(dataset, host="0.0.0.0", token=token):
        pass


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_interrupted(dataset, asked):
    command = [sys.executable, "-m", "pipelines", "view", dataset.url, "--no-browser", "--read-only"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline().split(":")[-1].strip(" /\n"))
        assert ask(Address("127.0.0.1", port, None), "/api/overview")[2]["images"] == 12
        process.send_signal(asked)
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0


def test_a_port_that_is_taken_is_one_line(dataset, address):
    with pytest.raises(StorageError, match="cannot listen"), serving(dataset, port=address.port):
        pass


def test_a_picture_comes_turned_and_scaled(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/turned.jpg").write_bytes(jpeg(1, 64, 32, orientation=6))
    (tmp_path / "in/wide.jpg").write_bytes(jpeg(2, 2000, 500))
    for embed in (False, True):
        url = str(tmp_path / f"ds{embed}")
        ingest(str(tmp_path / "in"), url, embed=embed)
        with serving(Dataset.open(url)) as (address, _):
            for row in sql(Dataset.open(url), "SELECT image_id, keys[1] AS key FROM images").to_pylist():
                sizes = {}
                for size in ("thumb", "full"):
                    status, headers, data = ask(address, f"/images/00000/{row['image_id']}.jpg?size={size}")
                    assert (status, headers["content-type"]) == (200, "image/jpeg")
                    sizes[size] = PIL.Image.open(io.BytesIO(data)).size
                wanted = (
                    {"thumb": (32, 64), "full": (32, 64)}
                    if "turned" in row["key"]
                    else {"thumb": (384, 96), "full": (1600, 400)}
                )
                assert sizes == wanted
            assert ask(address, f"/images/00000/{row['image_id']}.jpg?size=huge")[0] == 400


def test_a_picture_that_is_gone_or_changed_says_so_and_its_story_is_told(tmp_path):
    dataset = scenes(tmp_path, 3, 3)
    rows = sql(dataset, "SELECT image_id, uri FROM images").to_pylist()
    Path(rows[0]["uri"]).unlink()
    Path(rows[1]["uri"]).write_bytes(Path(rows[2]["uri"]).read_bytes())
    with serving(dataset) as (address, _):
        for row, reason in zip(rows, ("missing", "changed", None), strict=True):
            status, _, answer = ask(address, f"/images/00000/{row['image_id']}.jpg")
            assert (status, reason and answer["reason"]) == ((404, reason) if reason else (200, None))
            assert ask(address, f"/api/images/00000/{row['image_id']}")[2]["statements"]


# pycocotools' array has no `copy` of numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_mask_comes_pixel_for_pixel(dataset, address):
    row = next(r for r in dataset.annotations("truth", "00000").to_pylist() if r["mask"])
    status, _, data = ask(address, f"/masks/00000/{row['annotation_id']}.png")
    got = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3] > 0
    wanted = coco.decode({"size": row["mask"]["size"], "counts": row["mask"]["counts"]})
    assert status == 200 and np.array_equal(got, wanted.astype(bool))
    assert ask(address, "/masks/00000/nothing.png")[0] == 400


def test_ids_that_lead_elsewhere_find_nothing(address):
    for path in (
        "/api/images/..%2f..%2fetc/passwd", "/api/images/00000/..%2f..%2fx", "/images/99999/x.jpg",
        "/masks/..%2f00000/x.png", "/api/images/00000/'%20OR%201=1",
    ):  # fmt: skip
        assert ask(address, path)[0] in (400, 404), path


def test_a_mark_is_a_row_that_can_be_changed_and_taken_back(dataset, address):
    row = one(dataset, "SELECT annotation_id, image_id, kind FROM annotations WHERE source = 'detector'")
    id_, file = row["annotation_id"], Path(dataset.url) / f"annotations/{REVIEWER}/00000.parquet"
    for as_, value in (("good", 1.0), ("bad", 0.0)):
        assert mark(address, "00000", id_, as_) == (200, {"annotation_id": id_, "mark": as_})
        (found,) = dataset.annotations(REVIEWER, "00000").to_pylist()
        said = {
            name: found[name] for name in ("image_id", "kind", "granularity", "parent_id", "score", "text")
        }
        assert said == {
            "image_id": row["image_id"], "kind": row["kind"], "granularity": REVIEW, "parent_id": id_,
            "score": value, "text": None,
        }  # fmt: skip
        found_bad = ask(address, "/api/search?mark=bad")[2]["images"]
        assert [image["image_id"] for image in found_bad] == ([row["image_id"]] if as_ == "bad" else [])
    assert (
        one(dataset, "SELECT count(*) AS n FROM scores WHERE source = 'human-review' AND score = 0")["n"] == 1
    )
    told = ask(address, f"/api/images/00000/{row['image_id']}")[2]["statements"]
    assert [s["mark"] for s in told if s["id"] == id_] == ["bad"] and all(
        s["source"] != REVIEWER for s in told
    )
    assert mark(address, "00000", id_, None)[0] == 200 and not file.exists()


def test_marks_of_many_at_once_are_all_there(dataset, address):
    ids = sql(dataset, "SELECT annotation_id FROM annotations WHERE source = 'truth' LIMIT 24")[
        "annotation_id"
    ].to_pylist()
    with ThreadPoolExecutor(8) as pool, serving(dataset) as (second, _):
        # Two viewers of one data set, which know nothing of each other's threads.
        places = [(address, second)[i % 2] for i in range(len(ids))]
        shards = ["00000"] * len(ids)
        answers = list(pool.map(mark, places, shards, ids, ["bad"] * len(ids)))
    there = {row["parent_id"] for row in dataset.annotations(REVIEWER, "00000").to_pylist()}
    known = {id_ for id_, (status, _) in zip(ids, answers, strict=True) if status == 200}
    assert known and there == known
    for id_ in known:
        mark(address, "00000", id_, None)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"shard": "00000"}', b'{"shard": "00000", "annotation_id": "x", "mark": "good"}',
     b'{"shard": "../00000", "annotation_id": "x", "mark": "good"}', b"x" * 10_000],
)  # fmt: skip
def test_what_is_no_mark_is_refused_in_one_line(dataset, address, body):
    headers = {"x-fde-viewer": "1", "content-type": "application/json"}
    status, _, answer = ask(address, "/api/marks", "POST", body, **headers)
    assert status in (400, 413) and "\n" not in answer["error"]
    assert REVIEWER not in dataset.sources() or not dataset.store.files(f"annotations/{REVIEWER}")


def test_a_mark_other_than_good_and_bad_is_refused(dataset, address):
    id_ = one(dataset, "SELECT annotation_id FROM annotations WHERE source = 'detector'")["annotation_id"]
    assert mark(address, "00000", id_, "so-so")[0] == 400


def test_marks_that_cannot_be_read_are_not_overwritten(tmp_path):
    dataset = scenes(tmp_path, 2, 2)
    id_ = one(dataset, "SELECT annotation_id FROM annotations WHERE source = 'detector'")["annotation_id"]
    file = Path(dataset.url) / f"annotations/{REVIEWER}/00000.parquet"
    file.parent.mkdir()
    file.write_bytes(b"PAR1 and no more")
    with serving(dataset) as (address, _):
        status, answer = mark(address, "00000", id_, "good")
    assert status == 500 and "damaged" in answer["error"] and file.read_bytes() == b"PAR1 and no more"


def test_read_only_means_that_nothing_is_written(dataset):
    id_ = one(dataset, "SELECT annotation_id FROM annotations WHERE source = 'detector'")["annotation_id"]
    before = set(Path(dataset.url).rglob("*.parquet"))
    with serving(dataset, read_only=True) as (address, _):
        assert ask(address, "/api/overview")[2]["read_only"] is True
        status, answer = mark(address, "00000", id_, "good")
    assert status == 403 and "--read-only" in answer["error"]
    assert set(Path(dataset.url).rglob("*.parquet")) == before


def test_the_server_ends_with_its_block(dataset):
    with serving(dataset) as (_, thread):
        assert thread.is_alive()
    assert not thread.is_alive() and thread not in threading.enumerate()
