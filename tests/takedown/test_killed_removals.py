"""If a removal is killed at any of its writes, syncs and deletions, the same command completes it. A student that was
trained on removed rows is trained again.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from support.corpora import contents
from support.killing import IMPORTS, Server
from support.removing import ANSWERS, SECRET, places_of, questions
from support.serving import KEY, Serving, write_recipe
from support.small import small_task, small_teacher

from synthgen import corpus
from synthgen.removed import JOURNAL, outdated
from synthgen.results.training import FILE

pytestmark = pytest.mark.slow

DATED = ("log.jsonl", "report.html", "evaluation.json")


@pytest.fixture(scope="module")
def folder():
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def killer(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPBACK_KEY", KEY)
        patch.setenv("SYNTHGEN_CACHE", str(folder / "cache"))
        (folder / "cache").mkdir()
        started = Server(lanes=1, imports=(*IMPORTS, "synthgen.takedown.remove"))
    yield started
    started.close()


def done(killer, *words) -> str:
    outcome = killer.run(list(words))
    assert outcome.code == 0, outcome.output
    return outcome.output


@pytest.fixture(scope="module")
def bases(killer, folder):
    """Two finished runs with their students, one with a local teacher and one with a server, and copies of their
    caches.
    """
    server = Serving(answers=ANSWERS, script=[["thing 5", ["filter"]]])
    teacher = small_teacher(folder / "teacher")
    local = small_task(folder / "task-local", teacher, long=1)
    seeds = folder / "task-local" / "seeds.jsonl"
    rows = [json.loads(line) for line in seeds.read_text().splitlines()]
    rows[1]["question"] = f"{SECRET}?"
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkpoint = small_teacher(folder / "checkpoint", merges=[("a", "n"), ("r", "e")])
    train = {"batch_size": 4, "max_steps": 3, "student": {"model": str(checkpoint), "license": "Apache-2.0"}}
    remote = write_recipe(folder / "task-api", server.url, seeds=questions(), train=train)
    made = {}
    for kind, recipe in {"local": local, "api": remote}.items():
        run = folder / kind / "run"
        done(killer, "synthgen", "run", recipe, "-o", run)
        shutil.copytree(folder / "cache", folder / kind / "cache")
        made[kind] = (recipe, run)
    yield made
    server.stop()


def fresh(folder: Path, kind: str, name: str) -> Path:
    """A copy of a finished run, and of its cache."""
    for old in (folder / name, folder / "cache"):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(folder / kind / "cache", folder / "cache")
    shutil.copytree(folder / kind / "run", folder / name)
    return folder / name


def state(run: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(run).items() if name not in DATED}


@pytest.mark.parametrize("kind", ["local", "api"])
def test_killed_at_every_call(bases, killer, folder, kind):
    run = fresh(folder, kind, "trial")
    assert len(places_of(SECRET, run, folder / "cache")) >= 2
    outcome = killer.run(["synthgen", "remove", run, "--source", "q1", "--yes"])
    assert outcome.code == 0, outcome.output
    expected, count = state(run), len(outcome.calls)
    assert places_of(SECRET, run, folder / "cache") == []
    wrong, refused = [], 0
    for number in range(count):
        for side in ("before", "after"):
            run = fresh(folder, kind, "trial")
            killed = killer.run(["synthgen", "remove", run, "--source", "q1", "--yes"], cut=(number, side))
            assert killed.code < 0, (number, side, killed.output)
            if (run / JOURNAL).exists():
                refused += 1
                shown = killer.run(["synthgen", "show", run])
                if shown.code != 2 or "was interrupted" not in shown.output:
                    wrong.append(f"{number} {side}: show: {shown.output}")
            else:
                corpus.verify(run / "generated")
            again = killer.run(["synthgen", "remove", run, "--source", "q1", "--yes"])
            if again.code != 0:
                wrong.append(f"{number} {side}: {again.output}")
            if (left := places_of(SECRET, run, folder / "cache")) != []:
                wrong.append(f"{number} {side}: {left}")
            elif differing := [n for n in {*expected, *state(run)} if expected.get(n) != state(run).get(n)]:
                wrong.append(f"{number} {side}: {differing}")
    print(f"\n{kind}: killed before and after {count} calls; half removed and refused {refused} times")
    assert wrong == []
    assert refused > count


@pytest.mark.parametrize("kind", ["local", "api"])
def test_a_student_is_marked_and_trained_again(bases, killer, folder, kind):
    run = fresh(folder, kind, "student")
    recipe = bases[kind][0]
    weights = (run / "student" / "model.safetensors").read_bytes()
    output = done(killer, "synthgen", "remove", run, "--source", "q1", "--yes")
    assert "student was trained on this corpus. It stays as it is, and its card says so" in output
    assert (run / "student" / "model.safetensors").read_bytes() == weights
    assert "**Out of date.**" in (run / "student" / "README.md").read_text()
    assert outdated(run, run / "student") is not None
    output = done(killer, "synthgen", "curate", run)
    assert "the student is out of date" in done(killer, "synthgen", "show", run)
    refused = killer.run(["distill", "train", run])
    assert refused.code == 1, refused.output
    output = done(killer, "synthgen", "run", recipe, "-o", run)
    assert "student is trained again" in output
    assert "1 seed left out: 'q1' was removed on" in output
    assert (run / "student" / "model.safetensors").read_bytes() != weights
    assert "Out of date" not in (run / "student" / "README.md").read_text()
    assert outdated(run, run / "student") is None
    assert (run / "student" / FILE).exists()
    assert places_of(SECRET, run, folder / "cache") == []
