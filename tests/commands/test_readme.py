"""The README's example of an API teacher, run as it is printed, with a server on this machine in place of OpenAI's.

The second test kills the same command while it asks and while it trains. The slow test kills it after every reply.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from support.commands import start, warm
from support.places import REPOSITORY
from support.serving import KEY, Serving
from support.small import small_teacher
from support.trials import differences

from synthgen.generation.ledger import spent

ANIMALS = ("bees", "cows", "cats", "dogs", "owls", "ants", "bats", "eels", "pigs", "rats", "hens", "elks")
LIMIT = 3  # maximum number of requests in flight
PRICES = {"input": 0.25, "output": 2.0}  # dollars per million tokens
PARTS = ("generated", "curated", "student")
MOST = 600_000_000  # picodollars; one request of 256 new tokens reserves less than this amount


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The README's example with its server, and a run of this example that was not killed. `paid` is the number of
    replies that were paid. `planned` and `done` are the outcomes of `synthgen plan` and `synthgen run`.
    """
    folder = tmp_path_factory.mktemp("readme")
    server = Serving(prices=list(PRICES.values()), latency=0.2)
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    student = small_teacher(folder / "checkpoint", merges=[("a", "n"), ("r", "e")])  # replaces a model of the hub
    text = text.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(student))
    assert str(student) in text
    values = yaml.safe_load(text)
    recipe = folder / "recipe.yaml"
    recipe.write_text(text)
    (folder / "user.j2").write_text("{{ question }}")
    (folder / "questions.csv").write_text("".join(["question\n", *(f"What do {animal} eat?\n" for animal in ANIMALS)]))
    planned = warm("synthgen", "plan", recipe)
    # data/prices.yaml has no price for a server on this machine
    values["teacher"] |= {"base_url": server.url, "api_key_env": "LOOPBACK_KEY", "prices": PRICES}
    values["teacher"]["max_in_flight"] = LIMIT
    values["train"] |= {"save_steps": 1, "batch_size": 1, "num_train_epochs": 4}
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    done = warm("synthgen", "run", recipe, "-o", folder / "run", env=environment(folder / "cache"))
    paid = server.stats()["paid"]
    yield SimpleNamespace(server=server, recipe=recipe, run=folder / "run", paid=paid, planned=planned, done=done)
    server.stop()


def environment(cache: Path) -> dict[str, str]:
    return {"LOOPBACK_KEY": KEY, "SYNTHGEN_CACHE": str(cache)}


def test_the_api_example_ends_well(example):
    assert example.planned.code == 0, example.planned
    assert "cost: about $0.00, at most $0." in example.planned.out, "data/prices.yaml has this model at OpenAI"
    assert example.done.code == 0, example.done
    assert "audit ALLOW" in example.done.out
    assert example.paid == len(ANIMALS)
    assert (example.run / "student" / "evaluation.json").exists()


class Killed:
    """A run of the example in `folder` that is killed several times. The run begins with an empty cache and with counts
    of 0 on the server.
    """

    def __init__(self, example: SimpleNamespace, folder: Path) -> None:
        self.example, self.run, self.cache = example, folder / "run", folder / "cache"
        self.command = ["synthgen", "run", example.recipe, "-o", self.run]
        self.lost = 0  # number of replies that were paid and not stored
        example.server.set(reset=True)

    def stats(self) -> dict[str, Any]:
        return self.example.server.stats()

    def kill(self, due: Callable[[], bool]) -> None:
        """Starts the command, and kills it as soon as `due()` is true."""
        running = start(*self.command, env=environment(self.cache))
        while not due():
            assert running.process.is_alive(), running.wait()
            time.sleep(0.002)
        os.kill(running.pid, signal.SIGKILL)
        assert running.wait().code == -signal.SIGKILL
        while self.stats()["in_flight"]:  # the server still answers the killed process
            time.sleep(0.01)
        with closing(sqlite3.connect(self.cache / "replies.sqlite")) as cache:
            (kept,) = cache.execute("SELECT count(*) FROM reply WHERE body IS NOT NULL").fetchone()
        before, self.lost = self.lost, self.stats()["paid"] - kept
        assert 0 <= self.lost - before <= LIMIT

    def kill_after_replies(self, count: int) -> None:
        self.kill(lambda: self.stats()["paid"] >= count)

    def check(self, kills: int) -> None:
        """Runs the command to its end. The corpus and the student must be those of the run that was not killed, and
        only the lost replies may be paid twice. The amount in the ledger must be at least what the server billed. Each
        of the `kills` kills may add at most the reservations of the requests that were in flight.
        """
        done = warm(*self.command, env=environment(self.cache))
        assert done.code == 0, done
        wrong = [one for part in PARTS for one in differences(self.example.run / part, self.run / part)]
        assert wrong == ["differs: README.md"], "the student's card states times of the evaluation"
        stats = self.stats()
        assert (stats["paid_bodies"], stats["paid"]) == (len(ANIMALS), len(ANIMALS) + self.lost)
        assert stats["requests"] == stats["paid"]
        assert 0 <= spent(self.run / "ledger").usd - stats["usd_pico"] <= kills * LIMIT * MOST


def test_the_killed_example_ends_the_same(example, tmp_path):
    killed = Killed(example, tmp_path)
    killed.kill_after_replies(2)
    killed.kill_after_replies(8)
    assert len(list(killed.run.glob("curated"))) == 0, "it was still asking"
    killed.kill(lambda: any(killed.run.glob("student/checkpoints/distilled-00000[1-9]?.safetensors")))
    assert not (killed.run / "student" / "training.json").exists()
    killed.check(kills=2)


@pytest.mark.slow
@pytest.mark.parametrize("count", range(1, len(ANIMALS) + 1))
def test_killed_after_any_reply_the_example_ends_the_same(example, tmp_path, count):
    killed = Killed(example, tmp_path)
    killed.kill_after_replies(count)
    killed.check(kills=1)
