"""The README's example of an API teacher, run as it is printed, with a server on this machine in place of OpenAI's."""

from __future__ import annotations

import re

import yaml
from support.commands import warm
from support.places import REPOSITORY
from support.serving import KEY
from support.small import small_teacher

ANIMALS = ("bees", "cows", "cats", "dogs", "owls", "ants", "bats", "eels", "pigs", "rats", "hens", "elks")


def test_the_api_example_ends_well(serve, tmp_path):
    server = serve()
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    student = small_teacher(tmp_path / "checkpoint")  # in place of a model of the hub
    text = text.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(student))
    assert str(student) in text
    values = yaml.safe_load(text)
    (tmp_path / "recipe.yaml").write_text(text)
    (tmp_path / "user.j2").write_text("{{ question }}")
    (tmp_path / "questions.csv").write_text(
        "".join(["question\n", *(f"What do {animal} eat?\n" for animal in ANIMALS)])
    )
    planned = warm("synthgen", "plan", tmp_path / "recipe.yaml")
    assert planned.code == 0, planned
    assert "cost: about $0.00, at most $0." in planned.out, "data/prices.yaml has this model at OpenAI"
    prices = {"input": 0.25, "output": 2.0}  # needed because data/prices.yaml has no price for a server on this machine
    values["teacher"] |= {"base_url": server.url, "api_key_env": "LOOPBACK_KEY", "prices": prices}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    env = {"LOOPBACK_KEY": KEY, "SYNTHGEN_CACHE": str(tmp_path / "cache")}
    done = warm("synthgen", "run", tmp_path / "recipe.yaml", "-o", tmp_path / "run", env=env)
    assert done.code == 0, done
    assert "audit ALLOW" in done.out
    assert server.stats()["paid"] == len(ANIMALS)
    assert (tmp_path / "run" / "student" / "evaluation.json").exists()
