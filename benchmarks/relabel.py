"""Images a second for six of Florence-2's tasks each, through the specialist's model and through a plain loop.

python benchmarks/relabel.py [images [batch]] [--preset base] [--limit 256]

The plain loop is `processor(images, text)` and `generate`, a task after the other, over batches of images; ours has
as many prompts in hand at one time. The same checkpoint, prompts and limit of tokens, greedy. It is the shipped one of
drawn scenes, or with `--preset` one of random weights: its answers say nothing, and most are as long as the limit.
Both take turns, batch by batch, and every answer is compared token for token. Times are printed by the clock and by
the processor's time, for other work on a machine makes the first uncertain.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from data_engine.scenes.scene import make_scene
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import TASKS
from specialists.florence2.scratch import make_model, make_processor, make_tokenizer
from specialists.florence2.specialist import by_length
from specialists.florence2.training.presets import PRESETS

MODEL = Path(__file__).parents[1] / "specialists/weights/scenes-florence2"
SEED = 7
IMAGE_TASKS = ("CAPTION", "DETAILED_CAPTION", "OD", "DENSE_REGION_CAPTION", "OCR")
GROUNDING = "CAPTION_TO_PHRASE_GROUNDING"

Pixels = NDArray[np.uint8]
Tokens = list[int]


def scene(index: int) -> tuple[Pixels, str]:
    """A drawn scene as a person's file would hold it, and its true brief caption."""
    drawn = make_scene(SEED, index)
    with PIL.Image.open(io.BytesIO(drawn.jpeg())) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return pixels, next(a.text or "" for a in drawn.annotations if a.granularity == "brief")


def untrained(name: str, folder: str) -> str:
    """A checkpoint of that size with random weights, as the library saves it: a folder."""
    size = PRESETS[name]
    tokenizer = make_tokenizer([scene(index)[1] for index in range(200)], size.words)
    make_processor(tokenizer, size.dimensions).save_pretrained(folder)
    model = make_model(tokenizer, size.dimensions, SEED, size.language_heads, size.spread, size.tokens)
    # What has learnt nothing says again what it was given, and answers begin after the token that also ends them.
    for settings in (model.config, model.config.text_config, model.generation_config):
        settings.decoder_start_token_id = tokenizer.bos_token_id
    model.save_pretrained(folder)
    return folder


def plain(model: Florence2Model, images: list[Pixels], captions: list[str], limit: int) -> list[Tokens]:
    """As a model card has it, a batch of images and a task at a time."""
    answers = []
    for name in (*IMAGE_TASKS, GROUNDING):
        texts = [f"<{name}>{caption if name == GROUNDING else ''}" for caption in captions]
        inputs = model.processor(images=images, text=texts, padding="longest", return_tensors="pt").to(
            model.device, model.dtype
        )
        with torch.inference_mode():
            rows = model.network.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=limit)
        end = model.tokenizer.eos_token_id
        for row in rows[:, 1:].tolist():
            answers.append(row[: row.index(end)] if end in row else row)
    return answers


def ours(model: Florence2Model, images: list[Pixels], captions: list[str], limit: int) -> list[Tokens]:
    features = model.features(images, len(images))
    asked = [
        (TASKS[name], row, model.prompt_ids(TASKS[name], caption if name == GROUNDING else ""))
        for name in (*IMAGE_TASKS, GROUNDING)
        for row, caption in enumerate(captions)
    ]
    order = by_length([(task, ids) for task, _, ids in asked])
    found = model.answers(
        [features[asked[i][1]] for i in order],
        [asked[i][2] for i in order],
        num_beams=1,
        max_new_tokens=limit,
        no_repeat_ngram=model.captions_no_repeat,
        batch=len(images),
    )
    answers: list[Tokens] = [[] for _ in asked]
    for i, answer in zip(order, found, strict=True):
        answers[i] = answer.ids
    return answers


def timed(work: Callable[..., list[Tokens]], *args: Any) -> tuple[list[Tokens], NDArray[np.float64]]:
    before = time.perf_counter(), time.process_time()
    answers = work(*args)
    return answers, np.array([time.perf_counter() - before[0], time.process_time() - before[1]])


def measure(model: Florence2Model, count: int, batch: int, limit: int) -> None:
    spent = {"plain": np.zeros(2), "ours": np.zeros(2)}
    tokens = differ = prompts = 0
    for first in range(-batch, count, batch):  # the first round only warms up
        scenes = [scene(max(first, 0) + i) for i in range(batch)]
        images, captions = [list(part) for part in zip(*scenes, strict=True)]
        theirs, plain_time = timed(plain, model, images, captions, limit)
        mine, our_time = timed(ours, model, images, captions, limit)
        if first < 0:
            continue
        spent["plain"] += plain_time
        spent["ours"] += our_time
        prompts += len(mine)
        tokens += sum(len(ids) for ids in theirs)
        differ += sum(a != b for a, b in zip(mine, theirs, strict=True))
    count = prompts // (len(IMAGE_TASKS) + 1)
    print(
        f"{count} images of {prompts // count} tasks, {batch} at a time, {tokens / prompts:.1f} tokens an answer, "
        f"{torch.get_num_threads()} threads on {model.device}, {str(model.dtype).removeprefix('torch.')}; "
        f"{differ} of {prompts} answers differ"
    )
    for name, seconds in spent.items():
        clock, processor = count / seconds
        print(
            f"{name:<6} {clock:6.2f} images a second by the clock, {processor:6.2f} by the processor's time"
        )
    clock, processor = spent["plain"] / spent["ours"]
    print(f"ratio  {clock:6.2f} by the clock, {processor:.2f} by the processor's time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", nargs="?", type=int, default=128)
    parser.add_argument("batch", nargs="?", type=int, default=32)
    parser.add_argument(
        "--preset", choices=PRESETS, help="random weights of that size, not the shipped model"
    )
    parser.add_argument("--limit", type=int, default=256, help="new tokens of an answer, at most")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = untrained(options.preset, folder) if options.preset else str(MODEL)
        measure(Florence2Model(path, None, None, options.dtype), options.images, options.batch, options.limit)


if __name__ == "__main__":
    main()
