"""Asks one teacher of a recipe outside of generation, with the cache, the ledger and the budget that generation uses.

The table `synthgen.tables.engines` names this function (`ASK_ONE`), so that an evaluation can ask a judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from synthgen.generation.casting import cast, in_process
from synthgen.generation.remote import Remotes
from synthgen.generation.rounds import ask_batch
from synthgen.recipe import Recipe
from synthgen.requests import Request
from synthgen.teachers import open_remote, open_teacher
from synthgen.teachers.base import Reply
from synthgen.ui import UI


def ask_one(recipe: Recipe, name: str, requests: Sequence[Request], folder: Path, ui: UI) -> list[Reply]:
    """Send the requests to the teacher `name`. Returns the replies in the same order.

    `folder` is the folder of the generated rows; the ledger is beside it. Replies that the cache already has are read
    from the cache, and not paid again. All costs count for `generate.budget`. Raises BudgetReached and TeacherError.
    """
    section = cast(recipe)[name]
    with ui.progress(f"ask {name}", len(requests), "requests") as bar:
        if in_process(section):
            with closing(open_teacher(section)) as teacher:
                replies = ask_batch({name: teacher}, None, bar.tokens, requests)
        else:
            with closing(Remotes(recipe, folder, {name: open_remote(section)}, bar, note=ui.note)) as remotes:
                replies = remotes.ask(requests)
        bar.advance(len(requests))
    return replies
