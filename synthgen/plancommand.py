"""The command `synthgen plan`."""

from __future__ import annotations

from pathlib import Path

import click

from synthgen.command import SET, load_for_rows, report_errors
from synthgen.errors import UserError
from synthgen.tables.reference import resolve
from synthgen.ui import UI

# these functions are imported when they are used, because their modules load heavy packages
_PLAN = "synthgen.generation.plan:plan"
_OUTLOOK = "synthgen.generation.outlook:outlook"


@click.command()
@click.argument("recipe")
@click.option(
    "--executor",
    default="local",
    show_default=True,
    type=click.Choice(["local", "ray"]),
    help="Whether the prediction is for this machine or for a Ray cluster.",
)
@click.option("--nodes", type=click.IntRange(1), help="Number of nodes for which to predict. Default: 1.")
@click.option(
    "--rows",
    type=float,
    metavar="N",
    help="Number of rows for which to predict, such as 1e9. Default: the recipe's number of rows.",
)
@click.option(
    "--measured",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Finished run of this recipe on one node. The prediction uses the rates and sizes of this run.",
)
@SET
@report_errors
def plan(
    recipe: str,
    executor: str,
    nodes: int | None,
    rows: float | None,
    measured: Path | None,
    set: tuple[str, ...],
    ui: UI,
) -> None:
    """Show counts, tokens, cost and one rendered prompt. Nothing is sent.

    With --rows, --nodes or --measured, also predict time, cost and storage.

    \b
    synthgen plan reasoning
    synthgen plan my/recipe.yaml --json
    synthgen plan reasoning --set generate.num_generations=4 --set seeds.0.limit=20
    synthgen plan reasoning --executor ray --nodes 64 --rows 1e9 --measured runs/first
    """
    if nodes and nodes > 1 and executor == "local":
        raise UserError(f"--nodes is {nodes}, and the executor 'local' uses one machine", "add --executor ray")
    if rows is not None and not 1 <= rows < 1e15:
        raise UserError(f"--rows is {rows:g}", "give a number from 1 to 1e15")
    loaded = load_for_rows(recipe, set, ui)
    planned = resolve(_PLAN)(loaded)
    if rows or nodes or measured:
        found = resolve(_OUTLOOK)(loaded, planned, None if rows is None else int(rows), nodes or 1, measured)
        ui.result({**planned.to_dict(), "outlook": found.to_dict()}, f"{planned.text()}\n{found.text()}")
    else:
        ui.show(planned)
    ui.hint(f"synthgen run {recipe} -o runs/{planned.task}")
