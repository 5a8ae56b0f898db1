"""The training in the workers of Ray Train: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from data_engine.errors import ClusterError, FdeError, MissingPackageError
from data_engine.runner.cluster import connect
from specialists.florence2.shared_steps import Team
from specialists.florence2.training.loop import Job, learn
from specialists.florence2.training.state import read_tensors
from specialists.training_arithmetic import training_arithmetic

log = logging.getLogger(__name__)

_FRUITLESS = 3
"""Deaths of workers, one after the other without a new state between them, after which the training ends."""


def learn_on_ray(job: Job, say: Callable[[str], None]) -> None:
    """Run the loop in `workers` workers. All must see the working folder under the same path.

    Workers that die are started again and go on from the last state. Raises ClusterError where the cluster
    is too small, or where they die again and again, and what the loop itself raises.
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    ray, ours = connect(job.settings.address)
    try:
        has = ray.cluster_resources()
        on_gpus = has.get("GPU", 0) > 0
        kind, there = ("GPU", has["GPU"]) if on_gpus else ("CPU", has.get("CPU", 0))
        if there < job.settings.workers:
            raise ClusterError(
                f"{job.settings.workers} workers need as many {kind}s, and the cluster has {there:g}",
                "give fewer `workers`, or a larger cluster",
            )
        fruitless, reached = 0, _step(job)
        while True:
            error = _fit(job, on_gpus)
            if error is None:
                return
            step = _step(job)
            fruitless = 0 if step > reached else fruitless + 1
            reached = step
            if fruitless >= _FRUITLESS:
                raise ClusterError(
                    f"the training's workers died {fruitless} times without getting further: {error}",
                    "look at the cluster's logs and memory; the same command goes on from the last state",
                )
            say(f"a worker died ({error}): going on from step {step}")
    finally:
        if ours:
            ray.shutdown()


def _step(job: Job) -> int:
    saved = read_tensors(job.working.state)
    return 0 if saved is None else int(saved["step"])


def _fit(job: Job, on_gpus: bool) -> str | None:
    """One run of Ray Train; why workers died, or None. Raises what the loop raised."""
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError
    except ImportError as error:
        raise MissingPackageError.of(error.name or "ray", "train") from error
    threads = job.settings.threads or 1
    trainer: Any = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=job.settings.workers,
            use_gpu=on_gpus,
            resources_per_worker={"CPU": 1 if on_gpus else threads, **({"GPU": 1} if on_gpus else {})},
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(job.working.folder.absolute()),
            failure_config=FailureConfig(max_failures=0),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raised = list(getattr(error, "worker_failures", {}).values())
        for one in raised:
            cause: BaseException | None = one
            while cause is not None:
                if isinstance(cause, FdeError):
                    raise cause from error
                cause = getattr(cause, "base_exc", None) or getattr(cause, "cause", None) or cause.__cause__
        first = " ".join(str(raised[0] if raised else error).split())
        return first[-300:]
    return None


def _work(config: dict[str, Any]) -> None:
    """One worker of Ray Train; torch's process group is there already."""
    import ray.train
    import ray.train.torch

    job: Job = config["job"]
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    with training_arithmetic(job.settings.threads or 1):
        learn(Team(context.get_world_rank(), context.get_world_size(), device), job)
