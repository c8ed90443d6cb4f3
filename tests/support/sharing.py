"""Folders that the processes of one test session share. The first process that needs a folder makes it.

    folder = made_once(tmp_path_factory, "finished", make)    # calls make(folder) in one process

Tests only read these folders. A test that changes files changes its own copy.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this test session. `make` creates and fills the folder. Other processes of pytest-xdist wait
    until the folder is complete. After an error of `make`, the next process makes the folder again.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # pytest-xdist gives each of its processes a folder in the folder of the session
    folder, complete = root / name, root / f"{name}.complete"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            complete.touch()
    return folder
