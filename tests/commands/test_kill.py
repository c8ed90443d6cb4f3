"""After SIGKILL at any moment, the same command finishes the job, and its files equal those of an undisturbed run.

A command creates and deletes files under their real names by rename and unlink, and makes them durable by fsync. The
tests kill the command before some of these calls, and at random moments. The slow tests kill it before and after each
call.

After each kill no process is left and no row exists twice. The same command then runs again, to its end. Every file
must then be the same as in an undisturbed run. Files committed before the kill must not be written again, and no
temporary file may be left.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from support.killing import ONE_THREAD, Server, left_behind
from support.serving import KEY, Serving, write_recipe
from support.small import small_encoder, small_task, small_teacher, sorting_task
from support.trials import COMMANDS, STAGES, Setup, all_well, differences, row_ids, trial, undisturbed

from synthgen import corpus
from synthgen.generation.inputs import read_inputs, runner
from synthgen.recipe import load_recipe

KINDS = {
    "sampled": {},
    "topk": {
        "logits": {"kind": "topk", "k": 7, "temperature": 2.0},
        "generate": {"num_generations": 3, "max_new_tokens": 4, "shard_size": 9, "top_p": 0.9},
    },
    "classify": {
        "strategy": "classify",
        # characters that the small teacher writes often, so that the labels have enough probability
        "generate": {"labels": ["K", "l", "^", "_ no"], "shard_size": 5},
        "logits": None,
        "train": {
            "student": {"kind": "classifier", "buckets": 64, "hidden_size": 4, "dropout": 0.1},
            "batch_size": 4,
            "num_train_epochs": 3,
        },
    },
}
_ONLINE = {"student": {"kind": "decoder", "layers": 1}, "batch_size": 4, "max_steps": 5, "num_train_epochs": 4}
_ON_POLICY = {"mode": "on_policy", "lmbda": 1.0, "max_new_tokens": 5, "reuse": 4}
_LORA = {"kind": "decoder", "layers": 1, "lora": {"r": 2, "lora_dropout": 0.3}}
TRAINED = {  # ways of training whose checkpoints hold more than a decoder's weights
    "lora": {"train": {**_ONLINE, "save_steps": 2, "student": _LORA}},
    "ensemble": {
        "logits": {"kind": "topk", "k": 7, "score_by": ["other"]},
        "train": {**_ONLINE, "save_steps": 2, "ensemble": {"merge": "pool"}},
    },
    "on_policy": {"logits": None, "train": {**_ONLINE, "save_steps": 2, "online": _ON_POLICY}},
    "mutual": {"logits": None, "train": {**_ONLINE, "save_steps": 2, "online": {"mode": "mutual"}}},
}
_FEW = {"batch_size": 4, "max_steps": 5, "num_train_epochs": 4, "save_steps": 2, "baseline": False}
_SMALL = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 12}
_BERT = {"model_type": "bert", "num_attention_heads": 2, "max_position_embeddings": 24, **_SMALL}
_T5 = {"model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2}
OTHERS = {  # other kinds of student, and further targets of a decoder; T5 and BERT have dropout of 0.1
    "encoder": {"train": {**_FEW, "student": {"kind": "encoder", "config": _BERT}}},
    "seq2seq": {"train": {**_FEW, "student": {"kind": "seq2seq", "config": _T5}}},
    "sentence": {
        "strategy": "embed",
        "generate": {"shard_size": 16},
        "train": {**_FEW, "student": {"kind": "sentence", "config": _SMALL}},
    },
    "step_by_step": {
        "strategy": "score",
        "generate": {"shard_size": 6, "answer_marker": "#"},
        "logits": {"kind": "topk", "k": 9},
        "train": {**_FEW, "student": {"kind": "decoder", "layers": 1}, "rationale": {"mode": "step_by_step"}},
    },
    "hidden": {"train": {**_FEW, "student": {"kind": "decoder", "config": _SMALL}, "hidden": {}, "relations": {}}},
    "stored": {"train": {**_FEW, "student": {"kind": "decoder", "config": _SMALL}, "hidden": {"stored": True}}},
    "api": {"train": _FEW},  # text of a server; the student is a checkpoint with its own tokenizer
}
TRAINING = {**TRAINED, **OTHERS}


@pytest.fixture(scope="module")
def folder():
    """A folder in memory, or on disk if the system has no such folder. SIGKILL leaves the same files in memory as on
    disk.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def server(folder):
    # otherwise the first command would make this folder, and so make more calls than later commands
    (folder / "cache").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPBACK_KEY", KEY)
        patch.setenv("SYNTHGEN_CACHE", str(folder / "cache"))
        started = Server()
    yield started
    started.close()


