"""The command `distill export`: writes a student as files that run without this package, and compares the files with
the student.

export("runs/demo", "onnx")           # → runs/demo/student/onnx, runs/demo/student/export-onnx.json
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.exporting.job import Job
from distill.outputs import PARTS, check_student, exported
from synthgen import corpus, durable, outputs
from synthgen.auditing.notices import NAME
from synthgen.cards import environment, markdown_table
from synthgen.errors import CorpusError, RunChanged, UserError, missing_extra, nearest
from synthgen.files import check_regular, is_regular, read_text
from synthgen.recipe import differences
from synthgen.results.export import Export, read_export
from synthgen.results.measures import columns
from synthgen.results.training import read_training
from synthgen.tables.formats import MODEL_FORMATS, ModelFormat
from synthgen.tables.reference import Reference, resolve
from synthgen.tables.students import KINDS
from synthgen.ui import UI

_COPIED = ("config.json", "generation_config.json", "chat_template.jinja", "special_tokens_map.json", "merges.txt")


def export(
    student: str | Path,
    to: str,
    out: str | Path | None = None,
    *,
    held_out: str | Path | None = None,
    fresh: bool = False,
    ui: UI | None = None,
) -> Export:
    """Write a student in the format `to` into the folder `out`, by default the folder `to` inside the student's folder.

    `student` is the student's folder, or the run that contains this folder. Each file of weights is compared with the
    student on the test split of `held_out`, which is a run or a corpus. By default, `held_out` is the run that contains
    the student. The result contains the comparison. `Export.passed` says whether every file passes the gate. If the
    export exists, only its card is written again, and only when the student's card has changed.

    Raises CorpusError when there is no finished student or no corpus. Raises RunChanged when `out` holds files that are
    not an export, or holds another export while `fresh` is false. Raises UserError when there are no held-out rows, a
    package is missing, the student learned canaries or cannot be written in this format, or `out` overlaps the inputs.
    """
    durable.one_process("distill export")
    ui = ui or UI(quiet=True)
    format = _format(to)
    folder = _student(Path(student))
    training = read_training(folder / "training.json")
    if training.train.get("canaries"):
        raise UserError(
            f"the student at {folder} learned canaries, which are made-up secrets for the audit of privacy",
            "train a student without train.canaries, and export that one",
        )
    kind = training.kind
    write = _writer(to, kind, folder)
    for package in format.packages:
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, format.extra)
    source = corpus.resolve(Path(held_out) if held_out else folder.parent, prefer=("curated",))
    target = Path(out) if out else folder / to
    outputs.not_around(target, folder)
    outputs.not_inside(target, [*(folder / name for name in PARTS), *outputs.stages(folder, "student")])
    outputs.apart(target, source, "student", nested=True)
    for path in (folder / "model.safetensors", *_carried(folder)):
        check_regular(path, f"make the student again: `distill train {folder.parent} --fresh`")
    check_student(folder, training.files)
    inputs = {
        "to": to,
        "student": {p.name: durable.sha256(p) for p in [folder / "model.safetensors", *_carried(folder)]},
        "corpus": durable.digest(corpus.verify(source)["files"]),
    }
    result = _there(target, inputs, fresh)
    if result:
        again = _described_again(result, target, format, folder)
        ui.note(f"{target} is already exported; {'its card was written again' if again else 'nothing to do'}")
    else:
        temporary = target.absolute().with_name(f"{durable.TEMPORARY}{target.name}")
        result = _make(Job(folder, kind, source, temporary, ui), write, target, inputs)
    durable.write_json(folder / f"export-{to}.json", result.to_dict())  # the report of the run reads this file
    return result


def _format(to: str) -> ModelFormat:
    if to not in MODEL_FORMATS:
        raise UserError(f"there is no model format '{to}'{nearest(to, MODEL_FORMATS)}", "choose one with --to")
    return MODEL_FORMATS[to]


def writers(kind: str) -> dict[str, Reference]:
    """The functions that write students of this kind, by the name of the format.

    If the kind's entry in KINDS also names a function for a format, this function is used instead of the one in
    MODEL_FORMATS.
    """
    found = {name: format.writes[kind] for name, format in MODEL_FORMATS.items() if kind in format.writes}
    return found | dict(KINDS[kind].exports) if kind in KINDS else found


def _writer(to: str, kind: str, folder: Path) -> Reference:
    """The function that writes this kind of student in the format `to`. Raises UserError when there is no such
    function.
    """
    known = writers(kind)
    if to not in known:
        others = " or ".join(f"--to {name}" for name in known)
        hint = f"export the student with {others}" if others else KINDS[kind].not_exported if kind in KINDS else ""
        raise UserError(f"{folder} is a student of kind '{kind}', which cannot be exported to {to}", hint)
    return known[to]


def _student(path: Path) -> Path:
    """The folder of a finished student. `path` is this folder, or the run that contains it. Raises CorpusError when
    there is no finished student.
    """
    if not path.exists():
        raise CorpusError(f"'{path}' does not exist", "give a run, or a student's folder")
    folder = path if (path / "training.json").exists() or not (path / "student").is_dir() else path / "student"
    if not (folder / "training.json").exists():
        what = "an unfinished student" if (folder / "inputs.json").exists() else "no trained student"
        run = folder.parent if folder.name == "student" else path
        raise CorpusError(f"there is {what} at {folder}", f"train it: `distill train {run}`")
    for name in ("model.safetensors", "config.json"):
        if not (folder / name).exists():
            raise CorpusError(
                f"the student at {folder} has no {name}",
                f"make the student again: `distill train {folder.parent} --fresh`",
            )
    return folder


def _carried(folder: Path) -> list[Path]:
    """The student's files that are copied to the export: config, tokenizer and chat template."""
    return [p for p in sorted(folder.iterdir()) if p.name in _COPIED or p.name.startswith(("tokenizer", "vocab"))]


