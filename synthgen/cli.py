"""The `synthgen` command. Commands hold no logic: each calls the function of `synthgen` with the same name.

Exit codes: 0 success · 1 a gate failed · 2 an error that the user can correct · 70 a bug in synthgen ·
130 interrupted (the same command continues).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import synthgen
from synthgen.auditcommand import audit
from synthgen.command import (
    EXECUTOR,
    FIELD,
    SET,
    WORKERS,
    conclude,
    fields_of,
    load_for_rows,
    recipe_of,
    report_errors,
)
from synthgen.errors import UserError
from synthgen.plancommand import plan
from synthgen.tables.formats import DESCRIPTIONS, ROW_FORMATS
from synthgen.takedown.command import remove
from synthgen.ui import UI

if TYPE_CHECKING:
    from synthgen.recipe import Recipe

_FRESH = click.option(
    "--fresh", is_flag=True, help="Delete what this command made in the output folder, and start again."
)
_REPAIR = click.option("--repair", is_flag=True, help="Make damaged shards again.")
_OUT = click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
_RUN = click.argument("run", type=click.Path(path_type=Path))


@click.group(
    commands=[audit, plan, remove],
    context_settings={"auto_envvar_prefix": "SYNTHGEN", "help_option_names": ["-h", "--help"]},
)
@click.version_option(synthgen.__version__)
def main() -> None:
    """Make a distillation corpus from a teacher, and a student from the corpus.

    \b
    synthgen init questions.csv --license ID  write a recipe for your own file
    synthgen plan reasoning                   show the plan; nothing is sent
    synthgen run reasoning -o runs/first      run all stages; repeat to resume
    synthgen show runs/first -n 3             show 3 rows

    A RECIPE is a YAML file or the name of a shipped task. A folder may also be a URL, such as s3://bucket/runs/first.
    Every option can be set by an environment variable. The variable's name has three parts in capitals, joined by `_`:
    SYNTHGEN, the command and the option's long name. For example, SYNTHGEN_SHOW_COUNT=3 sets --count of `show`.
    """


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--license", required=True, metavar="ID", help="License of the file's rows, such as CC0-1.0 or MIT.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the task. Default: the file's name without its ending.",
)
@click.option("--task", metavar="NAME", help="Name of the task. Default: the file's name without its ending.")
@report_errors
def init(file: Path, license: str, out: Path | None, task: str | None, ui: UI) -> None:
    """Write a commented recipe and templates for your own file: CSV, JSONL or Parquet, with one question in each row.

    \b
    synthgen init questions.csv --license CC0-1.0
    synthgen init data/tickets.jsonl --license MIT -o tasks/tickets --task tickets
    """
    written = synthgen.init(file, license=license, out=out, task=task)
    ui.show(written)
    ui.hint(f"synthgen plan {written.recipe}, then synthgen run {written.recipe} -o runs/{task or file.stem}")


@main.command()
@click.argument("recipe")
@click.option(
    "-n", "--requests", type=click.IntRange(1), default=64, show_default=True, help="Number of requests to time."
)
@SET
@report_errors
def tune(recipe: str, requests: int, set: tuple[str, ...], ui: UI) -> None:
    """Time several values of a local teacher's batch setting on the first requests of the recipe.

    Prints the best value. Writes nothing.

    \b
    synthgen tune reasoning
    synthgen tune my/recipe.yaml -n 256 --json
    """
    tuning = synthgen.tune(synthgen.load_recipe(recipe, set), requests=requests, ui=ui)
    ui.show(tuning)
    ui.hint(f"teacher: {{{tuning.key}: {tuning.best}}} in the recipe")


@main.command()
@click.argument("recipe")
@_OUT
@_FRESH
@_REPAIR
@click.option("--retry-failed", is_flag=True, help="Make shards with failures again. Paid replies are reused.")
@click.option("--shard", metavar="I/N", help="Make only one of N parts: every N-th shard, from shard I on.")
@click.option(
    "--batch", is_flag=True, help="Use the provider's Batch API: requests cost half, and replies arrive within a day."
)
@click.option("--budget", type=float, metavar="USD", help="Replaces the recipe's generate.budget.usd.")
@click.option("--max-failures", metavar="N|N%", help="Replaces the recipe's generate.max_failures.")
@EXECUTOR
@WORKERS
@SET
@report_errors
def generate(
    recipe: str,
    out: Path,
    fresh: bool,
    repair: bool,
    retry_failed: bool,
    shard: str | None,
    batch: bool,
    budget: float | None,
    max_failures: str | None,
    executor: str,
    workers: int | None,
    set: tuple[str, ...],
    ui: UI,
) -> None:
    """Send the prompts of the seeds to the teacher and write RUN/generated. Repeat the command to resume.

    \b
    synthgen generate reasoning -o runs/first
    synthgen generate reasoning -o runs/first --repair
    synthgen generate mine.yaml -o runs/mine --budget 5 --max-failures 5%
    synthgen generate mine.yaml -o runs/part-1 --shard 1/4
    synthgen generate mine.yaml -o runs/mine --executor ray
    """
    from synthgen.recipe import with_limits
    from synthgen.tally import tally

    if workers is not None and executor == "local":
        raise UserError(
            "--workers needs a cluster: on one machine, one process sends all requests of `synthgen generate`",
            "leave it out, or add --executor ray; `synthgen tune` finds the fastest number of requests at a time",
        )
    loaded = with_limits(load_for_rows(recipe, set, ui), budget, max_failures)
    made = synthgen.generate(
        loaded, out, fresh=fresh, repair=repair, retry_failed=retry_failed, part=_part(shard), batch=batch,
        executor=executor, workers=workers, ui=ui,
    )  # fmt: skip
    conclude(ui, made.to_dict(), made.text(), tally(made.folder), out if made.finished else None)
    ui.hint(made.hint)


def _refuse_code(recipe: Recipe, settings: Sequence[str]) -> None:
    """Refuse to run a Python function if only the recipe in the run's folder asks for it."""
    own = any(one.partition("=")[0] in ("curate.function", "curate.function.function") for one in settings)
    if recipe.curate.settings("function") is not None and not own:
        raise UserError(
            "the recipe in the run's folder names a Python function, and code that a folder names is not run",
            "name the recipe with --recipe, or the function with --set curate.function=module:function",
        )