@pytest.fixture(scope="module")
def api():
    """The server that answers the questions of the kind "api"."""
    running = Serving()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def setups(server, folder, api):
    """A function that returns the setup for a name in KINDS or TRAINING. Each setup is made once."""
    by_kind: dict[str, Setup] = {}
    teacher = small_teacher(folder / "teacher")

    def setup(kind: str) -> Setup:
        if kind not in by_kind:
            sections = {**KINDS, **TRAINING}[kind]
            if kind == "ensemble":
                keys = {"license": "Apache-2.0", "batch_size": 4, "device": "cpu"}
                other = small_teacher(folder / "other", seed=1)
                sections = {
                    **sections,
                    "teachers": {"one": {"model": str(teacher), **keys}, "other": {"model": str(other), **keys}},
                }
            task = folder / f"task-{kind}"
            if kind in ("encoder", "sentence"):
                other = small_encoder(folder / f"teacher-{kind}", headless=kind == "sentence")
                recipe = sorting_task(task, other, seeds=24, **sections)
            elif kind == "api":
                checkpoint = small_teacher(folder / "checkpoint", merges=[("a", "n"), ("r", "e")])
                student = {"model": str(checkpoint), "license": "Apache-2.0"}
                train = {**sections["train"], "student": student}
                recipe = write_recipe(task, api.url, generate={"budget": {"usd": 1}}, train=train)
            else:
                recipe = small_task(task, teacher, long=1, **sections)
            if kind == "step_by_step":
                with_reasons(task / "seeds.jsonl")
            by_kind[kind] = undisturbed(server, recipe, folder / kind)
        return by_kind[kind]

    return setup


