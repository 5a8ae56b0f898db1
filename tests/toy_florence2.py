"""A toy Florence-2 checkpoint: the library's own classes, 64 px and a hundredth of the size, saved to disk.

The tokenizer is trained on the spot and has the released one's special tokens: 1,000 location tokens,
`<poly>`, `<sep>` and so on. `overfitted` trains the model for some seconds until it answers every task
about two pictures with sentences that we wrote, so that tests know what must come out.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from specialists.florence2.prompts import TASKS

SIDE = 64
IMAGE_TOKENS = 17
"""4 x 4 features and their mean."""

TASK_TOKENS = [
    "<od>", "</od>", "<ocr>", "</ocr>", "<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>",
    "<grounding>", "</grounding>", "<seg>", "</seg>", "<sep>", "<region_cap>", "</region_cap>",
    "<region_to_desciption>", "</region_to_desciption>", "<proposal>", "</proposal>", "<poly>", "</poly>", "<and>",
]  # fmt: skip

BRIEF = ("a red square on a green field", "a blue ball near a dog")


def _loc(*bins: int) -> str:
    return "".join(f"<loc_{b}>" for b in bins)


_BOX = (_loc(100, 200, 500, 600), _loc(300, 250, 900, 950))

ANSWERS: list[dict[tuple[str, str], str]] = [
    {
        ("CAPTION", ""): BRIEF[0],
        ("DETAILED_CAPTION", ""): "a red square on a green field. A red square on a green field.",
        ("MORE_DETAILED_CAPTION", ""): "The square is red. The field is green.",
        ("OCR", ""): "STOP 5 < 7",
        ("OCR_WITH_REGION", ""): "STOP" + _loc(10, 10, 90, 12, 88, 40, 9, 38) + "5" + _loc(100, 10, 120, 10, 120, 40, 100, 40),
        ("OD", ""): "field" + _loc(0, 0, 999, 999) + "square" + _BOX[0] + _loc(600, 610, 700, 720),
        ("DENSE_REGION_CAPTION", ""): "a red square" + _BOX[0],
        ("REGION_PROPOSAL", ""): _loc(0, 0, 999, 999) + _BOX[0],
        ("OPEN_VOCABULARY_DETECTION", "square"): "square" + _BOX[0],
        ("CAPTION_TO_PHRASE_GROUNDING", BRIEF[0]): "a red square" + _BOX[0] + "a green field" + _loc(0, 0, 999, 999),
        ("REFERRING_EXPRESSION_SEGMENTATION", "a red square"): _loc(100, 200, 500, 200, 500, 600, 100, 600),
        ("REGION_TO_SEGMENTATION", _BOX[0]): _loc(100, 200, 500, 210, 480, 600),
        ("REGION_TO_CATEGORY", _BOX[0]): "square" + _BOX[0],
        ("REGION_TO_DESCRIPTION", _BOX[0]): "a red square" + _BOX[0],
        ("REGION_TO_OCR", _BOX[0]): "STOP",
    },
    {
        ("CAPTION", ""): BRIEF[1],
        ("OD", ""): "ball" + _BOX[1] + "dog" + _loc(50, 150, 250, 350),
        ("OPEN_VOCABULARY_DETECTION", "square"): "square<poly>" + _loc(10, 10, 60, 10, 60, 60) + "</poly>",
        ("CAPTION_TO_PHRASE_GROUNDING", BRIEF[1]): "a blue ball" + _BOX[1] + "a dog" + _loc(50, 150, 250, 350),
        ("REFERRING_EXPRESSION_SEGMENTATION", "a dog"): "<poly>" + _loc(50, 150, 250, 150, 250, 350) + "</poly><poly>" + _loc(700, 700, 800, 700, 800, 800) + "<sep>" + _loc(900, 900, 950, 900, 950, 950) + "</poly>",
    },
]  # fmt: skip
"""Per picture: (task, what the prompt is about) and the answer it is taught."""


def pictures() -> list[np.ndarray]:
    """Two pictures, 80 x 60 and 50 x 100 (width x height), that are nothing alike; read-only, as decoded."""
    first = np.zeros((60, 80, 3), np.uint8)
    first[..., 1] = 160
    first[12:36, 8:40] = (220, 20, 20)
    second = np.full((100, 50, 3), 235, np.uint8)
    second[25:95, 15:45] = (20, 30, 220)
    for picture in (first, second):
        picture.setflags(write=False)
    return [first, second]


def tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sentences = [task.sentence for task in TASKS.values()] + [a for part in ANSWERS for a in part.values()]
    made.train_from_iterator([s.replace("<", " ") for s in sentences] * 3, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=1024,
    )  # fmt: skip
    locations = [f"<loc_{i}>" for i in range(1000)]
    wrapped.add_tokens([AddedToken(t, special=True, normalized=False) for t in TASK_TOKENS + locations])
    return wrapped


def processor() -> Any:
    from transformers import CLIPImageProcessor, Florence2Processor

    images = CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    images.image_seq_length = IMAGE_TOKENS
    kinds = (
        "ocr", "phrase_grounding", "pure_text", "description_with_bboxes", "description_with_polygons",
        "polygons", "bboxes", "description_with_bboxes_or_polygons",
    )  # fmt: skip
    return Florence2Processor(
        image_processor=images, tokenizer=tokenizer(), post_processor_config={kind: {} for kind in kinds}
    )


def model(tok: Any, width: int = 64, positions: int = 160, spread: float = 0.06) -> Any:
    """Random weights. The generation settings are the released ones but for the number of beams."""
    import torch
    from transformers import Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

    torch.manual_seed(0)
    torch.set_num_threads(1)  # tensors this small lose more time to a second thread than they gain
    ids = {
        "pad_token_id": tok.pad_token_id,
        "bos_token_id": tok.bos_token_id,
        "eos_token_id": tok.eos_token_id,
        "decoder_start_token_id": tok.eos_token_id,
    }
    dims = [16, 32, 32, 64]
    made = Florence2ForConditionalGeneration(
        Florence2Config(
            vision_config={
                "embed_dim": dims, "depths": [1, 1, 1, 1], "num_heads": [d // 16 for d in dims],
                "num_groups": [d // 16 for d in dims], "patch_stride": [4, 2, 2, 1], "window_size": 4,
                "drop_path_rate": 0.0, "projection_dim": width,
            },
            text_config={
                "model_type": "bart", "vocab_size": len(tok), "d_model": width, "encoder_layers": 1,
                "decoder_layers": 2, "encoder_ffn_dim": 2 * width, "decoder_ffn_dim": 2 * width,
                "encoder_attention_heads": 4, "decoder_attention_heads": 4, "dropout": 0.0,
                "max_position_embeddings": positions, "forced_eos_token_id": None, "init_std": spread, **ids,
            },
            image_token_id=tok.convert_tokens_to_ids("<image>"),
            vocab_size=len(tok),
            **ids,
        )
    )  # fmt: skip
    made.generation_config = GenerationConfig(
        num_beams=1, no_repeat_ngram_size=3, forced_bos_token_id=tok.bos_token_id,
        forced_eos_token_id=tok.eos_token_id, **ids,
    )  # fmt: skip
    return made


def save(folder: Path, network: Any, parts: Any) -> Path:
    network.save_pretrained(folder)
    parts.save_pretrained(folder)
    return folder


@cache
def random_checkpoint(folder: Path) -> Path:
    """An untrained checkpoint in `folder`: it babbles, but always the same."""
    parts = processor()
    return save(folder, model(parts.tokenizer, spread=0.5).eval(), parts)


@cache
def overfitted(folder: Path, steps: int = 130) -> Path:
    """A checkpoint in `folder` that gives ANSWERS, after some seconds of training on one CPU core.

    Tests of one session name the same folder, and so share it.
    """
    import torch
    from PIL import Image

    torch.set_flush_denormal(True)
    parts = processor()
    tok = parts.tokenizer
    network = model(tok).train()
    pixels = parts.image_processor([Image.fromarray(p) for p in pictures()], return_tensors="pt")[
        "pixel_values"
    ]
    asked = [(i, *key, answer) for i, part in enumerate(ANSWERS) for key, answer in part.items()]
    prompts = tok(
        [f"<s>{TASKS[name].prompt(said)}</s>" for _, name, said, _ in asked],
        add_special_tokens=False, padding="longest", return_tensors="pt",
    )  # fmt: skip
    answers = tok(
        [f"<s>{answer}</s>" for *_, answer in asked],
        add_special_tokens=False, padding="longest", return_tensors="pt",
    )  # fmt: skip
    rows = [i for i, *_ in asked]
    seen = torch.ones((len(rows), IMAGE_TOKENS), dtype=torch.long)
    mask = torch.cat([seen, prompts["attention_mask"]], dim=1)
    labels = answers["input_ids"].masked_fill(answers["attention_mask"] == 0, -100)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        features = network.get_image_features(pixels).pooler_output
        words = network.get_input_embeddings()(prompts["input_ids"])
        embeds = torch.cat([features[rows], words], dim=1)
        loss = network(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return save(folder, network.eval(), parts)
