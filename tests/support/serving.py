"""Starts the server of server.py for tests, and writes recipes that use it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import yaml

import synthgen
from synthgen import corpus

SERVER = Path(__file__).with_name("server.py")
KEY = "sk-loopback-Zq81-not-to-be-found"


class Serving:
    """A running server. `stats()` returns the server's counts, and `set(...)` changes the server's configuration."""

    def __init__(self, **config) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), json.dumps({"key": KEY, **config})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def _post(self, path: str, value: dict | None) -> dict:
        data = None if value is None else json.dumps(value).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data=data, timeout=30) as response:
            return json.load(response)

    def stats(self) -> dict:
        return self._post("/control/stats", None)

    def set(self, **config) -> None:
        self._post("/control/set", config)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def write_recipe(folder: Path, url: str, seeds=24, generate=None, teacher=None, **sections) -> Path:
    """Writes a recipe whose teacher is the server at `url`. `seeds` is a number of seeds, or a list of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = seeds if isinstance(seeds, list) else [{"id": f"q{i}", "question": f"What is {i}?"} for i in range(seeds)]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "user.j2").write_text("{{ question }}\n")
    recipe = {
        "task": "sums",
        "license": "CC0-1.0",
        "seeds": [{"path": "seeds.jsonl", "source": "tests", "license": "CC0-1.0", "id": "id", "group": "id"}],
        "split": {"test": 0.25},
        "teacher": {
            "engine": "openai",
            "model": "m",
            "base_url": url,
            "api_key_env": "LOOPBACK_KEY",
            "license": "Apache-2.0",
            "prices": {"input": 0.15, "output": 0.60},
            "timeout": 20,
            **(teacher or {}),
        },
        "generate": {"max_new_tokens": 16, "shard_size": 8, **(generate or {})},
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def generated(tmp_path: Path, server: Serving, name: str = "run", retry_failed: bool = False, **recipe):
    """(records, failures by kind, manifest) of a run."""
    path = write_recipe(tmp_path / "task", server.url, **recipe)
    folder = synthgen.generate(synthgen.load_recipe(path), tmp_path / name, retry_failed=retry_failed).folder
    return read_generated(folder)


def read_generated(folder: Path):
    rows = [record for _, found in corpus.records(folder) for record in found]
    failures = [row for path in sorted(folder.glob("failures/*.parquet")) for row in pq.read_table(path).to_pylist()]
    return rows, failures, corpus.manifest(folder)
