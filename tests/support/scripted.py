"""Runs strategies with scripted replies instead of a teacher.

job = jobs_of(write(tmp_path, strategy="vote"))[0]
rows, failures, asked = play(job, ["3", "4", "3"], ["3"])
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from synthgen.generation.inputs import read_inputs, runner
from synthgen.generation.jobs import Job, Jobs, Setting
from synthgen.generation.rounds import Failure, Row
from synthgen.recipe import Recipe, load_recipe
from synthgen.records import Record
from synthgen.requests import Query
from synthgen.teachers.base import Reply

BROKEN = Reply(failure=("context", "too long"))
MARKER = {"answer_marker": "Answer:", "num_generations": 2}
JUDGE = {"judge": "Q: {{ question }}\nA: {{ completion }}\nMark?"}
NEW = {"new": "{% for e in examples %}{{ e.question }}\n{% endfor %}Another?"}
TWO = {"one": {"model": "org/one", "license": "MIT"}, "two": {"model": "org/two", "license": "Apache-2.0"}}
THREE = {**TWO, "three": {"model": "org/three", "license": "MIT"}}


def write(folder: Path, seeds: int = 6, templates: dict[str, str] | None = None, /, **sections: Any) -> Path:
    """Writes a recipe with numbered seeds and templates, and returns its path. `sections` replace sections of the
    recipe, and None removes a section.
    """
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "id": f"q{i}",
            "question": f"What is {i} plus {i + 1}, said thing {chr(97 + i % 26)}{i // 26}?",
            "answer": str(2 * i + 1),
        }
        for i in range(seeds)
    ]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in {"user": "{{ question }}\n", **(templates or {})}.items():
        (folder / f"{name}.j2").write_text(text)
    source = {"path": "seeds.jsonl", "source": "tests", "license": "CC0-1.0", "id": "id", "group": "id"}
    recipe = {
        "task": "sums",
        "seeds": [{**source, "reference": "answer"}],
        "split": {"test": 0.0},
        "teacher": {"model": "org/model", "license": "Apache-2.0"},
        "generate": {"num_generations": 1},
        **sections,
    }
    kept = {key: value for key, value in recipe.items() if value is not None or key == "logits"}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(kept, sort_keys=False))
    return path


def identified(recipe: Recipe) -> Jobs:
    """All jobs of a recipe. The models' names are used as their revisions."""
    jobs = read_inputs(recipe).jobs()
    setting = jobs.setting
    return Jobs(Setting(setting.recipe, setting.prompt, setting.seeds, setting.versions))


def jobs_of(path: Path) -> list[Job]:
    """All jobs of a recipe that `write` wrote."""
    return list(identified(load_recipe(path)).one_by_one())


def seen(query: Query) -> SimpleNamespace:
    """The request and the lineage of a query, as attributes of one object."""
    return SimpleNamespace(**query.request._asdict(), **query.lineage._asdict())


def first(job: Job) -> list[SimpleNamespace]:
    """The queries of a job's first round."""
    return [seen(query) for query in next(runner(job.recipe)(job))]


def play(job: Job, *rounds: list[str | Reply]) -> tuple[list[Record], list[Failure], list[list[SimpleNamespace]]]:
    """(rows, failures, queries of each round) of a job. `rounds` has the replies of each round, as texts or Replies."""
    steps = runner(job.recipe)(job)
    asked = [[seen(query) for query in next(steps)]]
    for texts in rounds:
        replies = [Reply(text, finish_reason="stop") if isinstance(text, str) else text for text in texts]
        assert len(replies) == len(asked[-1]), f"{len(asked[-1])} requests, {len(replies)} scripted replies"
        try:
            asked.append([seen(query) for query in steps.send(replies)])
        except StopIteration as done:
            outcomes = done.value
            rows = [one.record for one in outcomes if isinstance(one, Row)]
            return rows, [one for one in outcomes if isinstance(one, Failure)], asked
    raise AssertionError(f"not finished; it asks for {[query.messages for query in asked[-1]]}")


def at_once(job: Job) -> list[str]:
    """The kinds of failure of a job that ends before its first request."""
    try:
        next(runner(job.recipe)(job))
    except StopIteration as done:
        return [one.kind for one in done.value]
    raise AssertionError("it asks")


def roles(record: Record) -> Counter[str]:
    """The number of sources of each role in a row."""
    return Counter(source["role"] for source in record.sources)


def scores(record: Record) -> dict[str, float]:
    """The scores of a row by name."""
    return {score["name"]: score["value"] for score in record.scores}