def with_reasons(path: Path) -> None:
    """Adds a completion to each seed: a rationale, a marker and an answer."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "completion": f"as {row['id']} # 7"}) + "\n" for row in rows))


# All other tests compare their runs with the undisturbed run, so the next test checks the undisturbed run itself.


@pytest.mark.parametrize("kind", list(KINDS))
def test_undisturbed_run_has_every_id_once(setups, kind):
    setup = setups(kind)
    run, recipe = setup.after["train"], load_recipe(setup.recipe)
    inputs = read_inputs(recipe)
    (teacher,) = corpus.manifest(run / "generated")["teachers"].items()
    jobs = inputs.jobs({teacher[0]: f"{teacher[0]}@{teacher[1]['revision'][:19]}"})
    asked = [next(runner(recipe)(job))[0] for job in jobs.one_by_one()]
    rows = [i for p in run.glob("generated/data/*.parquet") for i in row_ids(p)]
    failed = [i for p in run.glob("generated/failures/*.parquet") for i in row_ids(p)]
    curated = [i for part in ("data", "rejected") for p in run.glob(f"curated/{part}/*.parquet") for i in row_ids(p)]
    assert failed, "one seed is too long on purpose"
    assert sorted(rows + failed) == sorted(r.id for r in asked)
    assert sorted(curated) == sorted(rows)
    assert len(set(curated)) == len(curated)
    assert {"fsync", "replace"} <= set(setup.calls["generate"])
    assert not differences(setup.after["generate"] / "generated", run / "generated")


@pytest.mark.parametrize(
    ("kind", "stage", "every"),
    [
        *(("sampled", stage, 11 if stage == "train" else 7) for stage in STAGES),
        *((kind, stage, 17) for kind in ("topk", "classify") for stage in ("generate", "train")),
        *((kind, "train", 29) for kind in ("lora", "on_policy")),
        *((kind, "train", 37) for kind in ("encoder", "step_by_step", "api")),
    ],
)
def test_sigkill_at_renames_and_fsyncs(server, setups, kind, stage, every):
    """Each command is killed at every seventh call or less often, and in the slow test below at every call."""
    setup = setups(kind)
    last = len(setup.calls[stage]) - 1
    cuts = [*((n, "before") for n in range(0, last + 1, every)), (last, "after")]
    kills = all_well(server, cuts, lambda cut: trial(server, setup, stage, [cut]))
    print(f"{kind}, {stage}: {kills} kills at {dict(Counter(setup.calls[stage]))}")
    assert kills == len(cuts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "stage"), [*((kind, stage) for kind in KINDS for stage in STAGES), *((kind, "train") for kind in TRAINING)]
)
def test_sigkill_on_both_sides_of_every_call_twice(server, setups, kind, stage):
    """Each command is killed at its call number n. The command is then run again, and killed again at its call number
    n.
    """
    setup = setups(kind)
    cuts = [(n, side) for n in range(len(setup.calls[stage])) for side in ("before", "after")]
    kills = all_well(server, cuts, lambda cut: trial(server, setup, stage, [cut, cut]))
    print(f"{kind}, {stage}: {kills} kills, most of them doubled")
    assert kills == len(cuts)


def at_random(server: Server, setup: Setup, stage: str, wanted: int, kills_each: int) -> None:
    generator = random.Random(f"{stage} {wanted}")
    duration, done = setup.seconds[stage], 0
    for _ in range(10):
        cuts = [[generator.uniform(0.02, 1.0) * duration for _ in range(kills_each)] for _ in range(wanted - done)]
        done += all_well(server, cuts, lambda cut: trial(server, setup, stage, cut))
        if done == wanted:
            return
        duration *= 0.8  # kill earlier, because some commands ended before they were killed
    pytest.fail(f"only {done} of {wanted} commands were killed")


@pytest.mark.parametrize("stage", STAGES)
def test_sigkill_at_ten_random_moments(server, setups, stage):
    at_random(server, setups("sampled"), stage, 10, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "stage"), [*((kind, stage) for kind in KINDS for stage in STAGES), *((kind, "train") for kind in TRAINING)]
)
def test_sigkill_three_times_at_random_moments(server, setups, kind, stage):
    at_random(server, setups(kind), stage, 30, 3)


def damage(setup: Setup, part: str) -> tuple[Path, set[str]]:
    """Cuts one file of a copied run short, and deletes another file. Returns (the copy, the names of the shards of both
    files).
    """
    run = Path(tempfile.mkdtemp(dir=setup.folder)) / "run"
    shutil.copytree(setup.after["train"], run)
    first, *_, last = sorted((run / part / "data").glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-9])
    next(p for p in (run / part).rglob(last.name) if p.parent.name != "data").unlink()
    return run, {first.name, last.name}


REDONE = {
    "generate --fresh": ["synthgen", "generate", None, "-o", "RUN", "--fresh"],
    "generate --repair": ["synthgen", "generate", None, "-o", "RUN", "--repair"],
    "curate --fresh": ["synthgen", "curate", "RUN", "--fresh"],
    "curate --repair": ["synthgen", "curate", "RUN", "--repair"],
    "train --fresh": ["distill", "train", "RUN", "--fresh"],
}


def redone(server: Server, setup: Setup, name: str, every: int, kills_each: int) -> int:
    """Kills a command that makes the files of a finished or damaged run again. Returns the number of kills."""
    command = [setup.recipe if part is None else part for part in REDONE[name]]
    stage = name.split()[0]
    base, names = setup.after["train"], {p.name for p in setup.after["train"].rglob("*")}
    if "--repair" in name:
        base, names = damage(setup, f"{stage}d")
    counted = Path(tempfile.mkdtemp(dir=setup.folder)) / "run"
    shutil.copytree(base, counted)
    calls = server.run([counted if part == "RUN" else part for part in command]).calls
    finished = Setup(setup.recipe, setup.folder, {stage: setup.after["train"]})
    cuts = [(n, "before") for n in range(0, len(calls), every)]
    return all_well(
        server,
        cuts,
        lambda cut: trial(
            server,
            finished,
            stage,
            [cut] * kills_each,
            command=command,
            base=base,
            again=lambda path: path.name in names,
        ),
    )


@pytest.mark.parametrize(("name", "every"), [("generate --fresh", 7), ("curate --repair", 4)])
def test_sigkill_while_making_anew(server, setups, name, every):
    assert redone(server, setups("sampled"), name, every, 1) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", list(REDONE))
def test_sigkill_while_making_anew_at_every_call(server, setups, name):
    assert redone(server, setups("sampled"), name, 1, 2) > 20


def whole_run(server: Server, folder: Path) -> Setup:
    """The setup of one command that runs all stages except training: generate, curate, audit, report."""
    recipe = small_task(folder / "task-run", folder / "teacher", long=1, train=None)
    return undisturbed(server, recipe, folder / "whole", ["run"])


@pytest.mark.slow
def test_sigkill_of_a_run_with_a_server_after_it_was_asked(server, setups, folder, api):
    """Kills `synthgen run` at every fourth of its calls that follow curation. After a kill, the command does not ask
    the server again.
    """
    asked = setups("api")
    paid, base = api.stats()["paid"], asked.after["curate"]
    setup = Setup(asked.recipe, folder / "api-run")
    run = Path(shutil.copytree(base, setup.folder / "run"))
    outcome = server.run(COMMANDS["run"](setup.recipe, run))
    assert outcome.code == 0, outcome.output
    setup.after["run"] = run
    cuts = [(n, "before") for n in range(0, len(outcome.calls), 4)]

    def well(cut: tuple[int, str]) -> list[str]:
        wrong = trial(server, setup, "run", [cut], base=base)
        return [one for one in wrong if one != "differs: student/README.md"]  # the README contains measured times

    assert all_well(server, cuts, well) == len(cuts)
    assert api.stats()["requests"] == api.stats()["paid"] == paid


def run_is_well(server: Server, setup: Setup, cut: tuple[int, str]) -> list[str] | None:
    wrong = trial(server, setup, "run", [cut])
    if not json.loads((setup.after["run"] / "audit" / "report.json").read_text())["passed"]:
        wrong.append("the audit did not pass")
    return wrong


def test_sigkill_of_a_whole_run(server, setups, folder):
    """Kills the command at its first calls, and after curation, while it writes the recipe, the audit, the log and the
    page.
    """
    setups("sampled")
    setup = whole_run(server, folder)
    count = len(setup.calls["run"])
    alone = len(setups("sampled").calls["generate"]) + len(setups("sampled").calls["curate"])
    cuts = [(n, "before") for n in (*range(0, 6, 2), *range(alone - 6, count, 6))]
    assert all_well(server, cuts, lambda cut: run_is_well(server, setup, cut)) == len(cuts)


@pytest.mark.slow
def test_sigkill_of_a_whole_run_at_every_call(server, setups, folder):
    setups("sampled")
    setup = whole_run(server, folder)
    cuts = [(n, side) for n in range(len(setup.calls["run"])) for side in ("before", "after")]
    assert all_well(server, cuts, lambda cut: run_is_well(server, setup, cut)) == len(cuts)


def kill_while_measuring(setup: Setup, run: Path, seconds: float) -> None:
    """Runs `synthgen run` in a new interpreter, and kills it `seconds` after it began to measure a model."""
    process = subprocess.Popen(
        [sys.executable, "-m", "synthgen.cli", *map(str, COMMANDS["run"](setup.recipe, run)[1:])],
        env={**os.environ, **ONE_THREAD},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        parent = psutil.Process(process.pid)
        while not any("distill.cost" in child.cmdline() for child in parent.children(recursive=True)):
            assert process.poll() is None, "the command ended before it measured a model"
            time.sleep(0.05)
        time.sleep(seconds)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not left_behind(process.pid, patience=60)


def measured(server: Server, setup: Setup, seconds: float) -> None:
    run = Path(tempfile.mkdtemp(dir=setup.folder)) / "run"
    kill_while_measuring(setup, run, seconds)
    assert not (run / "student" / "evaluation.json").exists()
    outcome = server.run(COMMANDS["run"](setup.recipe, run))
    assert outcome.code == 0, outcome.output
    assert not outcome.orphans
    assert json.loads((run / "student" / "evaluation.json").read_text())["table"]["distilled"]
    assert (run / "report.html").exists()
    wrong = differences(setup.after["train"], run)
    assert wrong == ["differs: student/README.md"], "the model card of the undisturbed run has no results"


def test_no_process_outlives_a_killed_run(server, setups):
    measured(server, setups("classify"), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.0, 6.0])
def test_no_process_outlives_a_run_killed_later(server, setups, seconds):
    measured(server, setups("classify"), seconds)


# The next test shows that the tests above can fail: it breaks each promise of the package, and a trial must detect
# this.


@pytest.mark.parametrize(
    ("fault", "stage", "begin", "seen"),
    [
        ("plain write", "generate", 1.0, "the same command ended with"),
        ("plain write", "train", 1.0, "differs: student"),
        ("data first", "generate", 1.0, "the same command ended with"),
        pytest.param("no sweep", "train", 0.83, "too many", marks=pytest.mark.slow),
        ("forgets shards", "generate", 1.0, "made again"),
        pytest.param("forgets shards", "curate", 1.0, "made again", marks=pytest.mark.slow),
        ("manifest first", "generate", 1.0, "missing: generated/README.md"),
        ("no moments", "train", 0.56, "differs: student/model.safetensors"),
        pytest.param("no checkpoints", "train", 0.86, "was not used", marks=pytest.mark.slow),
        ("forgets texts", "train", 0.23, "differs: student/model.safetensors"),
        pytest.param("leaves a child", "curate", 1.0, "left behind", marks=pytest.mark.slow),
    ],
)
def test_a_broken_promise_is_seen(server, setups, fault, stage, begin, seen):
    """`begin` is a place among the command's calls, as a number from 0 (first call) to 1 (last call). Kills at the
    calls nearest to this place are tried first, because they show the fault soonest.
    """
    setup = setups("on_policy" if fault == "forgets texts" else "sampled")
    run = Path(tempfile.mkdtemp(dir=setup.folder)) / "run"
    if setup.before(stage):
        shutil.copytree(setup.before(stage), run)
    not_killed = server.run(COMMANDS[stage](setup.recipe, run), fault=fault)
    assert not_killed.code == 0, not_killed.output
    findings: list[str] = []
    count = len(not_killed.calls)
    cuts = [(n, "before") for n in sorted(range(count), key=lambda n: abs(n - begin * count))]
    for batch in (cuts[i : i + 2] for i in range(0, len(cuts), 2)):
        for wrong in server.map(lambda cut: trial(server, setup, stage, [cut], fault), batch):
            findings += wrong or []
        if any(seen in finding for finding in findings):
            return
    pytest.fail(f"the fault '{fault}' was not detected: {findings[:5]}")
