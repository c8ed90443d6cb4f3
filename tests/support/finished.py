"""The finished run that the fixture `finished` shares.

finish(folder)                     # runs every command once
found = read_finished(folder)      # found.recipe, found.run, found.teacher, found.done["generate"].out
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from support.commands import Done, call, warm
from support.small import small_task, small_teacher


@dataclass(frozen=True)
class Finished:
    """The recipe, the run and the teacher's folder, and for the verb of each command its outcome."""

    recipe: Path
    run: Path
    teacher: Path
    done: dict[str, Done]


def finish(folder: Path) -> None:
    """Runs all stages in `folder`, each as a command with --json and -q, and keeps the outcomes in done.json."""
    call(partial(small_teacher, words=True), folder / "teacher")  # GGUF needs a tokenizer that splits text in words
    recipe = small_task(
        folder / "task",
        folder / "teacher",
        seeds=24,
        generate={"num_generations": 2, "max_new_tokens": 5, "shard_size": 8, "temperature": 0.0},
        curate={"answer": False, "truncated": False, "repetition": None, "length": None},
        evaluate={"max_rows": 8, "max_prompts": 2},
    )
    run = folder / "run"
    commands = {
        "plan": ["synthgen", "plan", recipe],
        "generate": ["synthgen", "generate", recipe, "-o", run],
        "curate": ["synthgen", "curate", run],
        "audit": ["synthgen", "audit", run],
        "show": ["synthgen", "show", run],
        "train": ["distill", "train", run],
        "eval": ["distill", "eval", run],
        "report": ["synthgen", "report", run],
    }
    done = {verb: warm(*command, "--json", "-q", apart=True) for verb, command in commands.items()}
    for verb, outcome in done.items():
        assert outcome.code == 0, (verb, outcome)
    (folder / "done.json").write_text(json.dumps({verb: asdict(outcome) for verb, outcome in done.items()}))


def read_finished(folder: Path) -> Finished:
    """What `finish` left in the folder."""
    done = {verb: Done(**outcome) for verb, outcome in json.loads((folder / "done.json").read_text()).items()}
    return Finished(folder / "task" / "recipe.yaml", folder / "run", folder / "teacher", done)
