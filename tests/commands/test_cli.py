"""Runs commands as real processes, and checks output, exit codes, and that a user's mistake destroys nothing.

After a mistake a command prints one line and one hint to stderr, and nothing to stdout. The command exits with 2 and
leaves every file as it was. Once the mistake is corrected, the same command runs to its end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from support.commands import ENVIRONMENT, Done, cold, curated_files, files, mistake, start, warm
from support.small import small_task

from synthgen import durable


def edit(recipe: Path, **sections) -> None:
    """Replaces or adds top-level keys of a recipe."""
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), **sections}, sort_keys=False))


# Mistakes in the recipe and the seeds


def unknown_key(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("max_new_tokens", "max_new_token"))


def wrong_type(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("num_generations: 2", "num_generations: a few"))


def wrong_value(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("test: 0.25", "test: 1.25"))


def broken_yaml(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("split:", "split: {"))


def no_yaml(recipe: Path) -> None:
    recipe.write_bytes(b"PAR1\xff\xfe\x00")


def no_seed_file(recipe: Path) -> None:
    (recipe.parent / "seeds.jsonl").unlink()


def no_seeds(recipe: Path) -> None:
    (recipe.parent / "seeds.jsonl").write_text("")


def half_a_line(recipe: Path) -> None:
    path = recipe.parent / "seeds.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:6], lines[6][:20] + "\n", *lines[7:]]))


def no_such_field(recipe: Path) -> None:
    (recipe.parent / "user.j2").write_text("{{ question }} {{ context }}\n")


def no_template(recipe: Path) -> None:
    (recipe.parent / "user.j2").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (unknown_key, ["recipe.yaml, line ", "'generate.max_new_token'", "did you mean 'max_new_tokens'?"]),
        (wrong_type, ["recipe.yaml, line ", "'generate.num_generations'", "'a few'", "integer"]),
        (wrong_value, ["recipe.yaml, line ", "'split.test'", "1.25", "less than or equal to 1"]),
        (broken_yaml, ["recipe.yaml, line ", "not valid YAML"]),
        (no_yaml, ["recipe.yaml", "not UTF-8"]),
        (no_seed_file, ["seeds.jsonl", "does not exist"]),
        (no_seeds, ["seeds.jsonl", "no seeds"]),
        (half_a_line, ["seeds.jsonl, line 7"]),
        (no_such_field, ["seeds.jsonl, line 1", "sums/user.j2", "'context' is undefined", "answer, id, question"]),
        (no_template, ["no user.j2"]),
    ],
)
def test_a_mistake_in_recipe_or_seeds(recipe, run, spoil, words):
    spoil(recipe)
    before = files(run)
    mistake(cold("synthgen", "generate", recipe, "-o", run), *words)
    assert files(run) == before
    mistake(warm("synthgen", "plan", recipe), *words)


def test_a_recipe_that_is_not_there_names_the_shipped_ones(tmp_path):
    done = mistake(cold("synthgen", "run", "resoning", "-o", tmp_path / "run"), "no recipe at 'resoning'")
    assert all(f" {name}," in done.err for name in ("classify", "instruct", "reasoning"))
    assert not (tmp_path / "run").exists()


def test_a_mended_mistake_does_not_spoil_the_folder(recipe, tmp_path, finished):
    """A wrong teacher is detected only after the run's folder was created. The same folder must work with the right
    teacher.
    """
    run = tmp_path / "new"
    right = yaml.safe_load(recipe.read_text())["teacher"]
    bare = shutil.copytree(finished.teacher, tmp_path / "bare")
    for path in bare.glob("tokenizer*"):
        path.unlink()
    for model, words in ((tmp_path / "nowhere", ["nowhere", "does not exist"]), (bare, ["bare", "no tokenizer"])):
        edit(recipe, teacher={**right, "model": str(model)})
        mistake(warm("synthgen", "generate", recipe, "-o", run), *words)
    edit(recipe, teacher=right)
    assert warm("synthgen", "generate", recipe, "-o", run).code == 0
    assert files(run / "generated") == files(finished.run / "generated")


# Folders of the wrong kind


def test_a_run_of_another_recipe(recipe, run):
    edit(recipe, generate={"num_generations": 2, "max_new_tokens": 5, "shard_size": 8, "temperature": 0.5})
    before = files(run)
    done = mistake(cold("synthgen", "generate", recipe, "-o", run), "generate.temperature: 0.0 → 0.5")
    assert "-o" in done.err
    assert "--fresh" in done.err
    mistake(warm("synthgen", "run", recipe, "-o", run), "generate.temperature: 0.0 → 0.5")
    assert files(run) == before


def test_workers_of_a_command_that_has_none(recipe, tmp_path):
    words = mistake(warm("synthgen", "generate", recipe, "-o", tmp_path / "run", "--workers", "2"), "--workers needs")
    assert "--executor ray" in words.err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run(recipe, tmp_path):
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "letter.txt").write_text("Dear Ada")
    mistake(cold("synthgen", "generate", recipe, "-o", folder), "letters", "is not a run")
    for command in (["synthgen", "show"], ["synthgen", "report"]):
        mistake(warm(*command, folder), "letters", "corpus")
    for command in (["synthgen", "curate"], ["synthgen", "audit"], ["distill", "train"], ["distill", "eval"]):
        mistake(warm(*command, folder), "letters", "no recipe.yaml")
        mistake(warm(*command, folder, "--recipe", recipe), "letters")
        mistake(warm(*command, tmp_path / "nowhere", "--recipe", recipe), "nowhere", "does not exist")
    mistake(warm("synthgen", "generate", recipe, "-o", folder / "letter.txt" / "run"), "letter.txt")
    assert set(files(folder)) == {"letter.txt"}
    assert not (tmp_path / "nowhere").exists()


def test_a_second_process_is_kept_out(recipe, run):
    before = files(run)
    with durable.lock(run):
        for command in (["generate", recipe, "-o", run], ["run", recipe, "-o", run], ["curate", run]):
            mistake(warm("synthgen", *command), "another process", f"pid {os.getpid()}")
        mistake(warm("distill", "train", run), "another process")
    assert files(run) == before


# Signals and full disks


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_goes_on(recipe, tmp_path, finished, number):
    run = tmp_path / "new"
    command = ["synthgen", "generate", recipe, "-o", run]
    under_way = start(*command)
    first = run / "generated" / "data" / "train-00000.parquet"
    under_way.wait_for(first)
    os.kill(under_way.pid, number)
    mistake(under_way.wait(), "interrupted", code=130)
    assert not (run / "generated" / "manifest.json").exists(), "the command finished before the signal came"
    kept = first.stat().st_mtime_ns
    assert warm(*command).code == 0
    assert first.stat().st_mtime_ns == kept
    assert files(run / "generated") == files(finished.run / "generated")


def test_an_interruption_while_an_object_is_deleted_is_not_lost():
    code = (
        "import click, signal, time\n"
        "from synthgen.cli import report_errors\n"
        "class Deleted:\n"
        "    def __del__(self):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "@click.command()\n"
        "@report_errors\n"
        "def command(ui):\n"
        "    Deleted()\n"
        "    time.sleep(20)\n"
        "command()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
    assert (done.returncode, "interrupted" in done.stderr) == (130, True)


@contextmanager
def small_disk(folder: Path, size: str):
    """Mounts a file system of `size` on `folder`. Yields a function that makes the file system larger."""
    folder.mkdir()

    def mount(options: str) -> None:
        process = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if process.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {process.stderr.strip()}")

    mount(f"size={size}")
    try:
        yield lambda larger: mount(f"remount,size={larger}")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_nothing(recipe, tmp_path, finished):
    if not shutil.which("mount"):
        pytest.skip("this system has no `mount`")
    with small_disk(tmp_path / "disk", "100k") as enlarge:
        run = tmp_path / "disk" / "run"
        command = ["synthgen", "generate", recipe, "-o", run]
        mistake(warm(*command), "the disk is full", "generated/")
        times = {path: path.stat().st_mtime_ns for path in (run / "generated" / "data").glob("[!.]*.parquet")}
        assert times, "no shard fits on the disk"
        assert not list(run.rglob(f"{durable.TEMPORARY}*"))
        enlarge("8m")
        assert warm(*command).code == 0
        assert {path: path.stat().st_mtime_ns for path in times} == times
        assert files(run / "generated") == files(finished.run / "generated")


def test_a_bug_of_ours_says_how_to_report_it(recipe, tmp_path):
    program = tmp_path / "broken.py"
    program.write_text(
        "import importlib, synthgen.cli\n"
        "def broken(*args, **named): raise ZeroDivisionError('planted\\nin two lines')\n"
        "importlib.import_module('synthgen.generation.plan').read_inputs = broken\n"
        "synthgen.cli.main()\n"
    )

    def broken(**env: str) -> Done:
        process = subprocess.run(
            [sys.executable, program, "plan", recipe], env={**os.environ, **env}, capture_output=True, text=True
        )
        return Done(process.returncode, process.stdout, process.stderr)

    done = mistake(broken(), "a bug in synthgen", "ZeroDivisionError: planted", code=70)
    assert "please report it" in done.err
    done = broken(SYNTHGEN_DEBUG="1")
    assert done.code == 70
    assert "Traceback" in done.err


def test_a_reader_that_leaves_is_no_mistake(run):
    """A reader may close the pipe early, as in `synthgen show … | head -1`."""
    command = [sys.executable, "-m", "synthgen.cli", "show", str(run), "--rejected", "-n", "1000", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **ENVIRONMENT}
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


# Gates


@pytest.mark.parametrize(
    ("seeds", "teacher", "status"),
    [("CC-BY-NC-4.0", "Apache-2.0", "DENY"), ("CC0-1.0", "unknown", "UNKNOWN")],
)
def test_an_audit_that_does_not_pass_stops_the_run(tmp_path, finished, seeds, teacher, status):
    recipe = small_task(tmp_path / "task", finished.teacher, seeds=4)
    keys = yaml.safe_load(recipe.read_text())
    edit(
        recipe,
        seeds=[{**keys["seeds"][0], "license": seeds}],
        teacher={**keys["teacher"], "license": teacher},
        split={"test": 0.0},
    )
    run = tmp_path / "run"
    done = mistake(warm("synthgen", "run", recipe, "-o", run), "audit", status, "commercial", code=1)
    assert "audit/report.md" in done.err
    assert (run / "report.html").exists()
    assert not (run / "student").exists()
    done = warm("synthgen", "audit", run)
    assert done.code == 1
    assert status in done.out
    report = json.loads(warm("synthgen", "audit", run, "--json").out)
    assert (report["status"], report["passed"]) == (status, False)
    mistake(warm("distill", "train", run), "audit", status, code=1)
    assert warm("distill", "train", run, "--override-audit").code == 0
    done = warm("synthgen", "audit", run, "--use", "research")
    assert done.code == (0 if status == "DENY" else 1), done


# Repeated commands, JSON, quiet, environment


def test_every_command_gives_one_json_document_and_nothing_else(finished):
    for verb, done in finished.done.items():
        assert isinstance(json.loads(done.out), dict), verb
        assert done.out.count("\n") == 1, verb
        assert done.err == "", (verb, done.err)
    results = {verb: json.loads(done.out) for verb, done in finished.done.items()}
    assert results["plan"]["seeds"] == 24
    assert results["generate"]["counts"]["rows"] == 48
    assert (results["curate"]["counts"]["kept"], results["curate"]["counts"]["rejected"]) == (24, 24)
    assert results["audit"]["status"] == "ALLOW"
    assert results["show"]["counts"] == results["curate"]["counts"]
    assert Path(results["train"]["folder"]).samefile(finished.run / "student")
    assert results["eval"]["table"]["distilled"]["kl"]["mean"] > 0
    assert Path(results["report"]["report"]).read_text().startswith("<!doctype html>")


def test_run_again_does_no_work(run, recipe):
    states = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in run.rglob("*.parquet")}
    states |= {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (run / "student").glob("model.safetensors")}
    done = warm("synthgen", "run", recipe, "-o", run)
    assert done.code == 0, done
    assert "nothing to do" in done.out
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in states} == states
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["generate", "curate", "audit", "train", "evaluate", "report"]
    assert not any(line["worked"] for line in lines)
    done = warm("synthgen", "run", run / "recipe.yaml", "-o", run, "--json", "-q")
    assert json.loads(done.out)["worked"] is False
    assert done.err == ""


def test_run_does_all_there_is_to_do(recipe, tmp_path, finished):
    """The recipe of the new run has no section `train`, so only the generated and the curated rows are compared with
    `finished`.
    """
    edit(recipe, train=None)
    done = warm("synthgen", "run", recipe, "-o", tmp_path / "new", "--json", "-q")
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)
    assert result["worked"] is True
    assert result["audit"] == "ALLOW"
    assert files(tmp_path / "new" / "generated") == files(finished.run / "generated")
    assert curated_files(tmp_path / "new" / "curated") == curated_files(finished.run / "curated")
    assert (tmp_path / "new" / "report.html").exists()


def test_the_resolved_recipe_alone_repeats_the_run(tmp_path, finished):
    alone = tmp_path / "elsewhere" / "recipe.yaml"
    alone.parent.mkdir()
    shutil.copy(finished.run / "recipe.yaml", alone)
    assert warm("synthgen", "generate", alone, "-o", tmp_path / "run").code == 0
    assert files(tmp_path / "run" / "generated") == files(finished.run / "generated")
    assert (tmp_path / "run" / "recipe.yaml").read_bytes() == alone.read_bytes()


def test_people_get_results_on_stdout_and_the_next_command_on_stderr(run, recipe, finished):
    for command, expected, following in (
        (["synthgen", "plan", recipe], "seeds: 24", "synthgen run"),
        (["synthgen", "generate", recipe, "-o", run], "48 rows", "synthgen curate"),
        (["synthgen", "curate", run], "kept 24, rejected 24", "synthgen audit"),
        (["synthgen", "audit", run], "ALLOW for commercial use", "distill train"),
        (["distill", "train", run], "student", "distill eval"),
        (["distill", "eval", run], "held-out completions the distilled student", "synthgen report"),
    ):
        done = warm(*command)
        assert done.code == 0, done
        assert expected in done.out, done
        assert re.search(f"^Next: .*{following}", done.err, re.MULTILINE), done
        quiet = warm(*command, "--quiet")
        assert (quiet.out, quiet.err) == (done.out, "")


def test_show(run):
    done = warm("synthgen", "show", run, "-n", "2", "--rejected")
    assert "kept 24, rejected 24" in done.out
    assert done.out.count("── ") == 2
    assert done.out.count("rejected by duplicates: same as ") == 2
    shown = json.loads(warm("synthgen", "show", run / "generated", "-n", "3", "--split", "test", "--json").out)
    assert [record["split"] for record in shown["records"]] == ["test"] * 3
    mistake(warm("synthgen", "show", run / "generated", "--rejected"), "not a curated corpus")
    assert warm("synthgen", "show", run, "-n", "-1").code == 2


def test_show_failures(tmp_path, finished):
    """The first two seeds are too long for the teacher. A seed has two samples."""
    recipe, run = small_task(tmp_path / "task", finished.teacher, long=2, train=None, logits=None), tmp_path / "run"
    assert warm("synthgen", "generate", recipe, "-o", run).code == 0
    assert warm("synthgen", "curate", run).code == 0
    done = warm("synthgen", "show", run, "--failures", "-n", "3")
    assert "failed by: context 4" in done.out
    assert done.out.count("\ncontext: ") == done.out.count("── ") == 3
    shown = json.loads(warm("synthgen", "show", run, "--failures", "--json").out)
    assert {row["seed_id"] for row in shown["failures"]} == {"q0", "q1"}
    assert shown["failed_by"] == {"context": 4}
    assert shown["counts"]["rows"] == 14
    mistake(warm("synthgen", "show", run, "--failures", "--rejected"), "cannot be shown together")
    mistake(warm("synthgen", "show", run / "curated", "--failures"), "has no failures")
    none = json.loads(warm("synthgen", "show", finished.run, "--failures", "--json").out)
    assert (none["failures"], none["failed_by"]) == ([], {})


def test_options_can_be_set_by_the_environment(run, recipe):
    shown = json.loads(cold("synthgen", "show", run, env={"SYNTHGEN_SHOW_COUNT": "1", "SYNTHGEN_SHOW_JSON": "1"}).out)
    assert len(shown["records"]) == 1
    evaluation = json.loads(warm("distill", "eval", run, env={"SYNTHGEN_DISTILL_EVAL_JSON": "1"}).out)
    assert evaluation["kind"] == "decoder"
    done = warm("distill", "train", run, env={"SYNTHGEN_DISTILL_TRAIN_OUT": str(run / "other"), "SYNTHGEN_QUIET": "1"})
    assert done.out.splitlines() == [str(run / "other"), "kept 24, rejected 24, failed 0"]
    mistake(warm("synthgen", "generate", recipe, env={"SYNTHGEN_GENERATE_OUT": str(run / ("x" * 999))}), "too long")


@pytest.mark.parametrize("program", ["synthgen", "distill"])
def test_help_and_usage(program):
    assert "Usage" in cold(program, "--help").out
    assert cold(program, "--help").code == 0
    done = warm(program, "dance")
    assert done.code == 2
    assert "No such command 'dance'" in done.err
    assert warm(program, "--version").out.strip().endswith("0.1.0")
