"""The built wheel holds the tasks and the data, and works without the repository."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.places import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_source_task_and_data_file(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("synthgen", "distill")
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and path.suffix in (".py", ".j2", ".typed")
    }
    wanted |= {
        f"synthgen/{path.relative_to(REPOSITORY).as_posix()}"
        for folder in ("prompts", "data")
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file()
    }
    assert {name for name in wanted if name.startswith("synthgen/prompts/reasoning/")}
    assert wanted - inside == set()
    stray = [name for name in inside if name.split("/")[0] not in ("synthgen", "distill") and ".dist-info/" not in name]
    assert not stray
    assert not [name for name in inside if "__pycache__" in name or "/.tmp" in name]


def test_the_metadata_of_the_wheel(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    metadata = archive.read(name).decode()
    assert "Name: synthgen-distill" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: torch>=2.4; extra == 'train'" in metadata
    assert [n for n in archive.namelist() if n.endswith("licenses/LICENSE")]
    entry = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "synthgen = synthgen.cli:main" in entry
    assert "distill = distill.cli:main" in entry


def test_the_wheel_plans_a_shipped_task_without_the_repository(wheel, tmp_path):
    target = tmp_path / "site"
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True, capture_output=True)
    program = f"""
import sys
sys.path[:] = [{str(target)!r}, *(p for p in sys.path if {str(REPOSITORY)!r} != p)]
import distill, synthgen
from synthgen.recipe import shipped
for where in (synthgen.__file__, distill.__file__, shipped("prompts"), shipped("data")):
    assert str(where).startswith({str(target)!r}), where
from synthgen.auditing.catalogue import catalogue
assert catalogue().ids()
import synthgen.cli
synthgen.cli.main(["plan", "reasoning", "--json"])
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["task"] == "reasoning"
    assert plan["seeds"] >= 100
