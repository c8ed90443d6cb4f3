"""A store in the memory of this process, with a fault at a chosen write.

store = MemoryStore(monkeypatch, tmp_path)
store.put(run, "first")
with store.dying(3): synthgen.curate(recipe, store.url("first"))      # dies at the third write
store.on_machine("b")                                                 # another machine, with an empty cache
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from support.corpora import contents
from synthgen.durable import digest
from synthgen.stores import lease
from synthgen.stores.objects import Store


class Died(BaseException):
    """The process is dead: it writes no more."""


class MemoryStore:
    """`watch` is called after each change of an object, with a description of the change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self._folder = monkeypatch, folder
        self.files = fsspec.filesystem("memory")
        self.files.store.clear()
        self.root = f"/{folder.name}"
        self.changes: list[str] = []
        self.watch: Callable[[str], None] = lambda change: None
        self._last: int | None = None
        monkeypatch.setattr(lease, "SILENCE", 0.05)
        for name in ("write", "overwrite", "send", "delete"):
            monkeypatch.setattr(Store, name, self._counted(name, getattr(Store, name)))
        self.on_machine("a")

    def on_machine(self, name: str) -> None:
        self._patch.setenv("SYNTHGEN_CACHE", str(self._folder / "machines" / name))

    def url(self, name: str) -> str:
        return f"memory:/{self.root}/{name}"

    def put(self, folder: Path, name: str) -> str:
        for path, data in contents(folder).items():
            self.files.pipe_file(f"{self.root}/{name}/{path}", data)
        return self.url(name)

    def get(self, name: str) -> dict[str, bytes]:
        """The objects below a folder, without leases."""
        root = f"{self.root}/{name}/"
        return {p[len(root) :]: self.files.cat_file(p) for p in self.files.find(root) if "/.writer/" not in p}

    @contextmanager
    def dying(self, number: int) -> Iterator[None]:
        """Every write from the given number on fails, as if the process had been killed."""
        self.changes, self._last = [], number - 1
        try:
            yield
        except Died:
            pass
        finally:
            self._last = None

    def _counted(self, name: str, act: Callable[..., object]) -> Callable[..., object]:
        def counted(store: Store, path: str, *more: object) -> object:
            if ".writer/" in path:
                return act(store, path, *more)
            if self._last is not None and len(self.changes) >= self._last:
                if "ledger/" in path:
                    raise OSError("dead")  # after other errors, tasks would wait for the ledger forever
                raise Died
            answer = act(store, path, *more)
            self.changes.append(f"{name} {path}")
            self.watch(self.changes[-1])
            return answer

        return counted


def half_commits(objects: dict[str, bytes], stage: str) -> list[str]:
    """The faults of a corpus in a store: files that differ from the manifest, and data files without their parts."""
    import hashlib
    import io

    inside = {name.removeprefix(stage): data for name, data in objects.items() if name.startswith(stage)}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in inside.items()}
    wrong = []
    if "manifest.json" in inside:
        listed = json.loads(inside["manifest.json"])["files"]
        wrong += [f"the manifest lists {name}" for name, entry in listed.items() if hashes.get(name) != entry["sha256"]]
    for name, data in inside.items():
        if not name.startswith("data/"):
            continue
        about = pq.read_schema(io.BytesIO(data)).metadata
        if about[b"synthgen.inputs"].decode() != digest(json.loads(inside.get("inputs.json", b"{}"))):
            wrong.append(f"{name} has other inputs")
        for part, sha256 in json.loads(about[b"synthgen.companions"]).items():
            if hashes.get(f"{part}/{name.removeprefix('data/')}") != sha256:
                wrong.append(f"{name} has no {part}")
    return wrong
