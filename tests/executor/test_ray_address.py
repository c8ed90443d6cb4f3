"""Which cluster the Ray executor uses. `tests/ray` tests the executor on real clusters."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from synthgen.executor.ray import _connect


@pytest.fixture
def opened():
    """(a module in place of `ray`, the settings of each call of its function `init`)."""
    calls = []
    return SimpleNamespace(init=lambda **settings: calls.append(settings), shutdown=None), calls


def test_without_an_address_ray_starts_a_cluster_of_its_own(opened, monkeypatch):
    """With the address None, Ray would connect to a cluster that runs on this machine, and refuse `num_cpus`."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray, calls = opened
    _connect(ray, None, 3)
    assert (calls[0]["address"], calls[0]["num_cpus"]) == ("local", 3)


def test_a_named_cluster_keeps_its_own_number_of_cores(opened, monkeypatch):
    ray, calls = opened
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", place)
        _connect(ray, None, 3)
        _connect(ray, f"ray://{place}", 3)
    assert [call["address"] for call in calls] == [None, f"ray://{place}"]
    assert all("num_cpus" not in call for call in calls)
