"""No command deletes or overwrites a file that it did not make. --fresh still deletes files that the command made."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import transformers
from support.commands import curated_files, warm
from support.small import small_task
from test_cli import files, mistake

import synthgen
from distill.exporting.make import export
from distill.outputs import exported, trained
from synthgen import outputs
from synthgen.errors import RunChanged, UserError

COMMANDS = {
    "curate": ["synthgen", "curate", "RUN", "-o", "DIR"],
    "train": ["distill", "train", "RUN", "-o", "DIR"],
    "generate": ["synthgen", "generate", "RECIPE", "-o", "PARENT"],
    "run": ["synthgen", "run", "RECIPE", "-o", "PARENT"],
}
OWN = {  # a user's files; some are named like files of a corpus or a student
    "one text": {"thesis.txt": "years of work"},
    "a project": {"src/main.py": "print()", "README.md": "# Mine", ".git/config": "[core]"},
    "a dataset": {"README.md": "# Mine", "data/train-00000.parquet": "rows", "manifest.json": "{}"},
    "a model": {"config.json": "{}", "model.safetensors": "weights", "inputs.json": '{"mine": 1}'},
    "a temporary file": {".tmp-notes": "not saved yet"},
}
TEXT = "a person's own file"
REFUSED = r"is an input of this command|which is an input of this command|is not an output folder of this command"


@pytest.fixture
def run(tmp_path, finished) -> Path:
    return Path(shutil.copytree(finished.run, tmp_path / "run"))


def write(folder: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def given(command: list, run: Path, recipe: Path, folder: Path) -> list:
    places = {"RUN": run, "RECIPE": recipe, "DIR": folder, "PARENT": folder.parent}
    return [places.get(part, part) for part in command]


def every(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder, including lock files."""
    paths = [folder / name for name in outputs.files_in(folder)]
    return {str(p): str(p.readlink()) if p.is_symlink() else p.read_bytes() for p in paths}


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
@pytest.mark.parametrize("own", list(OWN))
@pytest.mark.parametrize("name", ["curate", "train"])
def test_a_persons_folder_is_refused_and_nothing_in_it_is_touched(run, finished, tmp_path, name, own, fresh):
    folder = write(tmp_path / "own", OWN[own])
    before = every(tmp_path)
    done = warm(*given(COMMANDS[name], run, finished.recipe, folder), *fresh)
    mistake(done, str(folder), next(iter(sorted(OWN[own]))).split("/")[0], "did not make")
    assert every(tmp_path) == before


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_persons_folder_is_no_run(run, finished, tmp_path, fresh):
    """The folder has a file recipe.yaml, or a folder with the name of a stage's folder. Both are refused."""
    task = tmp_path / "task"
    recipe = small_task(task, finished.teacher, seeds=9)
    for folder, said in ((task, "was not written by a run"), (write(tmp_path / "own", OWN["a project"]), "not a run")):
        before = every(tmp_path)
        for name in ("generate", "run"):
            mistake(warm(*given(COMMANDS[name], run, recipe, folder / "generated"), *fresh), said)
        assert every(tmp_path) == before
    shutil.rmtree(run / "generated")
    write(run / "generated", OWN["one text"])
    before = files(run)
    done = warm(*given(COMMANDS["generate"], run, finished.recipe, run / "generated"), *fresh)
    mistake(done, str(run / "generated"), "thesis.txt")
    assert files(run) == before


@pytest.mark.parametrize(("name", "stage"), [("generate", "generated"), ("curate", "curated"), ("train", "student")])
def test_a_file_put_into_our_folder_is_never_deleted(run, finished, name, stage):
    command = given(COMMANDS[name], run, finished.recipe, run / stage)
    put = ["mine.txt", ".tmp-mine/a", "data/mine.parquet", "data/backup/train-00000.parquet"]
    write(run / stage, dict.fromkeys(put, TEXT))
    before = files(run)
    mistake(warm(*command, "--fresh"), *put[:3], "and more, which", "did not make; nothing is deleted")
    assert warm(*command).code == 0
    assert files(run) == before
    for path in put:
        (run / stage / path).unlink()
        del before[f"{stage}/{path}"]
    assert warm(*command, "--fresh").code == 0
    assert files(run).keys() - before.keys() == set()
    same = [
        path
        for path in before
        if "evaluation" not in path and not path.endswith(("README.md", "NOTICE.md", "recipe.yaml"))
    ]
    assert [path for path in same if files(run).get(path) != before[path]] == []


@pytest.mark.parametrize(("name", "stage"), [("generate", "generated"), ("curate", "curated")])
def test_repair_deletes_no_copy_of_a_shard(run, finished, name, stage):
    (shard, *_) = sorted((run / stage / "data").glob("*.parquet"))
    copy = run / stage / "copies" / shard.name
    copy.parent.mkdir()
    shutil.copy(shard, copy)
    before = files(run)
    shard.write_bytes(shard.read_bytes()[:-9])
    done = warm(*given(COMMANDS[name], run, finished.recipe, run / stage), "--repair")
    assert done.code == 0, done
    assert files(run) == before
    assert "copies/" not in (run / stage / "manifest.json").read_text()


