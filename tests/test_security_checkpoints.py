"""Checkpoints that would run code when they are loaded. Those of each library are in its own tests (docs/security.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_engine.errors import ModelLoadError
from specialists.clip_config import CONFIG, check_config

EVIL = "from pathlib import Path\n(Path(__file__).parent / 'RAN').touch()\nclass Evil: ...\n"
"""A module that says that it was run, where it lies."""


def clip_folder(folder: Path, text: dict[str, Any]) -> Path:
    """An open_clip folder without weights, with a module that its tokenizer names."""
    folder.mkdir(parents=True)
    model = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 8, "head_width": 4, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 8, "heads": 1, "layers": 1, **text},
    }
    (folder / CONFIG).write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    settings = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}})
    )
    (folder / "evil.py").write_text(EVIL)
    return folder


def ran(folder: Path) -> bool:
    """transformers copies a module before it runs it, so wherever the mark may lie."""
    return bool(list(folder.rglob("RAN")))


def test_a_tokenizer_of_open_clip_cannot_ask_for_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("open_clip")
    from specialists.scorer import Scorer

    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    text = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    folder = clip_folder(tmp_path / "clip", text)
    with pytest.raises(ModelLoadError, match="trust_remote_code"):
        Scorer(pretrained=str(folder))
    assert not ran(tmp_path)


@pytest.mark.parametrize("setting", ["trust_remote_code", "code_revision", "tokenizer_type", "\x1b[2J"])
def test_only_settings_of_open_clip_reach_its_tokenizer(tmp_path: Path, setting: str) -> None:
    folder = clip_folder(tmp_path / "clip", {"tokenizer_kwargs": {"clean": "canonicalize", setting: "x"}})
    with pytest.raises(ModelLoadError) as raised:
        check_config(f"local-dir:{folder}")
    assert raised.value.message.isprintable()


def test_settings_of_released_models_are_taken(tmp_path: Path) -> None:
    settings = {"clean": "canonicalize", "strip_sep_token": True}
    check_config(f"local-dir:{clip_folder(tmp_path / 'clip', {'tokenizer_kwargs': settings})}")
    check_config("ViT-B-32")


_LOAD = """
import sys
from data_engine.errors import ModelLoadError
from specialists.pretrained import load_processor, load_weights
from transformers import AutoModelForCausalLM, AutoTokenizer
for load in (lambda: load_processor(AutoTokenizer, sys.argv[1], None),
             lambda: load_weights(AutoModelForCausalLM, sys.argv[1], None, None)):
    try:
        load()
    except ModelLoadError as error:
        print(error.message)
"""


@pytest.mark.slow
def test_nobody_is_asked_whether_a_checkpoints_code_may_run(tmp_path: Path) -> None:
    """The library asks at a terminal, and takes a `y` that was typed for something else."""
    pytest.importorskip("transformers")
    folder = clip_folder(tmp_path / "clip", {})
    (folder / "model.safetensors").write_bytes(b"")
    environment = {
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(folder)],
        input="y\n" * 20, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[y/N]" not in done.stdout
    assert done.stdout.count("cannot load") == 2 and not ran(tmp_path)
