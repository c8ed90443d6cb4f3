"""A server of each kind of store on this machine, behind a proxy. A test tells the proxy which requests fail or are
delayed, and when it kills a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from support.remote import Proxy, hasten
from support.remote_servers import AZ, GS, S3


@dataclass
class Stored:
    """A store with the empty bucket `bucket`: its file system, and the proxy in front of its server."""

    files: Any
    proxy: Proxy

    def url(self, name: str, bucket: str = "bucket") -> str:
        return f"{self.proxy.server.scheme}://{bucket}/{name}"

    def empty(self, prefix: str = "") -> None:
        self.files.invalidate_cache()
        for path in self.files.find("bucket"):
            if path.startswith(f"bucket/{prefix}"):
                self.files.rm_file(path)


@pytest.fixture(scope="session", params=[S3, GS, AZ], ids=lambda kind: kind.scheme)
def proxy(request, tmp_path_factory):
    kind = request.param
    if kind is AZ and AZ.missing():
        pytest.skip(AZ.missing())
    hasten()
    server = kind(tmp_path_factory.mktemp(kind.scheme))
    yield Proxy(server)
    server.stop()


@pytest.fixture
def store(proxy, monkeypatch, tmp_path):
    """A store whose credentials are in the environment."""
    proxy.reset()
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    for name, value in proxy.server.environment(proxy.url).items():
        monkeypatch.setenv(name, value)
    made = Stored(proxy.server.files(), proxy)
    if made.files.exists("bucket"):
        made.empty()
    else:
        made.files.mkdir("bucket")
    proxy.reset()
    return made
