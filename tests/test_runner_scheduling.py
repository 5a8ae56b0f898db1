"""Scheduling on a simulated cluster: nothing lost or counted twice, whatever happens to actors and nodes."""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.errors import ClusterError, SpecialistError
from data_engine.recipe import SpecialistPart
from data_engine.recipe_parts import ActorsPart
from data_engine.runner.plan import Plan, Stage, Unit
from data_engine.runner.pool import RayRun
from data_engine.runner.progress import Reporter, StageProgress
from data_engine.runner.queue import Queue
from data_engine.shards import shard_name
from tests.simulated_cluster import Died, Hangs, SimulatedRay, StubWorker

DATASET: Any = SimpleNamespace(images_in=lambda shard: 1, image_batches=lambda *_: iter(()))


class Job:
    """A run of stages on a simulated cluster; `stage` gives a stage's settings and its stub."""

    def __init__(self, shards: int = 20) -> None:
        self.ray = SimulatedRay()
        self.todo = [shard_name(i) for i in range(shards)]
        self.plan = Plan({})
        self.stubs: dict[str, partial[StubWorker]] = {}
        self.reporter = Reporter(terminal=False, every=1e9)
        self.careful = self.ray.careful

    def stage(self, name: str, seconds: float = 1.0, needs: tuple[str, ...] = (), fault=None, **how) -> Job:
        part = SpecialistPart(use="tests.simulated_cluster:StubWorker", **how)
        self.plan.stages[name] = Stage(name, part, "", list(self.todo), 0, 0, list(needs))
        self.stubs[name] = partial(StubWorker, seconds, 5.0, *([fault] if fault else []))
        self.reporter.stages[name] = StageProgress(name, len(self.todo), units=len(self.todo))
        return self

    def run(self) -> RayRun:
        run = RayRun(
            self.ray,
            self.plan,
            DATASET,
            self.reporter,
            lambda stage: self.stubs[stage.name],
            self.ray,
            self.ray,
        )
        run.execute()
        for name, progress in self.reporter.stages.items():
            assert progress.units_done + progress.units_failed == len(self.todo), name
            assert progress.images == progress.units_done, name
            assert not progress.running and progress.actors == 0
        assert not self.ray.actors, "an actor was left behind"
        assert not self.ray.asked or not self.ray.asked[-1], "the autoscaler is still asked for nodes"
        return run

    def __getitem__(self, name: str) -> StageProgress:
        return self.reporter.stages[name]


def faulty(seed: int, share: float):
    """Deaths, hangs and slow units at random; no unit dies more than twice."""
    chance, deaths = random.Random(seed), {}

    def fault(shard: str) -> Any:
        if chance.random() > share or deaths.get(shard, 0) >= 2:
            return None
        deaths[shard] = deaths.get(shard, 0) + 1
        return chance.choice([Died(), Hangs(), 400.0])

    return fault


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.1, 0.5]),
    seconds=st.sampled_from([0.01, 0.3, 20.0]),
    actors=st.integers(1, 7),
    churn=st.booleans(),
)
def test_every_unit_is_done_once_whatever_happens(seed, share, seconds, actors, churn):
    job = Job(shards=40)
    job.stage("a", seconds, actors=actors, silence=60, fault=faulty(seed, share))
    job.stage("b", 1.0, needs=("a",), actors=actors, silence=60, fault=faulty(seed + 1, share))
    job.stage("c", seconds, needs=("a", "b"), actors=2, cpus=2, silence=60)
    job.ray.add_node("one", CPU=4)
    if churn:
        job.ray.add_node("two", CPU=2)
        job.ray.at(10.0, lambda: job.ray.remove_node("two"))
        job.ray.at(40.0, lambda: job.ray.add_node("three", CPU=8))
    job.run()
    assert all(progress.units_failed == 0 for progress in job.reporter.stages.values())


