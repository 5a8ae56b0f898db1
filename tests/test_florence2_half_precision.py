"""In half precision, as on a GPU: nothing mixes two types, and a taught toy model says the same."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.image import Image
from specialists import pretrained
from specialists.florence2 import Florence2
from specialists.florence2.likelihood import Likelihood
from specialists.florence2.mending import Mended
from tests.toy_florence2 import ANSWERS, BRIEF, overfitted, pictures

IMAGES = [Image(f"image-{i}", pixels) for i, pixels in enumerate(pictures())]
TASKS = ["CAPTION", "DETAILED_CAPTION", "OD", "OCR", "CAPTION_TO_PHRASE_GROUNDING", "DENSE_REGION_CAPTION"]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(overfitted(tmp_path_factory.getbasetemp() / "florence2_overfitted"))


@pytest.fixture(params=[torch.float16, torch.bfloat16], ids=str)
def half(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    dtype: torch.dtype = request.param
    monkeypatch.setattr(pretrained, "device_and_dtype", lambda *_: (torch.device("cpu"), dtype))
    return dtype


def said(text: str) -> pa.Table:
    made = AnnotationRows("noisy")
    assert made.add(IMAGES[0].image_id, [Annotation("text", text, "brief")]) == []
    return made.table()


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_those_that_were_taught(taught: str, half: torch.dtype, beams: int) -> None:
    asked = Florence2(taught, TASKS, num_beams=beams, max_new_tokens=60)
    assert next(asked.model.network.parameters()).dtype == half
    for rows, answers, brief in zip(asked(IMAGES, None), ANSWERS, BRIEF, strict=True):
        assert [row.text for row in rows if row.granularity == "brief" and row.kind == "text"] == [brief]
        assert ("OCR", "") not in answers or any(
            row.text == answers["OCR", ""] for row in rows if row.kind == "text"
        )
        assert all(row.score is None or 0 <= row.score <= 1 for row in rows)


def test_what_is_wrong_is_doubted_and_mended(taught: str, half: torch.dtype) -> None:
    likely = Likelihood(taught, ["noisy"])
    wrong = "a blue square on a green field"
    ((right_told,), (wrong_told,)) = (
        [row.score or 0.0 for row in likely([IMAGES[0]], said(text))[0] if row.granularity == "told"]
        for text in (BRIEF[0], wrong)
    )
    assert wrong_told < 0.5 < right_told
    mend = Mended(taught, ["noisy"])
    assert next(mend.model.network.parameters()).dtype == half
    store = AnnotationRows("noisy")
    region = Annotation("region", "square", "phrase", box=(8, 12, 40, 36))
    assert store.add(IMAGES[0].image_id, [region, Annotation("text", wrong, "brief")]) == []
    assert [row.text for row in mend([IMAGES[0]], store.table())[0]] == [BRIEF[0]]
