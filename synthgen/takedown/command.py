"""The command `synthgen remove`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from synthgen.command import report_errors
from synthgen.errors import UserError
from synthgen.tables.reference import resolve
from synthgen.ui import UI

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
    """Delete everything that descends from a source, and keep it from coming back.

    Generated rows, stored distributions, failures and cached replies of the source are deleted. So is all that was made
    from the rows and can be made again. RUN/removed.jsonl then holds a tombstone, and no command makes such rows again
    in this run. A student stays, and its card says that it is out of date. The same command completes a removal that
    was interrupted.

    \b
    synthgen remove runs/first --source q17 --plan
    synthgen remove runs/first --source faq.jsonl#q17 --yes
    """
    act = resolve(_REMOVE)
    if not yes:
        planned = act(run, source, plan=True)
        if plan or ui.as_json or not sys.stdin.isatty():
            if not plan:
                raise UserError(
                    f"nothing was removed: {planned.text().splitlines()[0]}", "repeat the command with --yes"
                )
            ui.show(planned)
            return
        click.echo(planned.text(), err=True)
        if not click.confirm("Remove it? This cannot be undone", err=True):
            raise UserError("nothing was removed", "")
    ui.show(act(run, source, plan=plan))
    if not plan:
        ui.hint(
            f"synthgen run {run / 'recipe.yaml'} -o {run}, which makes what was deleted from the rows that are left"
        )
