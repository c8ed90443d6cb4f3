"""The `distill` command. Exit codes as in `synthgen`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

import synthgen
from synthgen.cli import SET, recipe_of, report_errors
from synthgen.durable import lock, writes
from synthgen.errors import GateDenied
from synthgen.ui import UI

_RUN = click.argument("run", type=click.Path(path_type=Path))
_OUT = click.option("-o", "--out", type=click.Path(path_type=Path), help="The student's folder; RUN/student.")
_RECIPE = click.option("--recipe", help="Recipe with the settings; RUN/recipe.yaml.")
_FRESH = click.option("--fresh", is_flag=True, help="Discard what this command made there, and begin anew.")


@click.group(context_settings={"auto_envvar_prefix": "SYNTHGEN_DISTILL", "help_option_names": ["-h", "--help"]})
@click.version_option(synthgen.__version__)
def main() -> None:
    """Train a student on a corpus, measure it against its teacher, and take it elsewhere.

    \b
    distill train runs/first
    distill eval runs/first
    distill export runs/first --to onnx

    Every option is also an environment variable: SYNTHGEN_DISTILL_, the command, the option's long name, as in
    SYNTHGEN_DISTILL_TRAIN_FRESH=1.
    """


@main.command()
@_RUN
@_OUT
@_RECIPE
@_FRESH
@click.option("--override-audit", is_flag=True, help="Train although the audit said no; the card will say so.")
@SET
@report_errors
def train(
    run: Path, out: Path | None, recipe: str | None, fresh: bool, override_audit: bool, set: tuple[str, ...], ui: UI
) -> None:
    """Train the recipe's student on a curated run, or on any rows with `prompt` and `completion`. Again resumes.

    \b
    distill train runs/first
    distill train runs/first --recipe longer.yaml -o students/longer
    distill train runs/first --set train.learning_rate=1e-4 -o students/slower
    distill train my-rows/ --recipe tokens-alone.yaml -o students/mine
    """
    from distill.training import train as train_

    loaded = synthgen.load_recipe(recipe_of(run, recipe), set)
    if not writes():
        train_(loaded, run, out, fresh=fresh, override_audit=override_audit)
        return
    with lock(out or run):
        folder = train_(loaded, run, out, fresh=fresh, override_audit=override_audit, ui=ui)
    ui.result({"student": str(folder)}, str(folder))
    ui.hint(f"distill eval {run}")


@main.command("eval")
@_RUN
@click.option("--student", type=click.Path(path_type=Path), help="The student's folder; RUN/student.")
@_RECIPE
@_FRESH
@SET
@report_errors
def evaluate(run: Path, student: Path | None, recipe: str | None, fresh: bool, set: tuple[str, ...], ui: UI) -> None:
    """Measure a student against its live teacher on the run's held-out rows.

    \b
    distill eval runs/first
    """
    from distill.evaluation.evaluate import evaluate as evaluate_

    found = evaluate_(synthgen.load_recipe(recipe_of(run, recipe), set), run, student, fresh=fresh, ui=ui)
    lines = []
    for name, row in found["table"].items():
        kl, agreement, accuracy = row.get("kl"), row.get("agreement"), row.get("accuracy")
        rho = row.get("spearman")
        parts = [f"Spearman's ρ {rho['mean']:.3f} [{rho['low']:.3f}, {rho['high']:.3f}]"] if rho else []
        parts += [f"KL {kl['mean']:.3f} [{kl['low']:.3f}, {kl['high']:.3f}]"] if kl else []
        parts += [f"from what was taught {row['from targets']['mean']:.3f}"] if "from targets" in row else []
        parts += [f"agreement {agreement['mean']:.1%}"] if agreement else []
        parts += [f"right {accuracy['mean']:.1%}"] if accuracy else []
        lines.append(f"{name}: {', '.join(parts) or '–'}")
    if "learned from" in found:
        lines.append(f"the distilled student learned from {found['learned from']}")
    ui.result(found, "\n".join(lines))
    ui.hint(f"synthgen report {run}")


@main.command()
@_RUN
@click.option("--share", type=float, multiple=True, help="Of the training seeds; again for more. 0.25, 0.5, 1.")
@_RECIPE
@_FRESH
@SET
@report_errors
def curve(run: Path, share: tuple[float, ...], recipe: str | None, fresh: bool, set: tuple[str, ...], ui: UI) -> None:
    """Train and measure the run's student on growing shares of its data. Again goes on where it was.

    \b
    distill curve runs/first
    distill curve runs/first --share 0.1 --share 0.3
    """
    from distill.curves import SHARES
    from distill.curves import curve as curve_

    loaded = synthgen.load_recipe(recipe_of(run, recipe), set)
    with lock(run):
        found = curve_(loaded, run, share or SHARES, fresh=fresh, ui=ui)
    lines = []
    for point in found["points"]:
        measures = point["table"]["distilled"]
        parts = [
            f"{key} {value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" for key, value in measures.items()
        ]
        lines.append(f"{point['share']:.0%}, {point['rows']} rows, {point['steps']} steps: {', '.join(parts)}")
    ui.result(found, "\n".join(lines))
    ui.hint(f"synthgen report {run}")


@main.command()
@click.argument("student", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["onnx", "gguf"]), required=True, help="The format.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The export's folder; STUDENT/onnx or STUDENT/gguf.")
@click.option("--corpus", type=click.Path(path_type=Path), help="Run or corpus with held-out rows; the student's run.")
@_FRESH
@report_errors
def export(
    student: Path, to: Literal["onnx", "gguf"], out: Path | None, corpus: Path | None, fresh: bool, ui: UI
) -> None:
    """Write a student (its folder or its run) for other runtimes, in full and in eight bits, and compare each with it.

    Exit 1 when one agrees with the student on the likeliest token at fewer than 99% of held-out positions.

    \b
    distill export runs/first --to onnx
    distill export students/longer --to gguf -o edge/longer --corpus runs/first
    """
    from distill.exporting.make import export as export_

    found = export_(student, to, out, held_out=corpus, fresh=fresh, ui=ui)
    ui.result(found, "\n".join([found["folder"], *(f"{name}: {_row(row)}" for name, row in found["table"].items())]))
    below = {name: row["agreement"] for name, row in found["table"].items() if "agreement" in row}
    below = {name: share for name, share in below.items() if share < found["least_agreement"]}
    if below:
        raise GateDenied(
            f"{' and '.join(f'{name} ({share:.2%})' for name, share in below.items())}: the likeliest token is the "
            f"student's at fewer than {found['least_agreement']:.0%} of held-out positions",
            f"{found['folder']} is written all the same; take another of its files, or train longer: a student that is "
            "sure of little changes its choice easily",
        )
    ui.hint(f"read {found['folder']}/README.md")


def _row(row: dict[str, Any]) -> str:
    """One line of an export's table."""
    parts = [f"{row['bytes'] / 1e6:.1f} MB"]
    if "agreement" in row:
        parts.append(f"agrees {row['agreement']:.2%}, max |Δ log p| {row['max_logprob_difference']:.2g}")
    if "token_ms" in row:
        parts.append(f"a token {row['token_ms']['p50']:.1f} ms (p95 {row['token_ms']['p95']:.1f})")
        parts.append(f"a prompt {row['prompt_ms']['p50']:.1f} ms (p95 {row['prompt_ms']['p95']:.1f})")
    if "text_ms" in row:
        parts.append(f"a text {row['text_ms']['p50']:.2f} ms (p95 {row['text_ms']['p95']:.2f})")
    for unit in ("tokens", "texts"):
        if f"{unit}_per_second" in row:
            parts.append(f"{row[f'{unit}_per_second']:,.1f} {unit}/s")
    if "peak_rss_bytes" in row:
        parts.append(f"peak {row['peak_rss_bytes'] / 1e6:.0f} MB")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
