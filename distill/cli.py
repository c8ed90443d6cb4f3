"""The `distill` command. Its exit codes are those of `synthgen`."""

from __future__ import annotations

from pathlib import Path

import click

import synthgen
from synthgen.command import FIELD, SET, conclude, fields_of, recipe_of, report_errors
from synthgen.durable import writes
from synthgen.errors import GateDenied, UserError
from synthgen.recipe.overrides import parse_settings, read
from synthgen.tables.formats import MODEL_FORMATS
from synthgen.ui import UI

_RUN = click.argument("run", type=click.Path(path_type=Path))
_OUT = click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder of the student. Default: RUN/student.")
_RECIPE = click.option("--recipe", help="Recipe with the settings. Default: RUN/recipe.yaml.")
_FRESH = click.option(
    "--fresh", is_flag=True, help="Delete what this command made in the output folder, and start again."
)


_OVERRIDE = click.option(
    "--override-audit", is_flag=True, help="Train even if no audit passed for this use. Every card will say so."
)


@click.group(context_settings={"auto_envvar_prefix": "SYNTHGEN_DISTILL", "help_option_names": ["-h", "--help"]})
@click.version_option(synthgen.__version__)
def main() -> None:
    """Train a student on a corpus, compare it with its teacher, and export it to other runtimes.

    \b
    distill train runs/first
    distill eval runs/first
    distill export runs/first --to onnx

    Every option can be set by an environment variable. The variable's name has three parts in capitals, joined by `_`:
    SYNTHGEN_DISTILL, the command and the option's long name. For example, SYNTHGEN_DISTILL_TRAIN_FRESH=1 sets --fresh
    of `train`.
    """


@main.command()
@_RUN
@_OUT
@_RECIPE
@_FRESH
@click.option("--student", metavar="CHECKPOINT", help="Model that the student starts as; train.student.model.")
@click.option(
    "--student-license", metavar="ID", help="License of that model; train.student.license. Default: the recipe's."
)
@click.option("--license", metavar="ID", help="License of the rows of a data set. Default: unknown, which is refused.")
@FIELD
@_OVERRIDE
@SET
@report_errors
def train(
    run: Path,
    out: Path | None,
    recipe: str | None,
    fresh: bool,
    student: str | None,
    student_license: str | None,
    license: str | None,
    field: tuple[str, ...],
    override_audit: bool,
    set: tuple[str, ...],
    ui: UI,
) -> None:
    """Train the recipe's student on a curated run, or on the rows of a data set.

    A run must have passed `synthgen audit` for the recipe's intended use. This command audits the rows of a data set,
    using the license that --license names. A data set needs no recipe: --student names the checkpoint that learns its
    rows. Repeat the command to resume.

    \b
    distill train runs/first
    distill train runs/first --recipe longer.yaml -o students/longer
    distill train runs/first --set train.learning_rate=1e-4 -o students/slower
    distill train my-rows.jsonl --student HuggingFaceTB/SmolLM2-135M-Instruct --student-license Apache-2.0 \\
      --license CC0-1.0 -o students/mine
    """
    from distill.adopted import is_dataset
    from distill.processes import one_error
    from distill.training import places
    from distill.training import train as train_
    from synthgen.tally import tally

    with one_error():
        loaded = _recipe_to_train(run, recipe, student, student_license, license=license, field=field, set=set)
        trained = train_(loaded, run, out, fresh=fresh, override_audit=override_audit, ui=ui if writes() else None)
    if not writes():
        return
    rows_of_student, _ = places(run, out, fresh=fresh)
    conclude(ui, trained.to_dict(), trained.text(), tally(rows_of_student), None)
    ui.hint(f"distill eval {trained.folder if is_dataset(run) else run}")


