"""Secrets: what a person has in the environment, or writes where it does not belong, is stored and shown nowhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_engine.addresses import check_uri
from data_engine.errors import FdeError, ImageError, StorageError
from data_engine.storage import Store, resolve
from pipelines.cli import main
from tests.chat_server import Asked, Move, answer, error, serving
from tests.hostile_rows import honest
from tests.picture_files import png, put

CANARY = "canary-3f9a1c77e2"

NAMES = (
    "TOY_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_KEY", "HF_TOKEN",
    "FDE_TOKEN", "RAY_AUTH_TOKEN", "DB_PASSWORD", "GOOGLE_CREDENTIALS",
)  # fmt: skip

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


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        monkeypatch.setenv(name, f"{CANARY}-{number}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def holding(folder: Path) -> list[str]:
    """The files below a folder in which a canary stands, in their names or in their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(p) for p in files if CANARY.encode() in p.read_bytes() or CANARY in str(p)]


RECIPE = """
name: chatty
specialists:
  numbers: {{use: "tests.toy_specialists:Numbers"}}
  talkative: {{use: "babbler:Babbler"}}
  chat:
    use: specialists.endpoint:ChatTexts
    needs: [numbers]
    args: {{base_url: "{url}", model: toy, granularity: detailed, share: 1.0, retries: 0, api_key_env: TOY_API_KEY}}
filters:
  short: {{use: "filters.text_length:TextLength", args: {{minimum_words: 2}}}}
"""

BABBLER = """
import os
class Babbler:
    def __init__(self, always: bool = False):
        self.always = always

    def __call__(self, images, said):
        if not self.always and not any(int(image.image_id, 16) % 2 for image in images):
            return [[] for _ in images]
        raise RuntimeError(f"401: the key {os.environ['OPENAI_API_KEY']} is wrong, see ?token={os.environ['HF_TOKEN']}")
"""


def test_nothing_of_the_environment_is_stored_or_shown(tmp_path: Path, canaries: None, fde: Fde) -> None:
    """Commands that go well, that fail in single images, and that end by an error, with a server that repeats keys."""

    def repeats(asked: Asked) -> Move:
        key = asked.headers["authorization"]
        return [error(400, key), answer(f"A cup. {key}"), error(500, key)][len(chat.asked) % 3]

    with serving() as chat:
        chat.rule = repeats
        put(tmp_path, {**{f"pictures/{i}.png": png(i) for i in range(7)}, "babbler.py": BABBLER})
        recipe, failing = tmp_path / "chatty.yaml", tmp_path / "failing.yaml"
        recipe.write_text(RECIPE.format(url=chat.url))
        failing.write_text('name: f\nspecialists: {bad: {use: "babbler:Babbler", args: {always: true}}}')
        url = str(tmp_path / "ds")
        commands = [
            ("annotate", str(tmp_path / "pictures"), url, "--recipe", str(recipe), "--runner", "inline"),
            ("filter", url, "--recipe", str(recipe), "--runner", "inline"),
            ("annotate", url, "--recipe", str(failing), "--runner", "inline"),
            ("status", url),
            ("sql", url, "FROM failures"),
            ("sql", url, "FROM runs"),
            ("qa", url),
            ("annotate", url, "--recipe", str(recipe), "--address", f"ray://me:{CANARY}@127.0.0.1:9"),
        ]
        told = [fde(*command) for command in commands]
    assert told[0][0] == 0, told[0]
    assert chat.asked and all(CANARY in asked.headers["authorization"] for asked in chat.asked)
    assert [code for code, _, _ in told[:4]] == [0, 0, 5, 0]
    shown = "".join(out + err for _, out, err in told)
    assert "***" in shown
    assert CANARY not in shown
    assert holding(tmp_path) == []


URLS = [
    f"s3://AKIAXXXX:{CANARY}@bucket/x",
    f"s3://bucket/x?secret_key={CANARY}",
    f"https://me:{CANARY}@host.example/x",
    f"https://host.example/x?token={CANARY}",
    f"https://host.example/x?X-Amz-Signature={CANARY}",
    f"https://account.example/x?sig={CANARY}",
    f"abfs://container:{CANARY}@account.dfs.core.windows.net/x",
    f"sftp://me:{CANARY}@host.example/x",
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_holds_a_secret_is_refused_and_not_repeated(url: str) -> None:
    for use in (resolve, Store):
        with pytest.raises(StorageError) as raised:
            use(url)
        assert CANARY not in raised.value.message + raised.value.hint
        assert "environment" in raised.value.hint


@pytest.mark.parametrize("url", [URLS[0], URLS[3]])
def test_commands_refuse_such_a_url_before_anything_is_written(tmp_path: Path, fde: Fde, url: str) -> None:
    dataset = honest(tmp_path)
    for command in (
        ("ingest", url, str(tmp_path / "new")),
        ("ingest", str(tmp_path / "pictures"), url),
        ("sql", url, "FROM images"),
    ):
        code, out, err = fde(*command)
        assert code == StorageError.exit_code and CANARY not in out + err
    assert not (tmp_path / "new").exists() and holding(tmp_path) == [] and dataset.url


@pytest.mark.parametrize(
    "url",
    [
        "memory://bucket/x",
        "memory://bucket/x?region=eu-west-1",
        "/home/me/a:b@c/x",
        "file:///home/me/token=1",
    ],
)  # fmt: skip
def test_other_urls_are_taken(url: str) -> None:
    resolve(url)


def test_rows_with_a_secret_are_refused_without_repeating_it() -> None:
    with pytest.raises(ImageError) as raised:
        check_uri(URLS[0], "/data/set")
    assert raised.value.reason == "refused_address" and CANARY not in str(raised.value)
    assert isinstance(raised.value, FdeError)
