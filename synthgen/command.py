"""The parts that all commands share: common options, errors, exit codes and interruptions."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import click

from synthgen import stores
from synthgen.errors import RecipeError, SynthgenError
from synthgen.tables.reference import resolve
from synthgen.ui import UI

if TYPE_CHECKING:
    from synthgen.recipe import Recipe

_SPACE = "free some space, then give the same command"
_DISK = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("the disk quota is used up", _SPACE),
    errno.EROFS: ("the disk is read-only", "make it writable, or give a folder on another disk"),
    errno.EIO: ("the disk reports an error", "check the disk, then give the same command"),
}
"""The meaning of each disk error, and what to do."""


SET = click.option(
    "--set", multiple=True, metavar="KEY=VALUE", help="Set a key of the recipe, such as train.learning_rate=1e-4."
)

FIELD = click.option(
    "--field",
    multiple=True,
    metavar="COLUMN=NAME",
    help="Which column of the data set to read as a column of the format, such as prompt=question.",
)
"""An option for commands that read a data set. `fields_of` reads the values of this option."""


EXECUTOR = click.option(
    "--executor",
    default="local",
    show_default=True,
    metavar="local|ray|ray://HOST:PORT",
    help="Where the work on shards runs: in processes on this machine, or on a Ray cluster.",
)
WORKERS = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Maximum number of workers. Default: one for each CPU core, and fewer for a small corpus.",
)
"""Options for commands whose work can run on several machines."""


def fields_of(texts: Sequence[str]) -> dict[str, str]:
    """The values of the option --field: column of a format → column of the data set. Raises BadParameter."""
    pairs = [text.partition("=") for text in texts]
    if bad := next((text for text, (_, _, name) in zip(texts, pairs, strict=True) if not name), None):
        raise click.BadParameter(f"'{bad}' is not COLUMN=NAME", param_hint="--field")
    return {column: name for column, _, name in pairs}


def _list_stale(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(resolve("synthgen.auditing.catalogue:stale_text")())
        context.exit()


STALE = click.option(
    "--stale",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_stale,
    help="List the licenses and terms whose text must be read again, and stop.",
)
"""An option of `audit`. With this option, `audit` needs no RUN."""


def report_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json and --quiet to a command, pass it a UI, and turn its exceptions into a message and an exit code."""

    @click.option("--json", is_flag=True, help="Print the result as one JSON document.")
    @click.option("-q", "--quiet", is_flag=True, help="Print no progress, notes or hints.")
    @functools.wraps(command)
    def wrapped(json: bool, quiet: bool, **options: Any) -> None:
        ui = UI(quiet=quiet, as_json=json)
        signal.signal(signal.SIGTERM, _interrupt)
        sys.unraisablehook = _unraisable
        try:
            with stores.opened(options, command.__name__, ui) as places:
                command(ui=ui, **places)
        except SynthgenError as error:
            ui.error(error.message, error.hint)
            code = error.exit_code
        except KeyboardInterrupt:
            ui.error("interrupted; finished work is kept", "give the same command again to continue")
            code = 130
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            code = _unexpected(ui, error)
        else:
            return
        sys.exit(code)

    return wrapped


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _unraisable(ignored: sys.UnraisableHookArgs) -> None:
    """Send an interruption again if Python ignored it because it came while an object was deleted."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        sys.__unraisablehook__(ignored)


def _unexpected(ui: UI, error: Exception) -> int:
    """Print an unexpected exception and return the exit code: 2 for a full disk or an unusable path, which the user can
    correct, and 70 for anything else, which is a bug in synthgen.
    """
    number = error.errno if isinstance(error, OSError) else None
    full = "no space left" in str(error).lower() or "os error 28" in str(error).lower()
    if number in _DISK or full:
        where = f" at {error.filename}" if isinstance(error, OSError) and error.filename else ""
        what, hint = _DISK.get(number or errno.ENOSPC, _DISK[errno.ENOSPC])
        ui.error(f"{what}{where}; finished work is kept", hint)
        return 2
    if isinstance(error, OSError) and error.filename:
        ui.error(f"{error.filename}: {error.strerror}", "check the path and its permissions")
        return 2
    if os.environ.get("SYNTHGEN_DEBUG"):
        traceback.print_exc()
    ui.error(
        f"a bug in synthgen: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        "please report it with the command, the recipe, and what the command prints with SYNTHGEN_DEBUG=1",
    )
    return 70


class _Outcome(Protocol):
    """The numbers of kept rows, rejected rows and failed requests of a corpus; see `synthgen.tally.Outcome`."""

    def to_dict(self) -> dict[str, object]: ...
    def text(self) -> str: ...
    def warnings(self) -> list[str]: ...
    def check(self, run: Path) -> None: ...


def conclude(ui: UI, value: dict[str, Any], text: str, outcome: _Outcome, run: Path | None) -> None:
    """Print the result of a command, the most frequent reasons of failures, and last the numbers of kept rows, rejected
    rows and failed requests. With `run`, raises GateDenied when no row was kept.
    """
    ui.result({**value, "outcome": outcome.to_dict()}, "\n".join([text, *outcome.warnings(), outcome.text()]))
    if run is not None:
        outcome.check(run)


def load_for_rows(recipe: str, set: tuple[str, ...], ui: UI) -> Recipe:
    """Load the recipe for a command that makes rows. Print a note when the recipe has no license for its templates."""
    loaded: Recipe = resolve("synthgen.recipe:load_recipe")(recipe, set)
    if loaded.license is None:
        ui.note("note: the recipe has no `license:` for its templates, so the audit will say UNKNOWN")
    return loaded


def recipe_of(run: Path, named: str | None) -> str:
    """The path of the recipe that a command on a run uses: `named` if it is given, otherwise the run's recipe.yaml."""
    if not run.exists():
        raise RecipeError(
            f"'{run}' does not exist",
            "give the folder of a run or the path of a data set; `synthgen run RECIPE -o RUN` makes a run",
        )
    found = next((f / "recipe.yaml" for f in (run, run.parent) if (f / "recipe.yaml").is_file()), None)
    if not named and not found:
        raise RecipeError(f"'{run}' has no recipe.yaml", "name a recipe with --recipe")
    return named or str(found)
