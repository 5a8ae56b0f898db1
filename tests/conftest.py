"""Fixtures that several test modules use."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers with as many threads as there are cores would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job in the background of a shell is started with Ctrl-C ignored, and so would be what the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: no test has a deadline.
settings.register_profile("fde", deadline=None)
settings.load_profile("fde")


@pytest.fixture(autouse=True)
def plain_arithmetic() -> None:
    """Specialists let their process flush denormal numbers; in one process that would reach the next test."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real photos and weights that lie beside some checkouts. Tests that want them skip without."""
    folder = Path(os.environ.get("FDE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data" / "photos" / "instances.json").is_file():
        pytest.skip(
            "the shared photos are not here (set FDE_SHARED to a folder with data/photos and weights)"
        )
    return folder
