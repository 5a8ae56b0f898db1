"""Embeddings of images as rows, and what shows the same again found by them, with real models of open_clip."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from data_engine.annotation import AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import ImageError, ModelLoadError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import FilterPart, Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.scenes.scene import make_scene
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from specialists.image_embedding import ImageEmbedding
from tests.test_scorer import picture, save_toy_clip

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

SCENES_CLIP = str(Path(__file__).resolve().parents[1] / "specialists" / "weights" / "scenes-scorer")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_toy_clip(tmp_path_factory.mktemp("clip"))


def test_the_text_is_the_librarys_feature_as_bytes(clip: Path) -> None:
    images = [picture(1), picture(2, 30, 70), picture(3, 33, 33)]
    specialist = ImageEmbedding(pretrained=str(clip), max_batch=2)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{clip}")
    made = specialist(images, None)
    for image, said in zip(images, made, strict=True):
        (row,) = said
        assert not isinstance(row, ImageError)
        assert (row.kind, row.granularity, row.score) == ("image", "embedding", None)
        with torch.no_grad():
            feature = model.eval().encode_image(preprocess(image.pil)[None], normalize=True)[0].numpy()
        told = np.frombuffer(base64.b64decode(row.text or ""), np.int8) / 127 * np.abs(feature).max()
        assert np.abs(told - feature).max() <= np.abs(feature).max() / 254 + 1e-5
        assert not AnnotationRows("clip").add(image.image_id, said)
    assert specialist([], None) == []


def changed(clip: Path, folder: Path, projection: Any) -> str:
    """The same model with another last layer of its picture tower, (64, features)."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(str(clip / "open_clip_model.safetensors"))
    tensors["visual.proj"] = projection
    tensors["text_projection"] = torch.zeros(32, projection.shape[1])
    save_file(tensors, str(folder / "open_clip_model.safetensors"))
    told = json.loads((clip / "open_clip_config.json").read_text())
    told["model_cfg"]["embed_dim"] = projection.shape[1]
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    return str(folder)


def test_a_feature_that_is_not_finite_is_a_failure_of_its_image(clip: Path, tmp_path: Path) -> None:
    endless = changed(clip, tmp_path, torch.full((64, 32), float("inf")))
    (made,) = ImageEmbedding(pretrained=endless)([picture(1)], None)[0]
    assert isinstance(made, ImageError) and made.reason == "bad_annotation"


def test_vectors_too_wide_for_a_row_are_refused(clip: Path, tmp_path: Path) -> None:
    wide = changed(clip, tmp_path, torch.ones(64, 1_501))
    with pytest.raises(ModelLoadError, match="1,501 numbers"):
        ImageEmbedding(pretrained=wide)([picture(1)], None)


def test_copies_of_scenes_fall_in_whatever_shard_they_lie(tmp_path: Path) -> None:
    """Three scenes, the first smaller and the third cut a little, in shards of two."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    scenes = [PIL.Image.fromarray(make_scene(9, i, (320, 240)).pixels) for i in range(3)]
    for i, scene in enumerate(scenes):
        scene.save(folder / f"{i}.png")
    scenes[0].resize((200, 150)).save(folder / "small.jpg", quality=60)
    scenes[2].crop((2, 2, 318, 238)).save(folder / "cut.png")
    ingest(str(folder), str(tmp_path / "ds"), shard_size=2)
    dataset = Dataset.open(str(tmp_path / "ds"))
    specialist = SpecialistPart(
        use="specialists.image_embedding:ImageEmbedding", args={"pretrained": SCENES_CLIP, "device": "cpu"}
    )
    annotate(
        dataset,
        Recipe(name="t", specialists={"clip": specialist}).check(),
        runner="inline",
        reporter=Reporter(terminal=False),
    )
    again = FilterPart(use="filters.near_embedding:NearEmbedding", args={"similarity": 0.98})
    filter_dataset(dataset, Recipe(name="f", filters={"again": again}).check())
    found = sql(
        dataset, "SELECT keys[1] AS key, value FROM verdicts JOIN images USING (image_id) WHERE NOT kept"
    ).to_pylist()
    assert {row["key"] for row in found} == {"small.jpg", "cut.png"}
    assert all(0.98 <= row["value"] <= 1 for row in found)