def _recipe_to_train(
    run: Path,
    recipe: str | None,
    student: str | None,
    student_license: str | None,
    *,
    license: str | None,
    field: tuple[str, ...],
    set: tuple[str, ...],
) -> synthgen.Recipe:
    """The recipe for `train`, with the values of the command's options. The command `train` describes these options."""
    from distill.adopted import is_dataset, recipe_of_dataset
    from synthgen.datasets import source_of

    if student and student.startswith((".", "~")):  # relative to the current folder, unlike paths in a recipe
        student = str(Path(student).expanduser().absolute())
    rows = is_dataset(run)
    if (license or field) and not rows:
        raise UserError(
            f"--license and --field are only for data sets, and '{run}' is not a data set", "leave them out"
        )
    source = source_of(run.resolve(), license, fields_of(field))
    named = {"train.student.model": student, "train.student.license": student_license}
    settings = (*set, *(f"{key}={value}" for key, value in named.items() if value))
    if rows and student and not recipe:
        return synthgen.with_values(recipe_of_dataset(source, student), read(parse_settings(settings)))
    if rows and not recipe and not student:
        raise UserError(
            f"'{run}' is a data set, and no student is named",
            "name a checkpoint with --student, or a recipe with --recipe",
        )
    loaded = synthgen.load_recipe(recipe_of(run, recipe), settings)
    if license or field:
        loaded = loaded.model_copy(update={"seeds": (source, *loaded.seeds)})
    return loaded


@main.command("eval")
@click.argument("run", metavar="RUN|STUDENT", type=click.Path(path_type=Path))
@click.option("--student", type=click.Path(path_type=Path), help="Folder of the student. Default: RUN/student.")
@_RECIPE
@_FRESH
@SET
@report_errors
def evaluate(run: Path, student: Path | None, recipe: str | None, fresh: bool, set: tuple[str, ...], ui: UI) -> None:
    """Measure a student on held-out rows: against its live teacher, or against the recorded answers of any teacher.

    The student's folder alone is enough if it contains the student's corpus or lies in the student's run.

    \b
    distill eval runs/first
    distill eval students/mine
    """
    from distill.evaluation.evaluate import evaluate as evaluate_

    own = student is not None and (student / "recipe.yaml").is_file()  # a student of a dataset has its recipe
    named = recipe_of(student if student is not None and own else run, recipe)
    result = evaluate_(synthgen.load_recipe(named, set), run, student, fresh=fresh, ui=ui)
    ui.result(result.to_dict(), result.text())
    ui.hint(f"synthgen report {run}" if (run / "generated").is_dir() else f"read {student or run}/README.md")


@main.command()
@_RUN
@click.option(
    "--share",
    type=float,
    multiple=True,
    help="Share of the training seeds. Repeat the option for several shares. Default: 0.25, 0.5, 1.",
)
@_RECIPE
@_FRESH
@_OVERRIDE
@SET
@report_errors
def curve(
    run: Path,
    share: tuple[float, ...],
    recipe: str | None,
    fresh: bool,
    override_audit: bool,
    set: tuple[str, ...],
    ui: UI,
) -> None:
    """Train and measure the run's student on growing shares of its training seeds. Repeat the command to resume.

    \b
    distill curve runs/first
    distill curve runs/first --share 0.1 --share 0.3
    """
    from distill.curves import SHARES
    from distill.curves import curve as curve_

    loaded = synthgen.load_recipe(recipe_of(run, recipe), set)
    result = curve_(loaded, run, share or SHARES, fresh=fresh, override_audit=override_audit, ui=ui)
    ui.result(result.to_dict(), result.text())
    ui.hint(f"synthgen report {run}")


@main.command()
@click.argument("student", type=click.Path(path_type=Path))
@click.option("--to", metavar="FORMAT", required=True, help=f"One of {', '.join(MODEL_FORMATS)}.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder of the export. Default: STUDENT/FORMAT.")
@click.option(
    "--corpus", type=click.Path(path_type=Path), help="Run or corpus with held-out rows. Default: the student's run."
)
@_FRESH
@report_errors
def export(student: Path, to: str, out: Path | None, corpus: Path | None, fresh: bool, ui: UI) -> None:
    """Write a student for another runtime, and compare every file with the student. STUDENT is the student's folder or
    its run.

    The exit code is 1 when a file has the student's most likely token or label at fewer than 99% of the held-out
    positions.

    \b
    distill export runs/first --to onnx
    distill export students/longer --to gguf -o edge/longer --corpus runs/first
    """
    from distill.exporting.make import export as export_

    result = export_(student, to, out, held_out=corpus, fresh=fresh, ui=ui)
    ui.result(result.to_dict(), result.text())
    if not result.passed:
        raise GateDenied(
            result.failure,
            f"the files are in {result.folder}. Use a file that passes, or train longer: rounding easily changes the "
            "most likely token or label of an uncertain student",
        )
    ui.hint(f"read {result.folder}/README.md")


if __name__ == "__main__":
    main()