def test_short_units_are_told_of_together():
    job = Job(shards=5000).stage("a", 0.01, actors=8)
    job.ray.add_node("one", CPU=8)
    job.run()
    assert job.ray.messages < 1500
    # All actors had something to do until the end: five seconds of loading, then 5000 x 10 ms on 8 of them.
    assert job.ray.monotonic() - job.ray.driver_seconds < 5 + 5000 * 0.01 / 8 + 3


def test_a_unit_that_takes_far_too_long_is_tried_by_another_actor():
    slow = {"left": 1}

    def fault(shard: str) -> Any:
        if shard == "00007" and slow["left"]:
            slow["left"] -= 1
            return 1e6
        return None

    job = Job().stage("a", 2.0, actors=3, fault=fault)
    job.ray.add_node("one", CPU=3)
    job.run()
    assert job["a"].stragglers == 1 and job["a"].units_done == 20
    assert job.ray.monotonic() < 120


def test_an_actor_that_hangs_is_ended_and_counts_as_a_death():
    hangs = {"00003": 2}

    def fault(shard: str) -> Any:
        if hangs.get(shard, 0):
            hangs[shard] -= 1
            return Hangs()
        return None

    job = Job().stage("a", 1.0, actors=1, silence=30, fault=fault)
    job.ray.add_node("one", CPU=1)
    run = job.run()
    assert job["a"].redone == 2 and job["a"].units_done == 20
    assert run.troubles.get(Unit("a", "00003")) is None


def test_a_unit_without_one_image_to_blame_is_given_up_and_so_is_what_needs_it():
    job = Job().stage("a", 1.0, fault=lambda shard: Died() if shard == "00004" else None)
    job.stage("b", 1.0, needs=("a",))
    job.ray.add_node("one", CPU=2)
    job.run()
    assert job["a"].failed == {"00004": "its actor died 10 times, and no one image is to blame"}
    assert job["b"].failed == {"00004": "it needs a"}
    assert job["b"].units_done == 19


@pytest.mark.parametrize("news_after", [0.0, 8.0])
def test_nodes_that_go_away_are_not_the_fault_of_a_unit(news_after):
    # A unit of 100 seconds, on a spot node that is taken after 60; nine times over. Ray may know of its actors first.
    job = Job(shards=1).stage("a", 100.0, cpus=2)
    job.ray.add_node("head", CPU=1)
    job.ray.add_node("spot0", CPU=2)

    def next_node(i: int) -> None:
        job.ray.remove_node(f"spot{i - 1}", news_after)
        job.ray.add_node(f"spot{i}", CPU=2)

    for i in range(1, 10):
        job.ray.at(60.0 * i, partial(next_node, i))
    job.run()
    assert job["a"].units_done == 1 and job["a"].redone == 9
    assert not any(job.careful)


