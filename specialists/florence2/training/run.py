"""A training from the data set to the finished folder: plan, loop, export."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_engine import __version__
from data_engine.dataset import Dataset
from data_engine.errors import ClusterError, MissingPackageError, RecipeError
from data_engine.fingerprint import digest, file_digest
from data_engine.storage import storage_errors
from data_engine.trainer import Learn
from specialists.florence2.shared_steps import Team, team
from specialists.florence2.training.kept import Kept
from specialists.florence2.training.log import compact, followed
from specialists.florence2.training.loop import DivergedError, Job, is_locating, learn
from specialists.florence2.training.network import (
    FACTS,
    Network,
    make_network,
    new_tokenizer,
    save_network,
    set_side,
    start_facts,
    start_tokenizer,
    tokenizer_digest,
)
from specialists.florence2.training.plan import Plan, data_digest, read_plan, survey
from specialists.florence2.training.state import Working, read_tensors
from specialists.training_arithmetic import training_arithmetic

if TYPE_CHECKING:
    from specialists.florence2.student import Student

_HOW = (
    "start", "workers", "accumulate", "runner", "address", "readers", "threads", "save_minutes", "save_steps",
    "checkpointing",
)  # fmt: skip
"""Settings that say how a training runs and not what comes out of it."""


def train(
    settings: Student,
    dataset: Dataset,
    learn_from: Learn,
    output: Path,
    start: str | None,
    say: Callable[[str], None],
) -> None:
    """Train, and put the checkpoint in place; goes on with what was interrupted. See docs/training.md."""
    _require_packages()
    fingerprint = _fingerprint(settings, data_digest(Kept(dataset, learn_from), settings.mixture()), start)
    if start_facts(str(output)).get("fingerprint") == fingerprint:
        shutil.rmtree(Working.of(output).folder, ignore_errors=True)
        say(f"{output} is trained already")
        return
    job = begin(settings, dataset, learn_from, output, start)
    plan = read_plan(job.working.plan)
    _tell(plan, say)
    if not (read_tensors(job.working.state) or {}).get("done"):
        try:
            with followed(job.working.student, say):
                _learn(job, say)
        except DivergedError as error:
            raise _with_last_good(error, job, plan) from error
    _export(job, plan, output)


def _require_packages() -> None:
    if "torch" not in sys.modules:
        # Threads that wait by spinning starve the processes that read. The library reads this once.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import tensorboardX  # type: ignore[import-untyped]  # noqa: F401 - at the first step it would be told late
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingPackageError.of(error.name or "transformers", "train") from error


def _fingerprint(settings: Student, data: str, start: str | None) -> str:
    from specialists.florence2.student import VERSION

    learnt = {key: value for key, value in asdict(settings).items() if key not in _HOW}
    begun: Any = start
    if start is not None and Path(start).expanduser().is_dir():
        begun = {
            name: file_digest(Path(start).expanduser() / name)
            for name in ("config.json", "model.safetensors", "tokenizer.json")
            if (Path(start).expanduser() / name).is_file()
        }
    return digest([VERSION, learnt, data, begun])


def begin(settings: Student, dataset: Dataset, learn_from: Learn, output: Path, start: str | None) -> Job:
    """The working folder of a new training of `output`, or that of an interrupted one, with its plan in it.

    Raises RecipeError where an interrupted one had other settings or data, DatasetError where there is nothing
    to learn from, and ModelLoadError for a start that cannot be used.
    """
    working = Working.of(output)
    definition = None if start is None else start_tokenizer(start)
    fingerprint = _fingerprint(settings, data_digest(Kept(dataset, learn_from), settings.mixture()), start)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if read_plan(working.plan).settings == fingerprint:
            return Job(settings, working, start)
    if working.state.is_file():
        raise RecipeError(
            f"{working.folder} belongs to a training with other settings, or of other data",
            "give the settings that it was begun with, or remove the folder to begin anew",
        )
    plan = survey(dataset, learn_from, settings.mixture())
    tokenizer = definition if definition is not None else new_tokenizer(settings, plan.corpus)
    plan = replace(plan, settings=fingerprint, tokenizer=tokenizer)
    if any(kind.endswith("mask") for kind in plan.statements) and importlib.util.find_spec("cv2") is None:
        raise MissingPackageError.of("cv2", "ocr")  # outlines need it, and a reader would say so late
    with storage_errors(str(working.folder)):
        shutil.rmtree(working.folder, ignore_errors=True)
        working.folder.mkdir(parents=True)
        plan.write(working.plan)
    return Job(settings, working, start)


def _tell(plan: Plan, say: Callable[[str], None]) -> None:
    said = ", ".join(f"{count:,} {kind}" for kind, count in plan.statements.items())
    say(f"learning from {plan.images:,} images ({said}); {plan.held:,} are held out")
    if not plan.held:
        say("no image is held out: the training is not stopped early")


def _learn(job: Job, say: Callable[[str], None]) -> None:
    settings = job.settings
    runner = settings.runner
    if runner == "auto":
        distant = settings.address or os.environ.get("RAY_ADDRESS")
        runner = "ray" if settings.workers > 1 or distant else "inline"
    if runner == "ray":
        from specialists.florence2.training.on_ray import learn_on_ray

        learn_on_ray(job, say)
        return
    import torch

    if settings.workers > 1 and torch.cuda.is_available():
        raise RecipeError("several workers on GPUs need Ray", "write runner: ray")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with training_arithmetic(settings.threads), team(settings.workers, _help, job) as whole:
        try:
            learn(Team(whole.rank, whole.size, device), job)
        except RuntimeError as error:
            if settings.workers == 1 or "Connection" not in str(error):
                raise
            raise ClusterError(
                f"a process of the training ended: {' '.join(str(error).split())[:200]}",
                "run the same command again: it goes on from the last state",
            ) from error


def _help(whole: Team, job: Job) -> None:
    with training_arithmetic(job.settings.threads):
        learn(whole, job)


def _filled(job: Job, plan: Plan, saved: dict[str, Any]) -> Network:
    """The network with averaged weights of a state or of the best moment, all in single precision."""
    import torch

    network = make_network(job.settings, plan, job.start)
    set_side(network, saved["side"])
    learnt = [p for p in network.model.parameters() if p.requires_grad]
    with torch.no_grad():
        # A dense head's weights come last, and end here.
        for parameter, value in zip(learnt, saved["average"], strict=False):
            parameter.copy_(value)
    return network


def _with_last_good(error: DivergedError, job: Job, plan: Plan) -> DivergedError:
    saved = read_tensors(job.working.state)
    if saved is None:
        return DivergedError(error.message, f"{error.hint}; nothing was kept before that step")
    save_network(_filled(job, plan, saved), job.working.last_good)
    return DivergedError(
        error.message,
        f"{error.hint}; the weights of step {saved['step']} are a checkpoint in {job.working.last_good}",
    )


def _export(job: Job, plan: Plan, output: Path) -> None:
    """The checkpoint with its facts, in place in one rename."""
    working = job.working
    state = read_tensors(working.state)
    assert state is not None, "a loop that ends has written its state"
    best = state["best"]
    saved = state if best is None else (read_tensors(working.best(best["step"])) or state)
    network = _filled(job, plan, saved)
    side, tokenizer = network.side, network.tokenizer.backend_tokenizer.to_str()
    vision = network.model.config.vision_config.window_size
    parameters = sum(p.numel() for p in network.model.parameters())
    save_network(network, working.student)
    facts = {
        "fingerprint": plan.settings,
        "version": __version__,
        "settings": asdict(job.settings) | {"model": _plain(job.settings.model), "start": job.start},
        "data": {
            "url": plan.url,
            "sources": list(plan.learn.sources),
            "verdicts": plan.learn.verdicts,
            "held_out": plan.learn.held_out,
            "images": plan.images,
            "images_held_out": plan.held,
            "statements": plan.statements,
        },
        "prompts": dict(sorted(state["notes"].items())),
        "steps": state["step"],
        "seconds": round(state["seconds"], 1),
        "kept_step": saved["step"],
        "loss_held_out": None if best is None else best["loss"],
        "side": side,
        "parameters": parameters,
        "tokenizer": tokenizer_digest(tokenizer),
    }
    if is_locating(job.settings, job.start):
        facts["dimensions"] = _dimensions(job, side, vision)
    with storage_errors(str(output)):
        compact(working.student)
        (working.student / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        old = output.with_name(output.name + ".old")
        if output.exists():
            output.replace(old)
        working.student.replace(output)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(working.folder, ignore_errors=True)


def _plain(model: Any) -> Any:
    return model if isinstance(model, str) else dict(model)


def _dimensions(job: Job, side: int, window: int) -> dict[str, Any]:
    """Those that the model was once made with, at its present resolution."""
    from specialists.florence2.training.presets import preset

    earlier = start_facts(job.start).get("dimensions")
    made = earlier or asdict(preset(job.settings.model).dimensions)
    return {**made, "side": side, "window": window}
