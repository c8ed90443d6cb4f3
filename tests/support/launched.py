"""The script that `support.launching` starts in each of several processes. Its argument is a list of trainings as JSON.

A training has the path of a recipe, a run and the student's folder. `end` says how one process ends after some steps,
by a kill or by an error: {"rank": 1, "steps": 3, "by": "kill"}. With "by": "cut", all processes stop.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import distill
from distill import processes
from distill.processes import one_error
from synthgen.errors import SynthgenError, UserError
from synthgen.lm.model import LanguageModel
from synthgen.recipe import load_recipe
from synthgen.ui import UI, Progress


class _Ending(UI):
    """Ends this process after some steps, if `end` says so. In process 0, prints what the command prints."""

    def __init__(self, end: dict[str, Any] | None) -> None:
        super().__init__(quiet=os.environ["RANK"] != "0")
        self.end = end or {}

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Progress]:
        bar = Progress(what, total, unit)
        bar.show = lambda: self.shown(what, bar.done - bar.resumed)
        yield bar

    def shown(self, what: str, done: int) -> None:
        if what != "train" or done < self.end.get("steps", sys.maxsize):
            return
        if self.end["by"] == "cut":
            raise KeyboardInterrupt
        if processes.rank() == self.end["rank"]:
            if self.end["by"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise UserError("this process has an error of its own", "a hint")


def _count_written(path: str) -> None:
    """For each text that a student writes, appends the text's seed to a file."""
    complete = LanguageModel.complete

    def counted(self: LanguageModel, prompts: Any, keys: Any, *rest: Any) -> Any:
        with Path(path).open("a") as file:
            file.write("".join(f"{key}\n" for key in keys))
        return complete(self, prompts, keys, *rest)

    LanguageModel.complete = counted  # type: ignore[method-assign]


def main() -> None:
    for training in json.loads(sys.argv[1]):
        if "written" in training:
            _count_written(training["written"])
        ui = _Ending(training.get("end"))
        stops = training.get("end", {}).get("by") == "cut"
        with suppress(*([KeyboardInterrupt] if stops else [])):
            distill.train(load_recipe(training["recipe"]), training["run"], training["out"], override_audit=True, ui=ui)


if __name__ == "__main__":
    try:
        with one_error():
            main()
    except SynthgenError as error:
        UI().error(error.message, error.hint)
        sys.exit(error.exit_code)
