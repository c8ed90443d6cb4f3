"""Every file of a run is damaged in many ways, and every command still ends with exit code 0, 1 or 2 within seconds.

The damage is seeded: the same test makes the same damage again. The short version runs commands in this process. The
full version (`make test-slow`) forks a process for each command, which also shows hangs inside libraries.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from support.commands import files
from support.damaging import GOOD, SEED, cases, damaged, in_fork, in_process, preload
from support.mutations import PLACES, mutate, ways_for

Command = Callable[[Path], list[object]]
CHEAP: dict[str, Command] = {
    "plan": lambda run: ["synthgen", "plan", run / "recipe.yaml"],
    "generate": lambda run: ["synthgen", "generate", run / "recipe.yaml", "-o", run],
    "curate": lambda run: ["synthgen", "curate", run],
    "curate anew": lambda run: ["synthgen", "curate", run, "-o", run / "new", "--workers", "1"],
    "audit": lambda run: ["synthgen", "audit", run],
    "show": lambda run: ["synthgen", "show", run, "--rejected"],
    "failures": lambda run: ["synthgen", "show", run, "--failures", "--json"],
}
DEAR: dict[str, tuple[Command, int]] = {  # (command, number of damaged files on which it is tried)
    "repair": (lambda run: ["synthgen", "generate", run.parent / "task/recipe.yaml", "-o", run, "--repair"], 100),
    "fresh": (lambda run: ["synthgen", "generate", run.parent / "task/recipe.yaml", "-o", run, "--fresh"], 30),
    "report": (lambda run: ["synthgen", "report", run], 100),
    "run": (lambda run: ["synthgen", "run", run / "recipe.yaml", "-o", run], 30),
    "train": (lambda run: ["distill", "train", run], 100),
    "train anew": (lambda run: ["distill", "train", run, "-o", run / "new"], 30),
    "eval": (lambda run: ["distill", "eval", run], 100),
    "eval anew": (lambda run: ["distill", "eval", run, "--fresh"], 6),
    "export": (lambda run: ["distill", "export", run, "--to", "gguf"], 30),
}
ALL, PARTS = 300, 10  # number of damaged files, and number of tests that share them
FOUND = [("run/curated/data/train-00002.parquet", "texts"), ("run/curated/rejected/train-00002.parquet", "pipe")]
"""Damage after which a command once hung, or ended with an uncaught Python exception."""
ROWS = ("generated/data/", "curated/data/", "curated/rejected/")


@pytest.fixture(scope="module")
def base(finished, tmp_path_factory) -> Path:
    """A folder with a finished run and its recipe, which no test changes."""
    folder = tmp_path_factory.mktemp("mutated")
    shutil.copytree(finished.recipe.parent, folder / "task")
    shutil.copytree(finished.run, folder / "run")
    resolved = folder / "run" / "recipe.yaml"
    resolved.write_text(resolved.read_text().replace(str(finished.recipe.parent), "PLACE/task"))
    return folder


def wrong_rows(base: Path, run: Path, path: str) -> list[str]:
    """The data files that differ from those of the run before the damage, apart from the damaged file itself."""
    if not path.startswith("run/") or path == "run/recipe.yaml":
        return []  # damage to seeds, templates or recipes may change the rows
    before, after = files(base / "run"), files(run)
    names = [name for name in before if name.startswith(ROWS) and f"run/{name}" != path]
    return [name for name in names if name in after and after[name] != before[name]]


def test_damaged_files_of_a_run(base, tmp_path, monkeypatch):
    """Runs commands in this process. Only the full version tests pipes, because a hang in a library cannot be stopped
    here.
    """
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    folder, bad = tmp_path / "copy", []
    chosen = [(path, way) for path, way in cases(base) if way not in PLACES and "cache/" not in path][:16]
    others = ("plan", "generate", "curate", "failures", "audit")
    for number, (path, way) in enumerate([*chosen, *FOUND]):
        run = damaged(base, folder, path, way)
        for name in ("show", others[number % len(others)]):
            code, output = in_process(CHEAP[name](run))
            if code not in GOOD or "Traceback" in output:
                bad.append((path, way, name, code, output[-300:]))
        bad += [(path, way, "rows", other) for other in wrong_rows(base, run, path)]
    assert bad == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files_of_a_run_in_full(base, tmp_path, monkeypatch, part):
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    folder, bad, counts = tmp_path / "copy", [], Counter()
    preload()
    tried = {name: (command, ALL) for name, command in CHEAP.items()} | DEAR
    for number, (path, way) in enumerate(cases(base)[:ALL]):
        if number % PARTS != part:
            continue
        for name, (command, most) in tried.items():
            if number >= most:
                continue
            run = damaged(base, folder, path, way)
            code, output = in_fork(command(run), folder, 60)
            counts[name, code] += 1
            if code not in GOOD or "Traceback" in output:
                bad.append((path, way, name, code, output[-300:]))
            bad += [(path, way, name, other) for other in wrong_rows(base, run, path)]
    print(
        f"\n{sum(counts.values())} commands:",
        *(f"{name} {code}: {n}" for (name, code), n in sorted(counts.items(), key=str)),
    )
    assert bad == []


@pytest.mark.slow
def test_damaged_reply_caches(serve, tmp_path):
    """The file with paid replies is damaged. A command that cannot use this file says so, and makes no wrong rows."""
    import sqlite3

    from support.serving import write_recipe

    server = serve()
    recipe = write_recipe(tmp_path / "task", server.url, seeds=6)
    good = tmp_path / "run"
    code, output = in_process(["synthgen", "generate", recipe, "-o", good], 60)
    assert code == 0, output
    cache = tmp_path / "cache" / "replies.sqlite"
    with sqlite3.connect(cache) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = cache.read_bytes()
    rows = {name: data for name, data in files(good).items() if name.startswith("generated/data/")}
    bad = []
    for way in ways_for(cache):
        shutil.rmtree(cache.parent)
        cache.parent.mkdir()
        cache.write_bytes(whole)
        mutate(cache, way, Random(SEED))
        code, output = in_fork(["synthgen", "generate", recipe, "-o", tmp_path / way], tmp_path, 60)
        made = {name: data for name, data in files(tmp_path / way).items() if name.startswith("generated/data/")}
        if code not in GOOD or "Traceback" in output or (code == 0 and made.keys() != rows.keys()):
            bad.append((way, code, output[-300:]))
    assert bad == []
