"""The command `synthgen remove`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from synthgen.command import report_errors
from synthgen.errors import UserError
from synthgen.recipe import load_recipe
from synthgen.tables.reference import resolve
from synthgen.ui import UI
from synthgen.visible import visible

_REMOVE = "synthgen.takedown.remove:remove"  # imported when it is used, since it loads heavy packages


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--source", required=True, metavar="ID", help="Id of a source, of a seed (also as SOURCE#SEED), or of a row."
)
@click.option("--plan", is_flag=True, help="Change nothing; say what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask before anything is deleted.")
@report_errors
def remove(run: Path, source: str, plan: bool, yes: bool, ui: UI) -> None:
    """Delete everything that was derived from a source, and keep it from coming back.

    Generated rows, stored distributions, failures and cached replies of the source are deleted. Files that were made
    from the rows and can be made again are deleted too. RUN/removed.jsonl then holds a tombstone, and no command makes
    such rows again in this run. A student stays, and its card says that it is out of date. The same command completes a
    removal that was interrupted.

    \b
    synthgen remove runs/first --source q17 --plan
    synthgen remove runs/first --source faq.jsonl#q17 --yes
    """
    act = resolve(_REMOVE)
    if plan:
        ui.show(act(run, source, plan=True))
        return
    if not yes:
        _ask(act(run, source, plan=True).text())
    ui.show(act(run, source))
    of_teacher = load_recipe(run / "recipe.yaml").teacher
    again = f"synthgen run {run / 'recipe.yaml'} -o {run}" if of_teacher else f"synthgen curate {run}"
    ui.hint(f"{again}, which makes again what was deleted")


def _ask(text: str) -> None:
    """Ask whether to do what `text` says. Raises UserError when the answer is no, or nobody can answer."""
    if not _asks():
        first = text.splitlines()[0]
        raise UserError(f"nothing was removed yet: {first}", "repeat the command with --yes, or see --plan")
    click.echo(visible(text), err=True)
    if not click.confirm("Remove it? This cannot be undone", err=True):
        raise UserError("nothing was removed", "give the same command when you have decided")


def _asks() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin.isatty()
