"""The `distill` command. Exit codes as in `synthgen`."""

from __future__ import annotations

from pathlib import Path

import click

import synthgen
from synthgen.cli import recipe_of, report_errors
from synthgen.durable import lock
from synthgen.ui import UI

_RUN = click.argument("run", type=click.Path(path_type=Path))
_OUT = click.option("-o", "--out", type=click.Path(path_type=Path), help="The student's folder; RUN/student.")
_RECIPE = click.option("--recipe", help="Recipe with the settings; RUN/recipe.yaml.")
_FRESH = click.option("--fresh", is_flag=True, help="Discard what this command made there, and begin anew.")


@click.group(context_settings={"auto_envvar_prefix": "SYNTHGEN_DISTILL", "help_option_names": ["-h", "--help"]})
@click.version_option(synthgen.__version__)
def main() -> None:
    """Train a student on a corpus, and measure it against its teacher.

    \b
    distill train runs/first
    distill eval runs/first

    Every option is also an environment variable: SYNTHGEN_DISTILL_, the command, the option's long name, as in
    SYNTHGEN_DISTILL_TRAIN_FRESH=1.
    """


@main.command()
@_RUN
@_OUT
@_RECIPE
@_FRESH
@click.option("--override-audit", is_flag=True, help="Train although the audit said no; the card will say so.")
@report_errors
def train(run: Path, out: Path | None, recipe: str | None, fresh: bool, override_audit: bool, ui: UI) -> None:
    """Train the recipe's student on a curated run. Again resumes from the last checkpoint.

    \b
    distill train runs/first
    distill train runs/first --recipe longer.yaml -o students/longer
    """
    from distill.train import train as train_

    loaded = synthgen.load_recipe(recipe_of(run, recipe))
    with lock(out or run):
        folder = train_(loaded, run, out, fresh=fresh, override_audit=override_audit, ui=ui)
    ui.result({"student": str(folder)}, str(folder))
    ui.hint(f"distill eval {run}")


@main.command("eval")
@_RUN
@click.option("--student", type=click.Path(path_type=Path), help="The student's folder; RUN/student.")
@_RECIPE
@_FRESH
@report_errors
def evaluate(run: Path, student: Path | None, recipe: str | None, fresh: bool, ui: UI) -> None:
    """Measure a student against its live teacher on the run's held-out rows.

    \b
    distill eval runs/first
    """
    from distill.evaluate import evaluate as evaluate_

    found = evaluate_(synthgen.load_recipe(recipe_of(run, recipe)), run, student, fresh=fresh, ui=ui)
    lines = []
    for name, row in found["table"].items():
        kl, agreement, accuracy = row.get("kl"), row.get("agreement"), row.get("accuracy")
        parts = [f"KL {kl['mean']:.3f} [{kl['low']:.3f}, {kl['high']:.3f}]"] if kl else []
        parts += [f"agreement {agreement['mean']:.1%}"] if agreement else []
        parts += [f"right {accuracy['mean']:.1%}"] if accuracy else []
        lines.append(f"{name}: {', '.join(parts)}")
    ui.result(found, "\n".join(lines))
    ui.hint(f"synthgen report {run}")


if __name__ == "__main__":
    main()
