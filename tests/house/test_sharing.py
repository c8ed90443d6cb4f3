"""Shared folders of the tests are made only once, and `make` lets Python keep bytecode."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.places import REPOSITORY
from support.sharing import made_once


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """Stands for the `tmp_path_factory` of a process of pytest-xdist."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    (tmp_path / "popen-gw0").mkdir()
    return SimpleNamespace(getbasetemp=lambda: tmp_path / "popen-gw0")


def test_a_shared_folder_is_made_once(factory, tmp_path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        folder.mkdir()
        time.sleep(0.05)
        (folder / "whole").touch()

    def there(_: int) -> bool:
        return (made_once(factory, "thing", make) / "whole").exists()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(there, range(4))) == [True] * 4
    assert made == [tmp_path / "thing"], "the folder of the session, not of one process"


def test_a_shared_folder_that_failed_is_made_again(factory):
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise ValueError("an error")

    with pytest.raises(ValueError, match="an error"):
        made_once(factory, "thing", fail)
    folder = made_once(factory, "thing", Path.mkdir)
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not shutil.which("make"), reason="this system has no `make`")
def test_make_lets_python_keep_bytecode():
    """Without bytecode, each process of the tests and of the demo would compile torch and transformers again."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "KEPT": "1"}
    command = ["make", "--no-print-directory", "--eval", "show: ; @env", "show"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert "KEPT" in names
    assert "PYTHONDONTWRITEBYTECODE" not in names
