"""The command: a student's files → a folder that runs without this package, and what the change costs.

export("runs/demo", "onnx")           # → runs/demo/student/onnx, runs/demo/student/export-onnx.json
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any, Literal

from synthgen import corpus, durable
from synthgen.cards import environment
from synthgen.errors import CorpusError, RunChanged, UserError, missing_extra
from synthgen.recipe import differences
from synthgen.ui import UI

Format = Literal["onnx", "gguf"]

_NEEDS = {"onnx": ("onnx", "onnx_ir", "onnxscript", "onnxruntime"), "gguf": ("gguf",)}
_NOT_YET = {"seq2seq": "an encoder with a decoder", "sentence": "a sentence encoder"}
_RUNS = {
    "seq2seq": "transformers runs its folder as it is",
    "sentence": "sentence-transformers runs its folder as it is; SentenceTransformer(…, backend='onnx') exports it",
}
_ROWS = 256  # held-out rows compared, at most
_CALIBRATE = 64  # training rows that rounding goes by
_TIMED = 8  # prompts whose speed is measured
_EXAMPLE = "What is 2 plus 3?"  # what the folder's README asks
_COPIED = ("config.json", "generation_config.json", "chat_template.jinja", "special_tokens_map.json", "merges.txt")


def export(
    student: str | Path,
    to: Format,
    out: str | Path | None = None,
    *,
    held_out: str | Path | None = None,
    fresh: bool = False,
    ui: UI | None = None,
) -> dict[str, Any]:
    """Write `student` (its folder, or its run's) as `to` into `out` (STUDENT/`to`); returns and stores what it costs.

    Each file of weights is compared with the student on the test split of `held_out` (a run or corpus; the run that
    the student lies in): result["table"] has a row for each, result["passed"] says whether all agree at 99% of
    positions or more. Raises CorpusError without a student or held-out rows, RunChanged when `out` holds another
    export and not `fresh`, UserError when a package is missing or the student cannot be had in this format.
    """
    ui = ui or UI(quiet=True)
    folder = _student(Path(student))
    facts = corpus.load_json(folder / "training.json")
    if to == "gguf" and facts["kind"] == "classifier":
        raise UserError(f"{folder} is no transformer, and GGUF holds those alone", "export it with --to onnx")
    if facts["kind"] in _NOT_YET:
        raise UserError(f"{folder} is {_NOT_YET[facts['kind']]}, which is not exported to {to}", _RUNS[facts["kind"]])
    for package in _NEEDS[to]:
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "export")
    source = corpus.resolve(Path(held_out) if held_out else folder.parent, prefer=("curated",))
    target = Path(out) if out else folder / to
    inputs = {
        "to": to,
        "student": {p.name: durable.sha256(p) for p in [folder / "model.safetensors", *_carried(folder)]},
        "corpus": durable.digest(corpus.verify(source)["files"]),
    }
    result = _there(target, inputs, fresh)
    if result:
        ui.note(f"{target} is exported; nothing to do")
    else:
        result = _make(folder, facts, source, target, inputs, ui)
    durable.write_json(folder / f"export-{to}.json", result)  # for the run's page
    return result


def _student(path: Path) -> Path:
    """The folder of a finished student."""
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
                f"the student at {folder} has no {name}", f"make it again: `distill train {folder.parent} --fresh`"
            )
    return folder


def _carried(folder: Path) -> list[Path]:
    """The student's files that go along: configuration, tokenizer, template."""
    return [p for p in sorted(folder.iterdir()) if p.name in _COPIED or p.name.startswith(("tokenizer", "vocab"))]


def _there(target: Path, inputs: dict[str, Any], fresh: bool) -> dict[str, Any] | None:
    """What an export of the same inputs in `target` found. Raises RunChanged when something else is there."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    if not (target / "export.json").exists():
        raise RunChanged(f"{target} is not empty and holds no export", "give another folder with -o")
    found = dict(corpus.load_json(target / "export.json"))
    if fresh:
        return None
    if changed := differences(found.get("inputs", {}), inputs):
        raise RunChanged(
            f"{target} holds another export: {'; '.join(changed[:3])}",
            "give another folder with -o, or --fresh to replace it",
        )
    return found


def _make(
    folder: Path, facts: dict[str, Any], source: Path, target: Path, inputs: dict[str, Any], ui: UI
) -> dict[str, Any]:
    """Write, compare and measure under a temporary name; the whole folder appears at once."""
    temporary = target.absolute().with_name(f"{durable.TEMPORARY}{target.name}")
    with durable.lock(temporary):
        try:
            for left in temporary.iterdir():  # of an export that was killed
                if left.name != ".lock":
                    durable.remove(left)
            for path in _carried(folder) if inputs["to"] == "onnx" else ():  # a GGUF file holds all that itself
                shutil.copy(path, temporary / path.name)
            if facts["kind"] == "classifier":
                from distill.exporting.classifier import write_classifier

                found = write_classifier(folder, source, temporary, ui)
            elif facts["kind"] == "encoder":
                from distill.exporting.encoder import write_encoder

                found = write_encoder(folder, source, temporary, inputs["to"], _CALIBRATE, ui)
            else:
                found = _decoder(folder, source, temporary, inputs["to"], ui)
            table = found["table"]
            result = {
                "inputs": inputs,
                "kind": facts["kind"],
                "folder": str(target),
                "least_agreement": found["least_agreement"],
                "passed": all(row.get("agreement", 1.0) >= found["least_agreement"] for row in table.values()),
                **found,
            }
            card = (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").exists() else ""
            text = (
                environment()
                .get_template("export_card.md.j2")
                .render(**result, to=inputs["to"], card=_body(card), example=_EXAMPLE)
            )
            durable.write_text(temporary / "README.md", text)
            durable.write_json(temporary / "export.json", result)
            (temporary / ".lock").unlink()
            durable.publish(temporary, target.absolute())
        finally:
            durable.remove(temporary)
    return result


def _body(card: str) -> str:
    """A model card without its header, its headings a level down."""
    text = card.split("---\n", 2)[-1].strip()
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.splitlines())


def _decoder(folder: Path, source: Path, temporary: Path, to: str, ui: UI) -> dict[str, Any]:
    """Both files of a decoder, compared and measured."""
    from distill.exporting import parity
    from distill.exporting.int8 import quantize
    from distill.exporting.running import open_model
    from synthgen.tables.engines import TeacherSection
    from synthgen.teachers.transformers import LocalModel

    student = LocalModel.open(TeacherSection(model=str(folder.resolve()), device="cpu"))
    student.model.set_attn_implementation(
        "sdpa"
    )  # the exporter knows it, which it does not the one with shared prefixes
    if to == "gguf":
        from distill.exporting.gguf import check, write_decoder

        check(student)
        runtime = "llama.cpp" if importlib.util.find_spec("llama_cpp") else "transformers"
    else:
        from distill.exporting.onnx import write_decoder

        runtime = "onnxruntime"
    pairs = _pairs(source, "test", student, _ROWS)
    if not pairs:
        raise UserError(
            f"{source} has no held-out rows to compare on", "set split.test in the recipe, or name a corpus"
        )
    ui.note(f"export: weights of eight bits, rounded by {_CALIBRATE} training rows at most")
    weights = quantize(student.model, [p + c for p, c in _pairs(source, "train", student, _CALIBRATE)])
    ui.note(f"export: {to}")
    files = write_decoder(student, weights, temporary)
    table: dict[str, dict[str, Any]] = {}
    with ui.progress("compare", len(files) * len(pairs), "rows") as bar:
        for name, file in files.items():
            model = open_model(runtime, temporary / file)
            table[name] = {"runtime": runtime, "file": file, **parity.agreement(student.model, model, pairs, bar)}
    del model
    table = {"student": {"runtime": "torch", "file": "model.safetensors"}, **table}
    prompts = list({tuple(p): p for p, _ in pairs}.values())[:_TIMED]
    parity.weigh(table, folder, temporary, {"prompts": prompts}, runtime != "transformers", ui)
    return {"rows": len(pairs), "least_agreement": parity.LEAST, "table": table}


def _pairs(source: Path, split: str, student: Any, most: int) -> list[tuple[list[int], list[int]]]:
    """(prompt, completion) in the student's tokens, of the first rows of a split that are not too long."""
    from distill.data import rows
    from distill.exporting.running import CONTEXT

    pairs = [(student.render(r.prompt), list(r.token_ids or ())) for r, _ in rows(source, split)[:most]]
    return [(p, c) for p, c in pairs if c and len(p + c) < CONTEXT - 32 and student.too_long(p, len(c)) is None]