@main.command()
@click.argument("run", metavar="RUN|DATASET", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the curated corpus; for a data set, folder of the run that is made from it. Default: RUN/curated.",
)
@click.option("--recipe", help="Recipe with the rules. Default: RUN/recipe.yaml; for a data set, the default rules.")
@click.option("--license", metavar="ID", help="License of the rows of a data set. Default: unknown.")
@FIELD
@WORKERS
@EXECUTOR
@click.option(
    "--plan", is_flag=True, help="Write nothing; say on a sample of rows what each rule would reject, with examples."
)
@_FRESH
@_REPAIR
@SET
@report_errors
def curate(
    run: Path,
    out: Path | None,
    recipe: str | None,
    license: str | None,
    field: tuple[str, ...],
    workers: int | None,
    executor: str,
    plan: bool,
    fresh: bool,
    repair: bool,
    set: tuple[str, ...],
    ui: UI,
) -> None:
    """Judge every row of RUN/generated and write RUN/curated. Rejected rows are kept with their reasons.

    A data set needs no recipe and no teacher. Its rows are written to OUT/generated, and OUT is then a run.

    \b
    synthgen curate runs/first
    synthgen curate my-rows.jsonl --license CC0-1.0 -o runs/mine --set curate.near_duplicates=true
    synthgen curate runs/first --recipe stricter.yaml -o runs/first/strict
    synthgen curate my-rows.jsonl --plan --set curate.length.max_words=60
    """
    from synthgen.corpus import resolve
    from synthgen.curation import places
    from synthgen.curation.preview import preview
    from synthgen.datasets import is_dataset, source_of
    from synthgen.pipeline import preview_dataset, recipe_of_rows
    from synthgen.tally import tally

    if is_dataset(run):
        rows = source_of(run.resolve(), license, fields_of(field))
        rules = synthgen.load_recipe(recipe, set) if recipe else recipe_of_rows(rows, set)
        rows = rows if recipe else rules.seeds[0]  # the same source, with the changes that --set made to it
        if plan:
            ui.show(preview_dataset(rows, rules))
            return
        if out is None:
            raise UserError(f"'{run}' is a data set, so its rows need a folder", "name a new folder with -o")
        done = synthgen.curate_dataset(
            rows, out, rules, fresh=fresh, repair=repair, workers=workers, executor=executor, ui=ui
        )
        conclude(ui, done.to_dict(), done.text(), tally(done.folder), out)
        ui.hint(f"synthgen show {out} --rejected, synthgen audit {out}, or synthgen export {out} --to messages")
        return
    if license or field:
        raise UserError(
            f"--license and --field are only for data sets, and '{run}' is not a data set", "leave them out"
        )
    loaded = synthgen.load_recipe(recipe_of(run, recipe), set)
    if not recipe:
        _refuse_code(loaded, set)
    if plan:
        ui.show(preview(loaded, resolve(run, prefer=("generated",))))
        return
    source, _ = places(run, out, fresh=fresh)
    done = synthgen.curate(loaded, run, out, fresh=fresh, repair=repair, workers=workers, executor=executor, ui=ui)
    conclude(ui, done.to_dict(), done.text(), tally(done.folder, source), out or run)
    ui.hint(f"synthgen audit {run}, or see the rejected rows: synthgen show {run} --rejected")


