"""One Ray node on this machine for all tests. Tests of the death of a node start clusters of their own."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
import ray
from ray.cluster_utils import Cluster

from synthgen.executor.ray import RayExecutor


@pytest.fixture
def cluster():
    """A cluster with two nodes of one core each. Its second node can be removed with `cluster.remove_node`."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def executor():
    with RayExecutor(workers=2) as opened:
        yield opened
