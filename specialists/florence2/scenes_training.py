"""Train a small Florence-2 from nothing on drawn scenes, for every prompt that the released models know.

What comes out is a plain checkpoint of transformers' own classes, which `specialists.florence2.Florence2`
loads like a released one. Each image is encoded once for all the prompts about it. Arithmetic is bfloat16
over weights kept in float32: on CPUs with instructions for it a step takes less than half as long. Where there is
a GPU it does the arithmetic.

Training scenes come from seeds at and above `TRAINING_SEED`, so every seed below it is unseen.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_engine.errors import MissingPackageError, RecipeError
from data_engine.scenes.scene import UNSEEN_SEED, make_scene, training_seed
from data_engine.scenes.world import PRETRAINING, WORLDS, World, find_world
from data_engine.scenes.write import GENERATOR
from data_engine.storage import storage_errors
from specialists.florence2.locations import BINS
from specialists.florence2.scenes_card import card
from specialists.florence2.scenes_examples import Drawing, batches, described_things
from specialists.florence2.scenes_quality import Quality, measure
from specialists.florence2.scratch import (
    Dimensions,
    make_model,
    make_processor,
    make_tokenizer,
    wrap_tokenizer,
)
from specialists.florence2.shared_steps import Team, team
from specialists.florence2.start import load_start, read_tokenizer
from specialists.florence2.training.answers import alike, token_losses, told
from specialists.florence2.training.batch import Batch
from specialists.florence2.training.learner import Learner
from specialists.florence2.training.state import read_tensors, write_tensors
from specialists.gpu_arithmetic import for_training
from specialists.training_arithmetic import training_arithmetic

if TYPE_CHECKING:
    import torch

    from specialists.florence2.locating import DenseHead, SoftLocations

log = logging.getLogger(__name__)

FACTS, CARD = "training.json", "README.md"
"""In the checkpoint's folder: how it was trained and what was measured."""

