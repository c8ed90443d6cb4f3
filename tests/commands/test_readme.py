"""The README's example of an API teacher, run as it is printed, with a server on this machine in place of OpenAI's."""

from __future__ import annotations

import re

import yaml
from support.commands import warm
from support.places import REPOSITORY
from support.serving import KEY


def test_the_api_example_ends_well(serve, tmp_path):
    server = serve()
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    values = yaml.safe_load(text)
    (tmp_path / "recipe.yaml").write_text(text)
    (tmp_path / "user.j2").write_text("{{ question }}")
    (tmp_path / "questions.csv").write_text("question\nWhat do bees make?\nWhat do cows drink?\n")
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
    assert server.stats()["paid"] == 2
