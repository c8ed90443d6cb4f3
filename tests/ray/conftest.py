"""One Ray node on this machine for all tests. Tests of the death of a node start clusters of their own."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
from support.clusters import two_nodes

from synthgen.executor.ray import RayExecutor


@pytest.fixture
def cluster():
    with two_nodes() as made:
        yield made


@pytest.fixture(scope="module")
def executor():
    with RayExecutor(workers=2) as opened:
        yield opened