_VISION_RATE, _LANGUAGE_RATE = 1e-3, 7e-4
_WARM_UP = 0.02
"""Share of the run in which a rate rises; the language model's starts when it does."""
_DENSE_ALONE = 0.04
"""Share of the run in which only the dense head teaches: locations before language."""
_AVERAGED = 0.999
"""Decay of the average of weights, which is what is saved."""
_GROUPS = 3
"""Prompts of a batch are answered in so many groups of like length, so that little is padding."""
_NORMAL = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of pixels, as `scratch.make_processor` has them."""
_LOG_SECONDS, _SAVE_SECONDS = 30.0, 150.0
_TOKENIZER_SCENES = 400
_FORMAT = 2
_BEAMS = 3
_SETTINGS_KEPT = ("seed", "words", "scenes", "tasks", "precision", "dimensions", "processes")


def train(
    output: Path,
    minutes: float = 45.0,
    seed: int = 0,
    world: World = PRETRAINING,
    threads: int | None = 2,
    steps: int | None = None,
    dimensions: Dimensions | None = None,
    words: int = 1000,
    scenes: int = 8,
    tasks: int = 4,
    workers: int = 1,
    precision: str = "bfloat16",
    evaluate_on: int = 200,
    processes: int = 1,
    start: Path | None = None,
) -> Quality:
    """Train for so many minutes, or exactly `steps` steps, write the checkpoint to the folder `output`, measure it.

    A step takes `scenes` scenes, drawn by `workers` processes beside the training (0: within it), and of
    each up to `tasks` tasks with one prompt. `processes` of them, each with as many `threads`, take every
    step together, with as many scenes each. `start` is the folder of an earlier training to go on from,
    instead of random weights; `dimensions` may differ from its own in `side` and `window`. `words` is the size of the
    tokenizer without marks and locations. `precision` is that of the arithmetic, bfloat16 or float32; what is saved is
    float16. One process uses the GPU where there is one; several are for the CPU.
    With `steps`, the result depends on the arguments alone (and the machine's arithmetic).

    A working file beside `output`, its name and `.training`, is renewed every few minutes: the same call
    goes on from it after an interruption, with the minutes that are left. It is removed at the end.

    Returns what `scenes_quality.measure` says on `evaluate_on` unseen scenes, which is also kept in
    `training.json` beside the weights. Raises RecipeError for unusable arguments or a working file of
    other ones, MissingPackageError, and StorageError when `output` cannot be written.
    """
    if (
        min(scenes, tasks, evaluate_on, processes) < 1
        or workers < 0
        or (minutes <= 0 if steps is None else steps < 1)
    ):
        raise RecipeError(
            "scenes, tasks, evaluate_on, processes and minutes (or steps) must be more than 0, workers not less",
            "correct the arguments",
        )
    if precision not in ("bfloat16", "float32"):
        raise RecipeError(f"{precision!r} is no precision to train in", "write bfloat16 or float32")
    data = f"drawn scenes of the {world.name} world, seed {training_seed(seed)}"
    dimensions = dimensions or Dimensions()
    dimensions.check()
    _require_packages()
    output = Path(output)
    working = output.with_name(output.name + ".training")
    settings = {
        "format": _FORMAT,
        "seed": seed,
        "world": world.name,
        "words": words,
        "scenes": scenes,
        "tasks": tasks,
        "precision": precision,
        "dimensions": asdict(dimensions),
        "processes": processes,
        "start": None if start is None else str(start.resolve()),
    }
    with storage_errors(str(output)):
        output.mkdir(parents=True, exist_ok=True)
    span = (minutes * 60 if steps is None else None, steps, workers)
    with training_arithmetic(threads):
        with team(processes, _help, threads, settings, dimensions, working, span) as whole:
            run = _Run(settings, dimensions, working, _placed(whole))
            run.fit(*span)
        facts = {
            "data": data,
            "world": world.name,
            "generator": GENERATOR,
            "length": length_of(minutes, steps),
            **{key: settings[key] for key in _SETTINGS_KEPT},
            "cpus": os.cpu_count(),
            **({"gpu": run.gpu} if run.gpu else {}),
            "steps": run.step,
            "seconds": round(run.seconds, 1),
            "parameters": sum(p.numel() for p in run.model.parameters()),
        }
        if start is not None:
            earlier = json.loads((start / FACTS).read_text(encoding="utf-8"))
            facts["earlier"] = {key: value for key, value in earlier.items() if key != "unseen"}
        with storage_errors(str(output)):
            run.save(output)
            _write_facts(output, facts)
        quality = judge(output, facts, evaluate_on)
    working.unlink(missing_ok=True)
    return quality


def length_of(minutes: float, steps: int | None) -> str:
    """How long a training was asked to be, in words."""
    return f"{minutes:g} minutes" if steps is None else f"{steps} steps"


def judge(output: Path, facts: dict[str, Any], evaluate_on: int) -> Quality:
    """Measure a checkpoint's folder in every world, and write down what came out: `training.json` and the card.

    What is measured is the folder as written: its weights are rounded to half precision. In its own world it is
    also measured with as many beams as released models are run with. Returns the quality there, by greedy decoding.
    """
    own = facts["world"]
    names = [own, *(name for name in WORLDS if name != own)]
    found = {name: measure(output, evaluate_on, UNSEEN_SEED, WORLDS[name]) for name in names}
    found[f"{own}, {_BEAMS} beams"] = measure(output, evaluate_on, UNSEEN_SEED, WORLDS[own], num_beams=_BEAMS)
    facts["unseen"] = {"seed": UNSEEN_SEED, "generator": GENERATOR} | {
        name: asdict(quality) for name, quality in found.items()
    }
    with storage_errors(str(output)):
        _write_facts(output, facts)
        (output / CARD).write_text(card(facts), encoding="utf-8")
    return found[own]


def _require_packages() -> None:
    if "torch" not in sys.modules:
        # Threads that wait by spinning starve the process that draws, and each other where a core is busy
        # elsewhere: a step then takes ten times as long. The library reads this once, when it is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import cv2  # noqa: F401 - outlines need it, and a worker should not be the first to say so
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        extra = "ocr" if error.name == "cv2" else "transformers"
        raise MissingPackageError.of(error.name or "transformers", extra) from error


def has_gpu() -> bool:
    """Whether a training of one process would use a GPU. Raises MissingPackageError."""
    _require_packages()
    import torch

    return torch.cuda.is_available()


def _placed(whole: Team) -> Team:
    """A team of one calculates on the GPU where there is one: so small a model has no use for a second."""
    if whole.size > 1 or not has_gpu():
        return whole
    for_training()
    return Team(device="cuda")


def _write_facts(output: Path, facts: dict[str, Any]) -> None:
    (output / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _help(
    whole: Team,
    threads: int | None,
    settings: dict[str, Any],
    dimensions: Dimensions,
    working: Path,
    span: tuple[float | None, int | None, int],
) -> None:
    """The work of a team's other processes."""
    with training_arithmetic(threads):
        _Run(settings, dimensions, working, whole).fit(*span)


class _Run:
    """One training: the model, what is kept beside it, and how far it is. Goes on from `working` if it can."""

    def __init__(self, settings: dict[str, Any], dimensions: Dimensions, working: Path, whole: Team) -> None:
        import torch

        from specialists.florence2.locating import DenseHead, SoftLocations

        self.settings, self.dimensions, self.working, self.whole = settings, dimensions, working, whole
        start = None if settings["start"] is None else Path(settings["start"])
        saved = _read_working(working, settings)
        if saved is None:
            corpus, self.words = _vocabulary(training_seed(settings["seed"]), find_world(settings["world"]))
            self.tokenizer = (
                make_tokenizer(corpus, settings["words"])
                if start is None
                else wrap_tokenizer(read_tokenizer(start))
            )
            self.definition: str = self.tokenizer.backend_tokenizer.to_str()
        else:
            self.definition, self.words = saved["tokenizer"], tuple(saved["words"])
            self.tokenizer = wrap_tokenizer(self.definition)
        self.model: Any = make_model(self.tokenizer, dimensions, settings["seed"])
        if start is not None and saved is None:
            load_start(self.model, start, dimensions)
        self.device = torch.device(whole.device)
        on_gpu = self.device.type == "cuda"
        self.gpu = torch.cuda.get_device_name(self.device) if on_gpu else None
        # On a CPU matrix products and a softmax are faster than the fused attention, backwards above all.
        self.model.to(self.device).set_attn_implementation("sdpa" if on_gpu else "eager")
        torch.manual_seed(settings["seed"])
        self.head: DenseHead = DenseHead(dimensions.width, len(self.words))
        self.head.layer.to(self.device)
        self.first: int = self.tokenizer.convert_tokens_to_ids("<loc_0>")
        self.locations = range(self.first, self.first + BINS)
        self.soft: SoftLocations = SoftLocations(self.first, device=self.device)
        named = [
            *self.model.named_parameters(),
            *(("head." + n, p) for n, p in self.head.layer.named_parameters()),
        ]
        self.learner = Learner(named, _VISION_RATE, _LANGUAGE_RATE, _AVERAGED)
        self.step, self.seconds = 0, 0.0
        if saved is not None:
            self.learner.load(saved)
            self.step, self.seconds = saved["step"], saved["seconds"]
            log.info("going on from step %d, after %.1f minutes", self.step, self.seconds / 60)
        dtype = getattr(torch, settings["precision"])
        self.model.to(dtype).train()
        self.head.layer.to(dtype)
        # .to() keeps parameters' identities but for shared ones on some versions: list them again.
        self.learner.use([*self.model.parameters(), *self.head.layer.parameters()])

    def fit(self, limit: float | None, steps: int | None, workers: int) -> None:
        """Until `limit` seconds are spent over all calls, or `steps` steps are done."""
        drawing = Drawing(
            seed=training_seed(self.settings["seed"]),
            world=self.settings["world"],
            scenes=self.settings["scenes"],
            tasks=self.settings["tasks"],
            side=self.dimensions.side,
            grid=self.dimensions.grid,
            words=self.words,
            tokenizer=self.definition,
        )
        shown = kept = started = time.monotonic()
        before = self.seconds
        losses = _Losses()
        first = self.step * self.whole.size + self.whole.rank
        for batch in batches(drawing, first, workers, self.whole.size):
            now = time.monotonic()
            self.seconds = self.whole.agreed(before + now - started)
            spent = self.step / steps if steps is not None else self.seconds / float(limit or 1)
            if spent >= 1 and self.step:
                break
            rate = self.learner.set_rates(spent, _WARM_UP, _DENSE_ALONE)
            loss = self._loss(batch, spent >= _DENSE_ALONE, losses)
            self._learn(loss)
            self.step += 1
            if self.whole.rank:
                continue  # one of them tells and keeps
            if now - shown >= _LOG_SECONDS:
                shown = now
                log.info(
                    "step %d, %.1f minutes, %.0f %% of the run, rate %.1e, %s",
                    self.step, self.seconds / 60, 100 * spent, rate, losses.shown(),
                )  # fmt: skip
            if now - kept >= _SAVE_SECONDS:
                kept = now
                self._keep()
        if not self.whole.rank:
            self._keep()

    def _learn(self, loss: torch.Tensor) -> None:
        """One step of the optimizer, and of the average."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.learner.gather(1 / self.whole.size)
        if not self.learner.step(self.step, self.whole):
            # One broken step must not end an hour's work; it teaches nothing.
            log.warning("step %d has no finite gradient and is left out", self.step)

    def _loss(self, batch: Batch, speaks: bool, losses: _Losses) -> torch.Tensor:
        import torch

        dtype = self.learner.used[0].dtype
        pixels = torch.from_numpy(batch.pixels).to(self.device).float() / 255
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in _NORMAL)
        features = self.model.get_image_features(((pixels - mean) / std).to(dtype)).pooler_output
        table = self.model.get_input_embeddings().weight
        locations = table[self.locations.start : self.locations.stop]
        loss, distance = self.head.loss(features[:, 1:], batch.dense, locations, self.soft)
        losses.add(dense=loss.item(), side=distance)
        if not speaks or not batch.prompts:
            return loss
        texts, places = [], []
        for members in alike(batch.answers, batch.prompts, _GROUPS):
            hidden, targets = told(
                self.model,
                features[torch.tensor([batch.images[i] for i in members], device=self.device)],
                [batch.prompts[i] for i in members],
                [batch.answers[i] for i in members],
            )
            text, place = token_losses(hidden, targets, table, self.soft, self.locations)
            texts.append(text)
            places.append(place)
        text, place = torch.cat(texts), torch.cat(places)
        losses.add(
            text=text.mean().item() if len(text) else 0.0, place=place.mean().item() if len(place) else 0.0
        )
        return loss + (text.sum() + place.sum()) / max(1, len(text) + len(place))

    def _keep(self) -> None:
        """The working file, replaced in one go."""
        state = {
            "settings": json.dumps(self.settings),
            "tokenizer": self.definition,
            "words": list(self.words),
            **self.learner.state(),
            "step": self.step,
            "seconds": self.seconds,
        }
        write_tensors(self.working, state)

    def save(self, output: Path) -> None:
        """The averaged weights in half precision, with tokenizer and processor, as a checkpoint."""
        import torch
        from transformers.utils import logging as library

        library.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.model.to(torch.float16)
        self.learner.used = [*self.model.parameters(), *self.head.layer.parameters()]
        self.learner.copy(self.learner.average)
        self.model.set_attn_implementation("sdpa")
        self.model.eval().save_pretrained(output)
        make_processor(self.tokenizer, self.dimensions).save_pretrained(output)


@dataclass(eq=False)
class _Losses:
    """Running means, for the log."""

    def __post_init__(self) -> None:
        self.means: dict[str, float] = {}

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.means[name] = 0.98 * self.means.get(name, value) + 0.02 * value

    def shown(self) -> str:
        return ", ".join(f"{name} {value:.3f}" for name, value in self.means.items())


def _vocabulary(seed: int, world: World) -> tuple[list[str], tuple[str, ...]]:
    """What some scenes say, for the tokenizer, and the words that describe their things, for the dense head."""
    corpus: list[str] = []
    words: set[str] = set()
    for index in range(_TOKENIZER_SCENES):
        annotations = make_scene(seed, index, (160, 120), world).annotations
        corpus += [row.text for row in annotations if row.text and row.kind == "text"]
        # A label stands after a location, with no space before it.
        corpus += [row.text for row in annotations if row.text and row.kind != "text"]
        words.update(word for text, _ in described_things(annotations) for word in text.split())
    return corpus, tuple(sorted(words))


def _read_working(working: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    saved = read_tensors(working)
    if saved is not None and saved.get("settings") != json.dumps(settings):
        raise RecipeError(
            f"{working} belongs to a training with other settings",
            "give the settings that it was begun with, or remove it to begin anew",
        )
    return saved