@main.command()
@_RUN
@click.option("-n", "--count", type=click.IntRange(min=0), default=5, show_default=True, help="Number of rows to show.")
@click.option("--rejected", is_flag=True, help="Show rejected rows with their reasons.")
@click.option("--rule", metavar="NAME", help="With --rejected: only rows that this check or sweep rejected.")
@click.option("--failures", is_flag=True, help="Show requests that failed, and unusable rows of a data set.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Show only rows of this split.")
@report_errors
def show(run: Path, count: int, rejected: bool, rule: str | None, failures: bool, split: str | None, ui: UI) -> None:
    """Show rows of a run or corpus, and its counts. For a row that was rejected because it resembles another row, the
    differences are shown: [-words of the rejected row alone-] and {+words of the other row alone+}.

    \b
    synthgen show runs/first -n 3
    synthgen show runs/first --rejected --json
    synthgen show runs/first --failures
    synthgen show runs/first --rejected --rule near_duplicates
    """
    from synthgen.tally import tally

    found = synthgen.show(run, count, rejected=rejected, rule=rule, failures=failures, split=split)
    conclude(ui, found.to_dict(), found.text(), tally(found.folder), None)


@main.command()
@_RUN
@click.option("--to", metavar="FORMAT", required=True, help=f"One of {', '.join([*ROW_FORMATS, *DESCRIPTIONS])}.")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the export, with a file for each split; or one file, if the name ends in `.jsonl`.",
)
@click.option(
    "--license",
    metavar="ID",
    help="License of the rows, such as CC0-1.0. Default: the license of a run's sources, or unknown.",
)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Export only rows of this split.")
@FIELD
@_FRESH
@report_errors
def export(
    run: Path,
    to: str,
    out: Path,
    license: str | None,
    split: str | None,
    field: tuple[str, ...],
    fresh: bool,
    ui: UI,
) -> None:
    """Write the kept rows of a run, or the rows of any data set, in a format of other tools.

    A row that the format cannot hold without loss is an error, and nothing is written. Your own columns and ids are
    kept. `--to spdx` writes no rows: it describes a run and its student, with all licenses.

    \b
    synthgen export runs/first --to messages -o exports/first
    synthgen export runs/first --to hub --license CC-BY-4.0 -o exports/hub
    synthgen export runs/first --to spdx -o exports/spdx
    synthgen export rows.csv --field prompt=question --field completion=answer --to alpaca -o rows.jsonl
    """
    fields = fields_of(field)
    done = synthgen.export(run, to, out, license=license, split=split, fields=fields, fresh=fresh, ui=ui)
    ui.show(done)


@main.command()
@click.argument("recipe")
@_OUT
@_FRESH
@_REPAIR
@click.option(
    "--override-audit", is_flag=True, help="Train even if the audit does not pass. Every card and the page will say so."
)
@EXECUTOR
@WORKERS
@SET
@report_errors
def run(
    recipe: str,
    out: Path,
    fresh: bool,
    repair: bool,
    override_audit: bool,
    executor: str,
    workers: int | None,
    set: tuple[str, ...],
    ui: UI,
) -> None:
    """Run all stages, including the training of the student and the report.

    Repeat the command to resume an interrupted run. A finished run is not changed.

    \b
    synthgen run reasoning -o runs/first
    synthgen run runs/first/recipe.yaml -o runs/first
    synthgen run reasoning -o runs/longer --set train.num_train_epochs=3
    """
    loaded = load_for_rows(recipe, set, ui)
    result = synthgen.run(
        loaded,
        out,
        fresh=fresh,
        repair=repair,
        override_audit=override_audit,
        executor=executor,
        workers=workers,
        ui=ui,
    )
    conclude(ui, result.to_dict(), result.text(), result.outcome, out)
    ui.hint(f"open {out}/report.html")


@main.command()
@_RUN
@report_errors
def report(run: Path, ui: UI) -> None:
    """Write RUN/report.html again from the files of the run.

    \b
    synthgen report runs/first
    """
    ui.show(synthgen.report(run))


def _part(text: str | None) -> tuple[int, int]:
    """Parse 'i/n' into (i, n)."""
    first, slash, of = (text or "1/1").partition("/")
    if not (slash and first.isdigit() and of.isdigit() and 1 <= int(first) <= int(of)):
        raise click.BadParameter(f"'{text}' is not I/N with I from 1 to N", param_hint="--shard")
    return int(first), int(of)


if __name__ == "__main__":
    main()