def test_pools_grow_with_the_cluster():
    job = Job(shards=100).stage("a", 10.0, actors=50)
    job.ray.add_node("one", CPU=2)
    job.ray.at(100.0, lambda: job.ray.add_node("two", CPU=40))
    job.run()
    assert job.ray.most_actors == 42
    assert job.ray.monotonic() < 5 + 100 + 10 * (80 // 42 + 3)


def test_an_actor_must_fit_on_one_node():
    job = Job().stage("a", 1.0, gpus=4)
    for i in range(4):
        job.ray.add_node(f"n{i}", CPU=8, GPU=2)
    with pytest.raises(SpecialistError, match="4 GPUs per actor, which no node"):
        job.run()


def test_resources_of_the_clusters_own_are_asked_for_by_name():
    job = Job().stage("a", 1.0, resources={"tpu": 2})
    job.ray.add_node("one", CPU=8, tpu=1)
    with pytest.raises(SpecialistError, match="2 tpu per actor"):
        job.run()
    job = Job().stage("a", 1.0, resources={"tpu": 2}, actors=4)
    job.ray.add_node("one", CPU=8)
    job.ray.add_node("two", CPU=8, tpu=5)
    job.run()
    assert job.ray.most_actors == 2


def test_gpus_are_not_held_by_a_stage_that_has_nothing_ready():
    # The first stage is done in 50 s but for one slow unit; the second gets all other GPUs, not just one.
    slow = lambda shard: 1500.0 if shard == "00000" else None  # noqa: E731
    job = Job(shards=41).stage("a", 5.0, gpus=1, actors=4, fault=slow)
    job.stage("b", 100.0, needs=("a",), gpus=1, actors=4)
    job.ray.add_node("one", CPU=16, GPU=4)
    job.run()
    assert job["b"].actor_seconds > 40 * 100 and job.ray.most_actors <= 5
    assert job.ray.monotonic() < 2500


def test_stages_that_do_not_fit_together_take_turns():
    job = Job().stage("a", 1.0, cpus=4, actors=3).stage("b", 1.0, needs=("a",), cpus=4)
    job.ray.add_node("one", CPU=4)
    job.run()
    assert job.ray.most_actors == 1


def test_an_actor_with_nothing_to_do_is_given_up_but_for_those_that_stay():
    for actors, there in ((8, 0), (ActorsPart(min=2, max=8), 2)):
        job = Job(shards=16).stage("a", 500.0, actors=1)
        job.stage("b", 1.0, needs=("a",), gpus=1, actors=8)
        job.plan.stages["b"].part = job.plan.stages["b"].part.model_copy(update={"actors": actors})
        job.plan.stages["b"].todo = job.todo
        job.ray.add_node("one", CPU=16, GPU=8)
        job.run()
        assert (job["b"].actor_seconds > 16 * 400) is (there > 0)


def test_a_stage_waits_for_nodes_that_may_come_and_not_for_ever():
    elastic = ActorsPart(max=4)
    job = Job().stage("a", 1.0, gpus=1, silence=100)
    job.plan.stages["a"].part = job.plan.stages["a"].part.model_copy(update={"actors": elastic})
    job.ray.add_node("one", CPU=4)
    with pytest.raises(ClusterError, match=r"waited 100 seconds for a node with 1 CPUs, 1 GPUs"):
        job.run()


def test_the_autoscaler_is_asked_for_what_elastic_stages_could_use():
    job = Job(shards=10).stage("a", 10.0, gpus=1)
    job.stage("b", 1.0, needs=("a",))
    job.plan.stages["a"].part = job.plan.stages["a"].part.model_copy(update={"actors": ActorsPart(max=4)})
    job.ray.add_node("head", CPU=1)
    job.ray.at(60.0, lambda: job.ray.add_node("gpus", CPU=8, GPU=8))
    job.run()
    assert job.ray.asked[0] == [{"CPU": 1.0, "GPU": 1.0}] * 4
    assert job.ray.most_actors == 5 and len(job.ray.asked) < 10


@given(
    stages=st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=1, max_size=5),
    order=st.randoms(use_true_random=False),
    share=st.sampled_from([0.0, 0.2]),
)
def test_the_queue_gives_each_unit_once_and_after_those_it_needs(stages, order, share):
    todo = [shard_name(i) for i in range(6)]
    part = SpecialistPart(use="a:B")
    plan = Plan({
        str(i): Stage(str(i), part, "", order.sample(todo, order.randint(0, 6)), 0, 0, [str(n) for n in needs if n < i])
        for i, needs in enumerate(stages)
    })  # fmt: skip
    queue, done, lost = Queue(plan), set(), set()
    while queue.total_left:
        name = order.choice([name for name, ready in queue.ready.items() if ready])
        unit = Unit(name, queue.ready[name].popleft())
        assert unit not in done and unit not in lost
        for need in plan.stages[name].needs:
            assert Unit(need, unit.shard) in done or unit.shard not in plan.stages[need].todo
        if order.random() < share:
            lost.update(gone for gone, _ in queue.give_up(unit))
        elif order.random() < share:
            queue.put_back(name, [unit.shard])
            assert queue.done_elsewhere([unit]) == [unit]
            done.add(unit)
        else:
            queue.finished(unit)
            done.add(unit)
    assert {Unit(n, s) for n, stage in plan.stages.items() for s in stage.todo} == done | lost
    assert not done & lost and not any(queue.left.values())