HALF = {
    "nothing": {},
    "a lock": {".lock": "12"},
    "the first write": {".lock": "12", ".tmp-inputs.json": "{"},
    "inputs": {".lock": "12", "inputs.json": None},
    "damaged inputs": {"inputs.json": '{"trai'},
    "shards on their way": {"inputs.json": None, "data/.tmp-train-00000.parquet": "PAR1"},
    "half deleted": {"inputs.json": None, ".tmp-gone-data/train-00000.parquet": "PAR1"},
    "an older deletion": {"../.tmp-gone-new/data/train-00000.parquet": "PAR1"},
    "a model on its way": {"inputs.json": None, ".tmp-model-7/config.json": "{}"},
}


@pytest.mark.parametrize(
    ("name", "stage", "half"),
    [
        *(("curate", "curated", half) for half in HALF if "model" not in half),
        *(("train", "student", half) for half in ("the first write", "damaged inputs", "a model on its way")),
    ],
)
def test_fresh_begins_anew_what_a_killed_process_left(run, finished, tmp_path, name, stage, half):
    inputs = (run / stage / "inputs.json").read_text()
    folder = tmp_path / "new"
    write(folder, {path: inputs if text is None else text for path, text in HALF[half].items()})
    done = warm(*given(COMMANDS[name], run, finished.recipe, folder), "--fresh")
    assert done.code == 0, done
    found, expected = files(folder), files(run / stage)
    assert found.keys() - expected.keys() == set()
    assert expected.keys() - found.keys() <= {"evaluation.json", "NOTICE.md"}
    assert not list(tmp_path.rglob(".tmp-*"))


def test_fresh_on_a_folder_of_other_inputs_leaves_nothing_of_them(run, finished):
    old = write(run / "curated", {"rejected/train-00099.parquet": "older", "data/train-00099.parquet": "older"})
    assert warm("synthgen", "curate", run, "--fresh").code == 0
    assert curated_files(old) == curated_files(finished.run / "curated")


def test_an_audit_is_not_written_into_a_persons_folder(run, finished, tmp_path):
    recipe = synthgen.load_recipe(finished.recipe)
    folder = write(tmp_path / "own", {"report.md": "# My report", "notes.txt": TEXT})
    with pytest.raises(RunChanged, match=r"notes\.txt, report\.md, which `synthgen audit` did not make"):
        synthgen.audit(recipe, run, out=folder)
    assert files(folder) == {"report.md": b"# My report", "notes.txt": TEXT.encode()}
    first = synthgen.audit(recipe, run, out=tmp_path / "audit")
    (tmp_path / "audit" / "report.json").unlink()  # the process was killed before the file was written
    assert synthgen.audit(recipe, run, out=tmp_path / "audit") == first


def test_a_file_beside_an_export_is_not_deleted(run, tmp_path):
    target = write(tmp_path / "edge", {"export.json": '{"usage": "", "inputs": {}}', "notes.txt": TEXT})
    with pytest.raises(RunChanged, match=r"holds notes\.txt, which `distill export` did not make; nothing is deleted"):
        export(run, "onnx", target, fresh=True)
    write(tmp_path / "mine", {"export.json": '{"shop": "orders of 2024"}'})
    for fresh in (False, True):
        with pytest.raises(RunChanged, match=r"holds export\.json, which `distill export` did not make"):
            export(run, "onnx", tmp_path / "mine", fresh=fresh)
    assert (target / "notes.txt").read_text() == TEXT


def test_a_link_is_not_followed(run, finished, tmp_path):
    """A folder of the run is a link to a folder on another disk. The files behind the link are not deleted."""
    away = shutil.move(run / "curated" / "data", tmp_path / "away")
    (run / "curated" / "data").symlink_to(away)
    before = files(tmp_path / "away")
    mistake(warm("synthgen", "curate", run, "--fresh"), "holds data, which")
    assert files(tmp_path / "away") == before
    whole = Path(shutil.move(run / "generated", tmp_path / "generated"))  # a stage's folder may be a link
    (run / "generated").symlink_to(whole)
    done = warm(*given(COMMANDS["generate"], run, finished.recipe, run / "generated"), "--fresh")
    assert done.code == 0, done
    assert (run / "generated").is_symlink()
    assert files(whole) == files(finished.run / "generated")


OVERLAPS = {  # for each command: output folders that overlap with an input or with another stage's folder
    "curate": ["", "..", "generated", "generated/x", "curated/x", "student", "student/x", "audit", "hidden/x", "link"],
    "train": ["", "..", "curated", "curated/x", "generated/x", "audit", "hidden", "link"],
    "export": ["", "..", "curated/x", "generated/x", "audit/x", "student", "student/baseline/x", "student/corpus"],
}


