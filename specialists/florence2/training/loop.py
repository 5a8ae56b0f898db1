"""The training itself: the same loop alone, in processes of one machine, and in each worker of Ray Train.

A step's loss is the sum over the tokens of all processes and parts, divided by their number: so how a batch
is spread changes nothing but the order of additions.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_engine.errors import SpecialistError
from specialists.florence2.shared_steps import Team
from specialists.florence2.start import POSITIONS
from specialists.florence2.training.batch import Batch
from specialists.florence2.training.forward import Forward, Sums
from specialists.florence2.training.learner import Learner
from specialists.florence2.training.log import Log
from specialists.florence2.training.network import checkpoint_layers, make_network, set_side, start_facts
from specialists.florence2.training.plan import read_plan
from specialists.florence2.training.prefetch import prefetched
from specialists.florence2.training.reader import Reader, Reading, Step, Wanted, reader
from specialists.florence2.training.state import Working, read_tensors, write_tensors
from specialists.florence2.training.timetable import Timetable
from specialists.gpu_arithmetic import for_training

if TYPE_CHECKING:
    import torch

    from specialists.florence2.student import Student

_DENSE_ALONE = 0.04
"""Share of a run from nothing in which only the dense head teaches: locations before language."""
_SMALL_RATES, _RELEASED_RATES = (1e-3, 7e-4), (2e-5, 2e-5)
"""Of what sees and of the language model. A small model takes the same where it goes on from earlier weights: in
a new world of scenes, after 60 steps, 3e-4 and 2e-3 of the language model left a higher held-out loss."""


@dataclass(frozen=True)
class Job:
    """What a process needs to take part: the settings, the working folder with its plan, and the start."""

    settings: Student
    working: Working
    start: str | None


class DivergedError(SpecialistError):
    """The loss is not a number any more."""


def is_locating(settings: Student, start: str | None) -> bool:
    """Whether the losses of `locating` are used."""
    if settings.locating is not None:
        return settings.locating
    return start is None or "dimensions" in start_facts(start)


def _rates(settings: Student, start: str | None, locating: bool) -> tuple[float, float]:
    """The highest rates of what sees and of the language model."""
    vision, language = _SMALL_RATES if start is None or locating else _RELEASED_RATES
    if settings.rate is not None:
        vision, language = vision * settings.rate / language, settings.rate
    return settings.vision_rate or vision, language


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """The type to multiply in: bfloat16 where the machine has instructions for it."""
    import torch

    if precision != "auto":
        dtype: torch.dtype = getattr(torch, precision)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if capable else torch.float32


class Loop:
    """One process's part of a training. Goes on from the working folder's state where there is one."""

    def __init__(self, job: Job, whole: Team) -> None:
        import torch

        settings = self.settings = job.settings
        self.working, self.whole = job.working, whole
        self.plan = read_plan(job.working.plan)
        self.device = torch.device(whole.device)
        if self.device.type == "cuda":
            for_training()
        self.network = make_network(settings, self.plan, job.start)
        model = self.network.model
        # On a CPU matrix products and a softmax are faster than the fused attention, backwards above all.
        model.set_attn_implementation("sdpa" if self.device.type == "cuda" else "eager")
        if settings.checkpointing:
            checkpoint_layers(model)
        locating = is_locating(settings, job.start)
        self.sides = settings.sides() or [(0.0, self.network.side)]
        self.forward = Forward(
            self.network, len(self.plan.words) if locating else None, self.device, settings
        )
        self.dense_alone = _DENSE_ALONE if locating and job.start is None else 0.0
        self.timetable = Timetable(self.plan, settings.batch, settings.mixed, settings.seed)
        self.steps = settings.steps
        if settings.epochs is not None:
            self.steps = self.timetable.steps(settings.epochs)
        vision, language = _rates(settings, job.start, locating)
        named = [(n, p) for n, p in self._parameters() if p.requires_grad]
        model.to(self.device)
        self.learner = Learner(named, vision, language, settings.average)
        self.names = [name for name, _ in named]
        self.step, self.seconds, self.waiting = 0, 0.0, 0
        self.best: dict[str, Any] | None = None
        self.evaluated = -1
        self.notes: Counter[str] = Counter()
        self.log: Log | None = None
        saved = read_tensors(job.working.state)
        if saved is not None:
            self._load(saved)
        dtype = arithmetic(settings.precision, self.device)
        model.to(dtype).train()
        self.forward.to(dtype)
        self.learner.use(p for _, p in self._parameters() if p.requires_grad)
        self._before = self.seconds
        self._started = self._kept = self._last = time.monotonic()

    def _parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        yield from self.network.model.named_parameters()
        yield from self.forward.named_parameters()

    def _load(self, saved: dict[str, Any]) -> None:
        set_side(self.network, saved["side"])
        self.learner.load(saved)
        self.step, self.seconds, self.waiting = saved["step"], saved["seconds"], saved["waiting"]
        self.best, self.notes = saved["best"], Counter(saved["notes"])
        self.evaluated = saved["evaluated"]

    def spent(self, step: int) -> float:
        """Which share of the run lies before a step."""
        if self.steps is not None:
            return step / self.steps
        return self.seconds / (60 * float(self.settings.minutes or 1))

    def _side(self, spent: float) -> int:
        return next(side for share, side in reversed(self.sides) if spent >= share)

    def _wanted(self) -> Iterator[Wanted]:
        """The steps that are left. Where minutes count, a step's side is settled when it is asked for."""
        step = self.step
        while self.steps is None or step < self.steps:
            yield Wanted(step, self._side(self.spent(step)))
            step += 1

    def reading(self) -> Reading:
        """What this process reads."""
        settings, network = self.settings, self.network
        largest = max(side for _, side in self.sides)
        return Reading(
            plan=self.plan,
            batch=settings.batch,
            mixed=settings.mixed,
            seed=settings.seed,
            rank=self.whole.rank,
            size=self.whole.size,
            parts=settings.accumulate,
            weights=settings.mixture(),
            prompts=settings.prompts,
            prompt_room=network.prompt_room(largest),
            answer_room=min(settings.longest, network.positions),
            shuffled=settings.order == "random",
            stride=network.stride,
            dense=self.forward.dense,
        )

    def run(self) -> None:
        """Until the run is over; the state then says so."""
        reading = self.reading()
        if self.whole.rank == 0:
            self.log = Log(self.working.student, self.step)
        try:
            if self.step:
                self._tell(event=f"going on from step {self.step}, after {self.seconds / 60:.1f} minutes")
            # A process that was itself started as a helper may start none.
            readers = 0 if multiprocessing.current_process().daemon else self.settings.readers
            self._kept = self._last = time.monotonic()
            stopped = self._run(reading, readers)
            if stopped is None and self.settings.evaluations:
                self._evaluate(reading)
            self._keep(done=True)
            if stopped is not None:
                self._tell(event=stopped)
        finally:
            if self.log is not None:
                self.log.close()

    def _run(self, reading: Reading, readers: int) -> str | None:
        """The steps; why they ended early, where they did."""
        for made in prefetched(reader, reading, self._wanted(), readers):
            self.seconds = self.whole.agreed(self._before + time.monotonic() - self._started)
            spent = self.spent(self.step)
            if spent >= 1 and self.step:
                return None
            if made.wanted.side != self.network.side:
                set_side(self.network, made.wanted.side, self._tables())
                self.best, self.waiting = None, 0  # losses at another resolution are no measure
            self.take_step(made, spent)
            self.step += 1
            self.seconds = self.whole.agreed(self._before + time.monotonic() - self._started)
            count = self.settings.evaluations
            over = self.spent(self.step)
            if count and int(over * count) > int(spent * count) and over < 1:
                self._evaluate(reading)
                if self.settings.patience and self.waiting >= self.settings.patience:
                    return f"the loss of held-out images has not fallen {self.waiting} times: stopped at step {self.step}"
            self._keep_sometimes()
        return None

    def _tables(self) -> list[torch.Tensor]:
        """What is stretched with the tables of positions: their copies and averages, and what is known of them."""
        found: list[torch.Tensor] = []
        learner = self.learner
        for name, master, average in zip(self.names, learner.masters, learner.average, strict=True):
            if POSITIONS in name:
                state = learner.optimizer.state.get(master, {})
                found += [master, average, *(state[k] for k in ("exp_avg", "exp_avg_sq") if k in state)]
        return found

    def take_step(self, made: Step, spent: float) -> None:
        """One step of all processes, at `spent` of the run."""
        import torch

        torch.manual_seed(hash((self.settings.seed, self.step, self.whole.rank)) % (1 << 63))  # for dropout
        rate = self.learner.set_rates(spent, self.settings.warm_up, self.dense_alone)
        counts = self._counts(made.batches)
        sums = Sums(self.device, self.whole)
        for batch in made.batches:
            loss = self.forward.loss(batch, counts, spent >= self.dense_alone, sums)
            loss.backward()  # type: ignore[no-untyped-call]
            self.learner.gather()
        self.learner.fill()
        bad = sums.exchange()
        if bad:
            raise self._diverged(bad)
        if not self.learner.step(self.step, self.whole):
            self._tell(event=f"step {self.step} has no finite gradient and is left out")
        self.notes.update(made.notes)
        if self.log is not None:
            now = time.monotonic()
            taken, self._last = max(now - self._last, 1e-9), now
            self.log.write(
                self.step,
                **sums.means(),
                share=float(spent),
                epoch=self.timetable.place(self.step).epoch,
                rate=rate,
                side=made.wanted.side,
                tokens_per_s=float(counts[0] + counts[4]) / taken,
                images_per_s=float(counts[3]) / taken,
                seconds=float(self.seconds),
            )

    def _counts(self, batches: list[Batch]) -> list[float]:
        """Answer tokens, features, covered features, images, prompt tokens: of all processes."""
        import torch

        own = [
            [
                sum(map(len, batch.answers)),
                batch.dense.covered.size,
                int(batch.dense.covered.sum()),
                len(batch.pixels),
                sum(map(len, batch.prompts)),
            ]
            for batch in batches
        ]
        counts = torch.tensor([*own, [0] * 5], dtype=torch.float64, device=self.device).sum(0)
        self.whole.total([counts])
        found: list[float] = counts.tolist()
        return found

    def _diverged(self, ranks: list[int]) -> DivergedError:
        images = Reader(self.reading()).images(self.step)
        shown = [one for rank in ranks for one in images[rank :: self.whole.size]]
        more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
        return DivergedError(
            f"the loss of step {self.step} is not a number, on the images {', '.join(shown[:8])}{more}",
            "lower `rate`, or look at those images",
        )

    def _evaluate(self, reading: Reading) -> None:
        """The loss of the averaged weights on held-out images; the best ones are kept."""
        import torch

        if not self.plan.held or self.evaluated == self.step:
            return
        self.evaluated = self.step
        made = list(Reader(reading).held(self.settings.evaluate_on, self.network.side))
        counts = self._counts(made)
        sums = Sums(self.device, self.whole)
        self.learner.copy(self.learner.average)
        self.network.model.eval()
        with torch.no_grad():
            for batch in made:
                self.forward.loss(batch, counts, True, sums)
        self.network.model.train()
        self.learner.copy(self.learner.masters)
        if sums.exchange():
            raise self._diverged(list(range(self.whole.size)))
        if not counts[0]:
            return
        means = sums.means()
        loss = means["loss"] - means.get("dense", 0.0)  # the dense head is no part of what is kept
        better = self.best is None or loss < self.best["loss"]
        self._tell(held_out=loss, best=better)
        if better:
            if self.whole.rank == 0:
                value = {"average": self.learner.average, "side": self.network.side, "step": self.step}
                write_tensors(self.working.best(self.step), value)
            self.best, self.waiting = {"loss": loss, "step": self.step}, 0
        else:
            self.waiting += 1
        self._keep()

    def _tell(self, **values: Any) -> None:
        if self.log is not None:
            self.log.write(self.step, **values)

    def _keep_sometimes(self) -> None:
        every = self.settings.save_steps
        if (
            every and self.step % every == 0
        ) or time.monotonic() - self._kept >= 60 * self.settings.save_minutes:
            self._keep()

    def _keep(self, done: bool = False) -> None:
        """Write the state, where it is good: weights that are no numbers must not replace those that were."""
        import torch

        if self.whole.rank:
            return
        self._kept = time.monotonic()
        if not all(bool(torch.isfinite(master).all()) for master in self.learner.masters):
            if done:
                raise DivergedError(f"the weights after step {self.step} are no numbers", "lower `rate`")
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "side": self.network.side,
            "waiting": self.waiting,
            "best": self.best,
            "evaluated": self.evaluated,
            "notes": dict(self.notes),
            "done": done,
            **self.learner.state(),
        }
        write_tensors(self.working.state, state)
        self.working.sweep(None if self.best is None else self.best["step"])


def learn(whole: Team, job: Job) -> None:
    """The work of one process; a function of a module, so that other processes can be told to do it."""
    Loop(job, whole).run()
