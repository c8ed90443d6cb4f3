"""An S3 server on this machine: moto, behind a proxy. A test tells the proxy which requests fail or are delayed, and
when it kills a process.
"""

from __future__ import annotations

import pytest
import s3fs
from moto.server import ThreadedMotoServer
from support.s3 import SECRET, Proxy


@pytest.fixture(scope="session")
def proxy():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield Proxy(server.get_host_and_port()[1])
    server.stop()


@pytest.fixture
def s3(proxy, monkeypatch, tmp_path):
    """A file system of S3 with the empty bucket `bucket`. The credentials are in the environment."""
    proxy.reset()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": proxy.url,
        "SYNTHGEN_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    proxy.reset()
    return files
