"""Metrics: what goes up and when, and that they really appear where Prometheus asks."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.runner.metrics import COUNTERS, GAUGES, UNIT_SECONDS, Exporter
from data_engine.runner.progress import Reporter, StageProgress
from tests.toy_sources import write_pictures

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_without_a_cluster_nothing_is_exported_and_nothing_is_kept_back():
    stage = StageProgress("s", 10, units=2)
    exporter = Exporter()
    exporter.export("r", {"s": stage}, last=True)
    assert exporter == Exporter()


def test_the_page_names_every_metric():
    page = (DOCS / "operations.md").read_text()
    assert set(re.findall(r"^\| `(fde_\w+)` \|", page, re.MULTILINE)) == {*GAUGES, *COUNTERS, UNIT_SECONDS}


def test_a_shard_counts_its_time_only_where_it_was_done():
    stage = StageProgress("s", 10, units=3)
    stage.begin("00000")
    stage.begin("00001")
    stage.end("00000", done=True)
    stage.end("00001", done=False)
    stage.end("00002", done=True)  # never begun here
    assert len(stage.unit_seconds) == 1 and stage.running == {}


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_on_ray_appears_at_its_nodes_metrics_endpoint(tmp_path):
    ray = pytest.importorskip("ray")
    from pipelines.annotate import annotate
    from tests.test_runner_inline import part, recipe

    write_pictures(tmp_path / "pictures", 12)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=4)
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        reporter = Reporter(terminal=False)
        annotate(
            Dataset.open(str(tmp_path / "ds")),
            recipe(numbers=part("Numbers")),
            runner="ray",
            reporter=reporter,
        )
        (node,) = ray.nodes()
        address = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
        wanted = {
            f"ray_{name}" for name in (*GAUGES, *COUNTERS, f"{UNIT_SECONDS}_bucket", f"{UNIT_SECONDS}_count")
        }
        # What never happened is no series of a counter.
        wanted -= {
            f"ray_fde_{name}_total"
            for name in ("units_skipped", "units_failed", "units_redone", "stragglers", "failures")
        }
        deadline = time.monotonic() + 120
        page, missing = "", wanted
        while missing and time.monotonic() < deadline:
            time.sleep(2)
            with urllib.request.urlopen(address, timeout=30) as answer:
                page = answer.read().decode()
            missing = wanted - set(re.findall(r"^(ray_fde_\w+)\{", page, re.MULTILINE))
        assert not missing, sorted(set(re.findall(r"^(ray_fde\w+)", page, re.MULTILINE)))
        (images,) = re.findall(
            rf'^ray_fde_images_total\{{[^}}]*run="{reporter.run_id}"[^}}]*\}} (\S+)$', page, re.MULTILINE
        )
        assert float(images) == 12.0
    finally:
        ray.shutdown()
