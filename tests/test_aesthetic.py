"""The aesthetic score: heads of the published forms over a small CLIP; the reference is torch's own modules."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_engine.annotation import AnnotationRows
from data_engine.errors import ImageError, ModelLoadError
from filters.measure import Measure
from specialists.aesthetic import Aesthetic
from specialists.aesthetic_head import apply_head, load_head
from tests.test_scorer import picture, save_toy_clip

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
save_file = pytest.importorskip("safetensors.torch").save_file

WIDTH = 32


class Predictor(torch.nn.Module):
    """LAION-Aesthetics v2 as it is published, for a narrower feature."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [WIDTH, 24, 16, 8, 4, 1]
        layers: list[Any] = []
        for before, after in pairwise(sizes):
            layers += [torch.nn.Linear(before, after), torch.nn.Dropout(0.2)]
        self.layers = torch.nn.Sequential(*layers[:-1])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_toy_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(1)
    return Predictor().eval()


def test_the_number_is_that_of_the_published_network_over_the_librarys_own_feature(
    tmp_path: Path, clip: Path, predictor: Predictor
) -> None:
    torch.save(predictor.state_dict(), tmp_path / "v2.pth")
    linear = torch.nn.Linear(WIDTH, 1)
    save_file(dict(linear.state_dict()), str(tmp_path / "v1.safetensors"))
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{clip}")
    images = [picture(1), picture(2, 30, 70), picture(3, 33, 33)]
    for file, network in (("v2.pth", predictor.layers), ("v1.safetensors", linear)):
        specialist = Aesthetic(str(tmp_path / file), pretrained=str(clip), max_batch=2)
        made = specialist(images, None)
        for image, (row,) in zip(images, made, strict=True):
            with torch.no_grad():
                feature = model.eval().encode_image(preprocess(image.pil)[None], normalize=True)
                assert float(row.text or "") == pytest.approx(float(network(feature)), abs=2e-3)
            assert (row.kind, row.granularity, row.score) == ("image", "aesthetic", None)
            assert [one.text for one in specialist([image], None)[0]] == [row.text]


def test_a_measure_filter_takes_it_for_a_number(tmp_path: Path, clip: Path) -> None:
    head = tmp_path / "always.safetensors"
    save_file({"weight": torch.zeros(1, WIDTH), "bias": torch.tensor([6.25])}, str(head))
    rows = AnnotationRows("aesthetic")
    assert not rows.add("i" * 32, Aesthetic(str(head), pretrained=str(clip))([picture(1)], None)[0])
    assert Measure("aesthetic", minimum=6.2)(rows.table()).to_pylist() == [True]
    assert Measure("aesthetic", minimum=6.3)(rows.table()).to_pylist() == [False]


def test_what_is_no_number_is_a_failure_of_the_image(tmp_path: Path, clip: Path) -> None:
    head = tmp_path / "endless.safetensors"
    save_file({"weight": torch.zeros(1, WIDTH), "bias": torch.tensor([float("inf")])}, str(head))
    (made,) = Aesthetic(str(head), pretrained=str(clip))([picture(1)], None)[0]
    assert isinstance(made, ImageError) and made.reason == "bad_annotation"


def test_layers_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    torch.manual_seed(2)
    deep = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(11)], torch.nn.Linear(4, 1))
    torch.save(deep.state_dict(), tmp_path / "deep.pth")
    features = torch.randn(5, 4)
    with torch.no_grad():
        assert torch.allclose(apply_head(load_head(tmp_path / "deep.pth"), features), deep(features)[:, 0])


def saved(tensors: dict[str, Any]) -> Callable[[Path], None]:
    return lambda path: torch.save(tensors, path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "there is no head"),
        (lambda path: path.write_bytes(b"no tensors"), "cannot load"),
        (saved({"weight": torch.zeros(1, 48), "bias": torch.zeros(1)}), "48 numbers, the model ViT-L-14 makes 32"),
        (saved({"weight": torch.zeros(2, WIDTH), "bias": torch.zeros(2)}), r"weights \[\[2, 32\]\]"),
        (saved({"weight": torch.zeros(1, WIDTH)}), "no chain"),
        (saved({"weight": torch.zeros(1, WIDTH), "bias": torch.zeros(3)}), "no chain"),
        (saved({"weight": torch.zeros(1, WIDTH, 1, 1), "bias": torch.zeros(1)}), "no chain"),
        (
            saved({"0.weight": torch.zeros(4, WIDTH), "0.bias": torch.zeros(4), "1.weight": torch.zeros(1, 5),
                   "1.bias": torch.zeros(1)}),
            "no chain",
        ),
        (saved({"weight": torch.zeros(1, WIDTH), "bias": torch.zeros(1), "norm": torch.zeros(1)}), "'norm'"),
        (saved({}), "no chain"),
        (saved({"state_dict": {"weight": torch.zeros(1, WIDTH)}}), "no tensors by name"),
    ],
)  # fmt: skip
def test_a_head_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, clip: Path, make: Callable[[Path], None], told: str
) -> None:
    make(tmp_path / "head.pth")
    with pytest.raises(ModelLoadError, match=told) as caught:
        Aesthetic(str(tmp_path / "head.pth"), pretrained=str(clip))
    assert "\n" not in caught.value.message and caught.value.hint


def test_a_head_that_would_run_code_is_refused(tmp_path: Path, clip: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"weight": Evil()}, tmp_path / "head.pth")
    with pytest.raises(ModelLoadError, match="cannot load"):
        Aesthetic(str(tmp_path / "head.pth"), pretrained=str(clip))
    assert not (tmp_path / "ran").exists()
