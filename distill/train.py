"""Training a student on a corpus: what is there already, what may not be trained on, and which kind learns how.

from distill import train
train(recipe, "runs/demo")            # → runs/demo/student
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.card import write_model_card
from distill.finished import made_from
from synthgen import corpus, durable
from synthgen.errors import GateDenied, UserError
from synthgen.recipe import Recipe
from synthgen.ui import UI

if TYPE_CHECKING:
    from synthgen.teachers.transformers import LocalModel


def train(
    recipe: Recipe,
    run: str | Path,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    override_audit: bool = False,
    teacher: LocalModel | None = None,
    ui: UI | None = None,
) -> Path:
    """Train the recipe's student on `run`/curated; returns the student's folder (`run`/student).

    With `train.baseline`, the same student is also trained by cross-entropy alone on the same batches, into
    student/baseline. Refuses a corpus whose audit says no, unless `override_audit`. Raises RunChanged when the
    folder was begun with another corpus or other settings.
    """
    ui = ui or UI(quiet=True)
    section = recipe.train
    if section is None:
        raise UserError("the recipe has no `train` section", "add one; prompts/README.md shows what it holds")
    source = corpus.resolve(Path(run), prefer=("curated",))
    folder = Path(out) if out else source.parent / "student"
    made = corpus.verify(source)
    overridden = check_audit(source.parent, override_audit)
    inputs = made_from(section, made)
    alone = os.environ.get("RANK", "0") == "0"  # of several processes (`accelerate launch`) one writes
    if alone:
        if fresh:
            durable.remove(folder)
        durable.sweep(folder)
        corpus.claim(folder, inputs, "train")
    if (folder / "training.json").exists() and not fresh:
        ui.note(f"{folder} is trained; nothing to do")
        return folder
    if section.student.kind == "classifier":
        from distill.classifier import train_classifier

        facts = train_classifier(section, source, made, folder, ui)
    elif section.student.kind == "encoder":
        from distill.encoder import train_encoder

        facts = train_encoder(recipe, source, made, folder, ui)
    elif section.student.kind == "sentence":
        from distill.sentence import train_sentence

        facts = train_sentence(recipe, source, folder, ui)
    else:
        from distill.decoder import train_decoder

        facts = train_decoder(recipe, section.student, source, folder, teacher, ui)
    if not alone:
        return folder
    facts = {**facts, **inputs, "audit_overridden": overridden}
    write_model_card(folder, recipe, made, facts)
    durable.write_json(folder / "training.json", facts)  # last: it says that the student is finished
    return folder


def check_audit(run: Path, override: bool) -> bool:
    """Whether the run's audit said no and is overridden (no audit is no denial). Raises GateDenied if it is not."""
    report = run / "audit" / "report.json"
    audit: dict[str, Any] = corpus.load_json(report) if report.exists() else {"passed": True}
    if not audit["passed"] and not override:
        raise GateDenied(
            f"the audit of {run} says {audit['status']} for {audit['intent']['use']} use",
            f"read {run}/audit/report.md; --override-audit trains all the same, and the model card will say so",
        )
    return not audit["passed"]
