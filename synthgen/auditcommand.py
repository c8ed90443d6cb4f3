"""The command `synthgen audit`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from synthgen.command import SET, STALE, conclude, recipe_of, report_errors
from synthgen.errors import UserError
from synthgen.tables.reference import resolve
from synthgen.ui import UI

# These functions are imported when they are used, because their modules load heavy packages.
_AUDIT = "synthgen.auditing:audit"
_KEEP_ALLOWED = "synthgen.curation.allowed:keep_allowed"
_LOAD = "synthgen.recipe:load_recipe"
_FIND = "synthgen.auditing.subjects:find"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--use", type=click.Choice(["research", "commercial"]), help="Intended use. Default: the recipe's audit.use."
)
@click.option("--recipe", help="Recipe with the intended use. Default: RUN/recipe.yaml.")
@click.option("--keep-allowed", is_flag=True, help="Write the rows that may be used as intended to the folder OUT.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="With --keep-allowed: folder of the new run.")
@click.option(
    "--fresh", is_flag=True, help="With --keep-allowed: delete what this command made in OUT, and start again."
)
@click.option("--fail-on", type=click.Choice(["contested"]), help="Exit with 1 also when the status is CONTESTED.")
@STALE
@SET
@report_errors
def audit(
    run: Path,
    use: str | None,
    recipe: str | None,
    keep_allowed: bool,
    out: Path | None,
    fresh: bool,
    fail_on: str | None,
    set: tuple[str, ...],
    ui: UI,
) -> None:
    """Check whether the licenses of teacher and seeds allow the intended use. RUN may also be a student or any model.

    The recipe's sections audit.bias, audit.models and audit.privacy add tests of the rows and of the student.

    The exit code is 1 when a license forbids the use or is unknown, unless a waiver covers that. With --keep-allowed,
    the audit of the new run decides the exit code. In the new run, each row that may not be used keeps the reason, but
    loses its text.

    \b
    synthgen audit runs/first
    synthgen audit runs/first --use research
    synthgen audit runs/first --keep-allowed -o runs/first-allowed
    """
    if keep_allowed != (out is not None) or (fresh and not keep_allowed):
        raise UserError("--keep-allowed, -o and --fresh belong together", "give --keep-allowed -o OUT [--fresh]")
    loaded = resolve(_LOAD)(recipe_of(run, recipe), set)
    done = found = resolve(_AUDIT)(loaded, run, use=use, ui=ui)
    if out is not None:
        done = resolve(_KEEP_ALLOWED)(loaded, run, out, use=use, fresh=fresh, ui=ui)
        found, run = done.report, out
    if outcome := resolve(_FIND)(run).outcome():
        conclude(ui, done.to_dict(), done.text(), outcome, run)
    else:
        ui.show(done)
    if not found.passed or (fail_on and found.gate == "CONTESTED"):
        sys.exit(1)
    ui.hint(f"distill train {run}")
