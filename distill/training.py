"""Training a student on a corpus: what is there already, what may not be trained on, and which kind learns how.

from distill import train
train(recipe, "runs/demo")            # → runs/demo/student
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.adopted import adopt, is_dataset
from distill.card import write_model_card
from distill.finished import made_from
from synthgen import corpus, durable
from synthgen.errors import GateDenied, UserError
from synthgen.recipe import Recipe, check_recipe
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

    `run` may also be a folder of rows with `prompt` and `completion`, which are written as a corpus to `out`/corpus.

    With `train.baseline`, the same student is also trained by cross-entropy alone on the same batches, into
    student/baseline. Refuses a corpus whose audit says no, unless `override_audit`. Raises RunChanged when the
    folder was begun with another corpus or other settings.
    """
    check_recipe(recipe)
    ui = ui or UI(quiet=True)
    section = recipe.train
    if section is None:
        raise UserError("the recipe has no `train` section", "add one; prompts/README.md shows what it holds")
    if is_dataset(Path(run)):
        if out is None:
            raise UserError(f"'{run}' is a dataset, not a run", "say where the student goes: -o FOLDER")
        folder = Path(out)
        teacher = teacher or opened(recipe)
        source = folder / "corpus"
        if durable.writes():
            adopt(Path(run), recipe, source, teacher)
        while not (source / "manifest.json").exists():  # another process writes it
            time.sleep(0.1)
    else:
        source = corpus.resolve(Path(run), prefer=("curated",))
        folder = Path(out) if out else source.parent / "student"
    made = corpus.verify(source)
    # A dataset may be a part of a run: its rows are not freed by naming their folder.
    near = (source.parent, Path(run), *Path(run).resolve().parents[:2])
    overridden = check_audit(next((f for f in near if (f / "audit").is_dir()), source.parent), override_audit)
    inputs = made_from(section, made)
    if durable.writes():
        if fresh:
            _begin_anew(folder)
        durable.sweep(folder)
        corpus.claim(folder, inputs, "train")
    if (folder / "training.json").exists() and not fresh:
        ui.note(f"{folder} is trained; nothing to do")
        return folder
    if section.student.kind == "classifier":
        from distill.students.classifier import train_classifier

        facts = train_classifier(section, source, made, folder, ui)
    elif section.online and section.student.kind == "decoder":
        from distill.targets.live import train_online

        facts = train_online(recipe, section.student, source, folder, teacher, ui)
    elif section.student.kind == "encoder":
        from distill.students.encoder import train_encoder

        facts = train_encoder(recipe, source, made, folder, ui)
    elif section.student.kind == "sentence":
        from distill.students.sentence import train_sentence

        facts = train_sentence(recipe, source, folder, ui)
    else:
        from distill.students.decoder import train_decoder

        facts = train_decoder(recipe, section.student, source, folder, teacher, ui)
    if not durable.writes():
        return folder
    facts = {**facts, **inputs, "audit_overridden": overridden}
    write_model_card(folder, recipe, made, facts)
    durable.write_json(folder / "training.json", facts)  # last: it says that the student is finished
    return folder


def _begin_anew(folder: Path) -> None:
    """Remove a student, what says that it is finished first; a dataset's rows, and the teacher's states of them, do not
    depend on the training."""
    if not (folder / "corpus").exists():
        durable.remove(folder)
        return
    for path in sorted(folder.iterdir(), key=lambda p: p.name != "training.json"):
        if path.name not in ("corpus", "hidden"):
            durable.remove(path)


def opened(recipe: Recipe) -> LocalModel:
    """The recipe's teacher; its weights are loaded when they are wanted."""
    from synthgen.recipe import local_teacher
    from synthgen.teachers.transformers import LocalModel

    return LocalModel.open(local_teacher(recipe), lazy=True)


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