@pytest.mark.parametrize("place", OVERLAPS["curate"])
@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_curation_into_its_source_is_refused(run, tmp_path, place, fresh):
    (run / "link").symlink_to(run / "generated")
    before = every(tmp_path)
    done = warm("synthgen", "curate", run, "-o", run / place, *fresh)
    assert re.search(REFUSED, mistake(done).err), done
    assert every(tmp_path) == before
    assert not (run / "generated" / "x").exists()


@pytest.mark.parametrize("place", OVERLAPS["train"])
def test_training_into_its_source_is_refused(run, tmp_path, place):
    (run / "link").symlink_to(run / "curated")
    before = every(tmp_path)
    done = warm("distill", "train", run, "-o", run / place, "--fresh")
    assert re.search(REFUSED, mistake(done).err), done
    assert every(tmp_path) == before


def test_a_link_to_the_source_is_the_source(run, tmp_path):
    """The run's corpus is a link to a folder in another place. An output folder must not overlap with the link or with
    the folder behind it.
    """
    away = Path(shutil.move(run / "generated", tmp_path / "away" / "generated"))
    (run / "generated").symlink_to(away)
    for folder in (run, run / "generated", away, away / "x", away.parent, run / "student"):
        with pytest.raises(UserError, match=REFUSED):
            outputs.apart(folder, run / "generated", "curated")
    for folder in (run / "curated", run / "strict", tmp_path / "new", away.parent / "new"):
        outputs.apart(folder, run / "generated", "curated")


def test_a_dataset_is_no_place_for_its_student(run, finished, tmp_path):
    rows = write(tmp_path / "rows", {"train.jsonl": '{"prompt": "1?", "completion": "2"}\n'})
    before = every(tmp_path)
    for source, folder in ((rows, rows), (rows, rows / "student"), (rows, tmp_path), (rows / "train.jsonl", rows)):
        done = warm("distill", "train", source, "--recipe", finished.recipe, "-o", folder)
        assert re.search(REFUSED, mistake(done).err), done
    assert every(tmp_path) == before


def test_audit_and_export_into_their_sources_are_refused(run, finished, tmp_path):
    recipe = synthgen.load_recipe(finished.recipe)
    before = every(tmp_path)
    for place in ("", "..", "curated", "curated/x", "generated", "student/x", "audit/x"):
        with pytest.raises(UserError, match=REFUSED):
            synthgen.audit(recipe, run, out=run / place)
    for place in OVERLAPS["export"]:
        with pytest.raises(UserError, match=REFUSED):
            export(run, "onnx", run / place, fresh=True)
    assert every(tmp_path) == before


def test_a_new_folder_in_the_run_is_a_place_for_another_corpus_and_student(run, finished, tmp_path, monkeypatch):
    assert warm("synthgen", "curate", run, "-o", run / "strict").code == 0
    assert curated_files(run / "strict") == curated_files(run / "curated")
    assert warm("synthgen", "audit", run / "strict").code == 0
    assert warm("distill", "train", run / "strict", "-o", run / "small").code == 0
    assert (run / "small" / "model.safetensors").read_bytes() == (run / "student" / "model.safetensors").read_bytes()
    monkeypatch.chdir(run / "generated")
    assert warm("synthgen", "curate", ".", "--recipe", "../recipe.yaml").code == 0
    assert files(run / "generated") == files(finished.run / "generated")


def test_every_file_of_a_run_is_known(finished):
    tables = {
        "generated": outputs.GENERATED,
        "curated": outputs.CURATED,
        "audit": outputs.AUDITED,
        "student": trained(),
    }
    for stage, table in tables.items():
        assert [path for path in outputs.files_in(finished.run / stage) if not table.names(path)] == []


def test_every_file_that_a_tokenizer_saves_is_known():
    """Reads the file names of all tokenizers from the source of the installed transformers."""
    named = set()
    for source in Path(transformers.__file__).parent.glob("models/*/tokenization_*.py"):
        for table in re.findall(r"VOCAB_FILES_NAMES\w* = \{([^}]*)\}", source.read_text(encoding="utf-8")):
            named |= set(re.findall(r': *"([^"]+)"', table))
    assert {"vocab.txt", "merges.txt", "tokenizer.json"} <= named
    assert sorted(name for name in named if not (trained().names(name) and exported("onnx").names(name))) == []


def test_names_of_files_of_others_are_not_ours():
    for name in ("notes.txt", "data/rows.parquet", "data/train-0.parquet", ".tmp-notes", "x/.lock", "inputs.json.bak"):
        assert not outputs.CURATED.names(name), name
        assert not trained().names(name), name
    assert json.dumps(sorted(filter(trained().names, ("onnx/notes.txt", "hidden/a.parquet", "curve/a")))) == "[]"