def _there(target: Path, inputs: dict[str, Any], fresh: bool) -> Export | None:
    """Return the export in `target`, or None when `target` is empty or `fresh` is true.

    Raises RunChanged when `target` holds files that are not an export, or an export of other inputs while `fresh` is
    false.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    if not (target / "export.json").exists():
        raise RunChanged(f"{target} is not empty and is not an export", "give another folder with -o")
    outputs.check(target, exported(inputs["to"]), fresh)
    if fresh:
        return None
    found = corpus.load_json(target / "export.json")
    if changed := differences(found.get("inputs", {}) if isinstance(found, dict) else {}, inputs):
        raise RunChanged(
            f"{target} holds another export: {'; '.join(changed[:3])}",
            "give another folder with -o, or use --fresh, which replaces this export",
        )
    return read_export(target / "export.json")


def _make(job: Job, write: Reference, target: Path, inputs: dict[str, Any]) -> Export:
    """Write, compare and measure the files in a temporary folder, and then rename the folder to `target`."""
    temporary, format = job.out, MODEL_FORMATS[inputs["to"]]
    durable.new_folder(temporary)
    with durable.lock(temporary):
        try:
            for left in temporary.iterdir():  # files of an export that was killed
                if left.name != ".lock":
                    durable.remove(left)
            for path in _carried(job.student) if format.copies_config else ():
                shutil.copy(path, temporary / path.name)
            if is_regular(job.student / NAME):
                shutil.copy(job.student / NAME, temporary / NAME)
            found: Export = resolve(write)(job)
            result = replace(
                found, kind=job.kind, to=inputs["to"], title=format.title, folder=str(target), inputs=inputs
            )
            durable.write_text(temporary / "README.md", _card(result, format, job.student))
            durable.write_json(temporary / "export.json", result.to_dict())
            (temporary / ".lock").unlink()
            outputs.check(target, exported(inputs["to"]), fresh=True)  # `publish` deletes everything in `target`
            durable.publish(temporary, target.absolute())
        finally:
            durable.remove(temporary)
    return result


def _described_again(result: Export, target: Path, format: ModelFormat, student: Path) -> bool:
    """Write the card of an export again if the student's card has changed, for example after an evaluation or an audit.
    Returns whether the card was written.
    """
    card, text = target / "README.md", _card(result, format, student)
    if card.is_file() and read_text(card, "export again with --fresh") == text:
        return False
    durable.write_text(card, text)
    return True


def _card(result: Export, format: ModelFormat, student: Path) -> str:
    """The text of the export's README.md: how to run it, the comparison, and the student's model card."""
    files = {name: found.file for name, found in result.files.items()}
    table = markdown_table(columns(result.measures, result.table.values()), result.table, files)
    card = student / "README.md"
    return (
        environment()
        .get_template("export_card.md.j2")
        .render(
            result=result,
            format=format,
            table=table,
            card=_body(read_text(card, "delete it: `distill eval --fresh` writes it again")) if card.exists() else "",
        )
    )


def _body(card: str) -> str:
    """Return a model card without its YAML header, and with its headings one level lower."""
    text = card.split("---\n", 2)[-1].strip()
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.splitlines())
