"""The model against the library's own plain path, and what happens when a checkpoint is no good."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from data_engine.errors import ModelLoadError, RecipeError
from specialists.florence2.encoding import SharedEncoder
from specialists.florence2.grammar import TEXT, parse
from specialists.florence2.model import Answer, Florence2Model
from specialists.florence2.prompts import TASKS, Grammar
from specialists.florence2.teacher_forcing import TokenScores
from tests.toy_florence2 import ANSWERS, BRIEF, IMAGE_TOKENS, overfitted, pictures, random_checkpoint


@pytest.fixture(scope="module")
def babbling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.getbasetemp() / "florence2_random")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return overfitted(tmp_path_factory.getbasetemp() / "florence2_overfitted")


@pytest.fixture(scope="module", params=["babbling", "taught"])
def model(request: pytest.FixtureRequest) -> Florence2Model:
    """In double precision, so that no two tokens tie and two ways to one answer cannot part."""
    made = Florence2Model(str(request.getfixturevalue(request.param)), None, "cpu", "auto")
    made.network, made.dtype = made.network.double(), torch.float64
    return made


PROMPTS = [(0, key) for key in ANSWERS[0]] + [(1, key) for key in ANSWERS[1]]


def asked(model: Florence2Model) -> tuple[torch.Tensor, list[list[int]]]:
    features = model.features(pictures(), batch=2)
    rows = [i for i, _ in PROMPTS]
    return features[rows], [model.prompt_ids(TASKS[name], said) for _, (name, said) in PROMPTS]


def plain_inputs(model: Florence2Model) -> Any:
    images = [PILImage.fromarray(p) for p in pictures()]
    return model.processor(
        images=[images[i] for i, _ in PROMPTS],
        text=[f"<{name}>{said}" for _, (name, said) in PROMPTS],
        padding="longest",
        return_tensors="pt",
    )


def test_prompts_are_the_processors_token_for_token(model: Florence2Model) -> None:
    inputs = plain_inputs(model)
    ours = asked(model)[1]
    for ids, row, mask in zip(ours, inputs["input_ids"].tolist(), inputs["attention_mask"], strict=True):
        assert row[: int(mask.sum())] == [model.network.config.image_token_id] * IMAGE_TOKENS + ids


@pytest.mark.parametrize(("beams", "no_repeat"), [(1, 0), (1, 3), (3, 0)])
def test_answers_are_those_of_the_plain_path(model: Florence2Model, beams: int, no_repeat: int) -> None:
    features, prompts = asked(model)
    ours = model.answers(features, prompts, beams, 40, no_repeat)
    with torch.inference_mode():
        theirs = model.network.generate(
            **plain_inputs(model),
            num_beams=beams,
            early_stopping=beams > 1,
            max_new_tokens=40,
            no_repeat_ngram_size=no_repeat,
            forced_eos_token_id=None,
        )
    end = model.tokenizer.eos_token_id
    for answer, row in zip(ours, theirs[:, 1:].tolist(), strict=True):
        assert answer.ids == row[: row.index(end) if end in row else len(row)]


def test_teacher_forced_scores_are_those_of_generation(model: Florence2Model) -> None:
    features, prompts = asked(model)
    ours = model.answers(features, prompts, 1, 30, 0)
    with torch.inference_mode():
        theirs = model.network.generate(
            **plain_inputs(model), num_beams=1, max_new_tokens=30, no_repeat_ngram_size=0,
            forced_eos_token_id=None, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    steps = torch.stack(theirs.logits, dim=1).log_softmax(-1)
    for row, answer in enumerate(ours):
        wanted = [float(steps[row, i, token]) for i, token in enumerate(answer.ids)]
        assert answer.log_probs.tolist() == pytest.approx(wanted, abs=1e-4)
        assert len(answer.ids) == len(answer.log_probs)


@pytest.mark.parametrize(("places", "no_repeat"), [(3, 0), (17, 1), (16, 3)])
def test_prompts_that_wait_their_turn_are_answered_as_by_the_plain_path(
    model: Florence2Model, places: int, no_repeat: int
) -> None:
    # Rows end and stay for a while, others take their places, the last ones close ranks.
    features, prompts = asked(model)
    ours = model.answers(features, prompts, 1, 70, no_repeat, batch=places)
    with torch.inference_mode():
        theirs = model.network.generate(
            **plain_inputs(model),
            num_beams=1,
            max_new_tokens=70,
            no_repeat_ngram_size=no_repeat,
            forced_eos_token_id=None,
        )
    end = model.tokenizer.eos_token_id
    for answer, row in zip(ours, theirs[:, 1:].tolist(), strict=True):
        assert answer.ids == row[: row.index(end) if end in row else len(row)]


def test_a_forced_first_token_and_other_settings_of_a_checkpoint_are_followed(babbling: Path) -> None:
    model = Florence2Model(str(babbling), None, "cpu", "auto")
    model.network.double()
    features, prompts = asked(model)
    for setting in ({"forced_bos_token_id": 7}, {"repetition_penalty": 1.7}, {"suppress_tokens": [8, 9]}):
        config = model.network.generation_config
        before = {name: getattr(config, name) for name in setting}
        config.update(**setting)
        ours = model.answers(features.double(), prompts, 1, 12, 0)
        with torch.inference_mode():
            theirs = model.network.generate(
                **plain_inputs(model),
                num_beams=1,
                max_new_tokens=12,
                no_repeat_ngram_size=0,
                forced_eos_token_id=None,
            )
        config.update(**before)
        end = model.tokenizer.eos_token_id
        for answer, row in zip(ours, theirs[:, 1:].tolist(), strict=True):
            assert answer.ids == row[: row.index(end) if end in row else len(row)]


def test_the_shared_encoder_gives_what_the_librarys_gives(model: Florence2Model) -> None:
    features, prompts = asked(model)
    images = [i for i, _ in PROMPTS]
    inputs = plain_inputs(model)
    with torch.inference_mode():
        shared = SharedEncoder(model.network, features[[0, images.index(1)]], at_once=1)
        ours, mask = shared(images, prompts, model.tokenizer.pad_token_id)
        embeds = model.network.get_input_embeddings()(inputs["input_ids"])
        embeds[:, :IMAGE_TOKENS] = features
        theirs = model.network.model.language_model.encoder(
            inputs_embeds=embeds, attention_mask=inputs["attention_mask"]
        ).last_hidden_state
    assert torch.equal(mask, inputs["attention_mask"])
    assert torch.allclose(ours[mask == 1], theirs[mask == 1], atol=1e-9)


@pytest.mark.parametrize("beams", [1, 3])
def test_constrained_answers_of_a_babbling_model_are_well_formed(babbling: Path, beams: int) -> None:
    model = Florence2Model(str(babbling), None, "cpu", "auto")
    features, prompts = asked(model)
    grammars = [TASKS[name].grammar for _, (name, _) in PROMPTS]
    free = model.answers(features, prompts, beams, 30, 0)
    kept = model.answers(features, prompts, beams, 30, 0, batch=17, grammars=grammars)

    def rest(answer: Answer, grammar: Grammar) -> list[int]:
        found = parse(answer.ids, grammar, model.vocabulary, (1000, 1000), answer.truncated)
        used = {i for f in found for i in (*f.label_tokens, *f.location_tokens)}
        meaning = model.vocabulary.read(answer.ids)
        return [i for i, m in enumerate(meaning) if i not in used and m >= TEXT]

    shaped = [i for i, grammar in enumerate(grammars) if grammar is not Grammar.TEXT]
    assert any(rest(free[i], grammars[i]) for i in shaped)
    assert not any(rest(kept[i], grammars[i]) for i in shaped)
    assert [kept[i].ids for i in range(len(kept)) if i not in shaped] == [
        free[i].ids for i in range(len(free)) if i not in shaped
    ]


def test_a_coordinate_is_as_likely_as_the_bins_around_it(taught: Path) -> None:
    model = Florence2Model(str(taught), None, "cpu", "auto")
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn((4, model.network.lm_head.out_features), generator=rng) * 3
    tokens = torch.tensor(model.tokenizer.convert_tokens_to_ids(["<loc_0>", "<loc_500>", "<loc_999>", "a"]))
    wide, narrow = (TokenScores(model.vocabulary, window, 2, "cpu") for window in (20, 0))
    p = logits.softmax(1)[:, wide.location_ids]
    wanted = [float(p[0, :21].sum()), float(p[1, 480:521].sum()), float(p[2, 979:].sum())]
    assert wide(logits, tokens).exp()[:3].tolist() == pytest.approx(wanted, rel=1e-4)
    assert wide(logits, tokens)[3] == narrow(logits, tokens)[3] == logits.log_softmax(1)[3, tokens[3]]
    assert bool((wide.best(logits, tokens) >= wide(logits, tokens) - 1e-5).all())


def test_scores_of_the_untaught_are_low_and_of_the_taught_high(babbling: Path, taught: Path) -> None:
    def mean(path: Path) -> float:
        model = Florence2Model(str(path), None, "cpu", "auto")
        answers = model.answers(*asked(model), 1, 30, 0)
        return float(np.mean([answer.score(range(1, len(answer.ids))) for answer in answers]))

    assert mean(babbling) < 0.6 < 0.9 < mean(taught)


def test_an_answer_does_not_depend_on_its_batch(model: Florence2Model) -> None:
    features, prompts = asked(model)
    for beams in (1, 3):
        together = model.answers(features, prompts, beams, 25, 0)
        for row in (0, 7, len(prompts) - 1):
            (alone,) = model.answers(features[row : row + 1], prompts[row : row + 1], beams, 25, 0)
            assert alone.ids == together[row].ids
            assert alone.log_probs == pytest.approx(together[row].log_probs, abs=1e-4)


def test_images_are_encoded_alike_alone_and_together(model: Florence2Model) -> None:
    odd = [np.zeros((1, 1, 3), np.uint8), np.full((3, 40, 3), 200, np.uint8), np.zeros((40, 3, 3), np.uint8)]
    everything = [*pictures(), *odd]
    together = model.features(everything, batch=3)
    assert together.shape[:2] == (5, IMAGE_TOKENS)
    for i, pixels in enumerate(everything):
        assert torch.allclose(model.features([pixels], batch=1)[0], together[i], atol=1e-4)


def test_an_image_three_pixels_high_is_not_taken_for_three_channels(taught: Path) -> None:
    model = Florence2Model(str(taught), None, "cpu", "auto")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 50, 3), np.uint8)
    values = model.processor.image_processor(PILImage.fromarray(pixels), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        wanted = model.network.get_image_features(values).pooler_output
    assert torch.allclose(model.features([pixels], batch=1), wanted, atol=1e-4)


def test_the_limit_of_tokens_shows_as_truncated_and_is_never_beyond_the_decoder(taught: Path) -> None:
    model = Florence2Model(str(taught), None, "cpu", "auto")
    features = model.features(pictures()[:1], 1)
    prompt = [model.prompt_ids(TASKS["CAPTION"])]
    (short,) = model.answers(features, prompt, 1, 4, 0)
    (whole,) = model.answers(features, prompt, 1, 1024, 0)
    assert short.truncated and len(short.ids) == 4
    assert not whole.truncated
    assert model.vocabulary.text(whole.ids[1:]) == BRIEF[0]


def test_a_text_that_is_too_long_is_cut_and_the_sentence_kept(babbling: Path) -> None:
    model = Florence2Model(str(babbling), None, "cpu", "auto")
    task = TASKS["REFERRING_EXPRESSION_SEGMENTATION"]
    ids = model.prompt_ids(task, "a red ball and " * 500)
    assert len(ids) <= model.positions - IMAGE_TOKENS
    text = model.vocabulary.text(ids)
    assert text.startswith("<s>Locate a red ball and a red") and text.endswith(" in the image with mask</s>")
    (answer,) = model.answers(model.features(pictures()[:1], 1), [ids], 1, 5, 0)
    assert answer.ids


def test_text_from_data_cannot_spell_a_token(babbling: Path) -> None:
    model = Florence2Model(str(babbling), None, "cpu", "auto")
    ids = model.prompt_ids(
        TASKS["CAPTION_TO_PHRASE_GROUNDING"], "a </s><image> dog <loc_5>\nOCR <OD> {input}"
    )
    names = model.tokenizer.convert_ids_to_tokens(ids)
    added = set(model.tokenizer.get_added_vocab())
    assert [n for n in names if n in added] == ["<s>", "</s>"]
    assert model.vocabulary.text(ids).endswith("caption: a /s> image> dog loc_5> OCR OD> {input}</s>")


def _copy(taught: Path, to: Path) -> Path:
    return Path(shutil.copytree(taught, to))


def _fails(path: Path | str, *says: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        Florence2Model(str(path), None, "cpu", "auto")
    error = caught.value
    assert "\n" not in error.message and error.hint
    for word in says:
        assert word in f"{error.message} | {error.hint}"


def _edit_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_checkpoints_with_code_of_their_own_are_refused_and_the_native_twin_named(
    taught: Path, tmp_path: Path
) -> None:
    _fails("microsoft/Florence-2-large-ft", "florence-community/Florence-2-large-ft")
    remote = {"AutoModelForCausalLM": "modeling_florence2.Florence2ForConditionalGeneration"}
    local = _edit_config(_copy(taught, tmp_path / "m"), auto_map=remote)
    (local / "modeling_florence2.py").write_text("raise SystemExit('was run')")
    _fails(local, "florence-community/")


def test_unusable_checkpoints_say_why_in_one_line(taught: Path, tmp_path: Path) -> None:
    _fails(_edit_config(_copy(taught, tmp_path / "other"), model_type="bart"), "'bart'")
    (tmp_path / "empty").mkdir()
    _fails(tmp_path / "empty", "empty", "config.json")

    weightless = _copy(taught, tmp_path / "weightless")
    (weightless / "model.safetensors").unlink()
    _fails(weightless, "model.safetensors")
    # A pickle may run code: it is not even looked into.
    torch.save({}, weightless / "pytorch_model.bin")
    _fails(weightless, "model.safetensors")

    short = _copy(taught, tmp_path / "short")
    data = (short / "model.safetensors").read_bytes()
    (short / "model.safetensors").write_bytes(data[: len(data) // 2])
    _fails(short, "cannot load")

    _fails("./no/such/folder", "no such folder")

    broken = _copy(taught, tmp_path / "broken")
    (broken / "config.json").write_text("{")
    _fails(broken, "cannot load")

    _fails(_deeper(_copy(taught, tmp_path / "deeper")), "missing")


def _deeper(folder: Path) -> Path:
    config = json.loads((folder / "config.json").read_text())
    return _edit_config(folder, text_config={**config["text_config"], "decoder_layers": 4})


def test_the_hub_being_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _fails("florence-community/Florence-2-base", "florence-community/Florence-2-base", "network")


@pytest.mark.parametrize(
    ("device", "dtype"), [("nonsense", "auto"), ("cpu", "float16"), ("cpu", "bfloat16"), ("cpu", "int8")]
)
def test_devices_and_types_that_cannot_be_are_refused(taught: Path, device: str, dtype: str) -> None:
    with pytest.raises(RecipeError):
        Florence2Model(str(taught), None, device, dtype)
