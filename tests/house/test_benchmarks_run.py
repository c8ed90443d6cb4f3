"""Every program of benchmarks/ runs at its smallest size, and prints its table.

The default tests only check the names and the calls of these programs. A program can also break because the code that
it calls became stricter, so the tests here run the programs. They are slow tests: `make test-slow`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ENVIRONMENT, Done, warm
from support.places import REPOSITORY
from support.public_sets import write_public_sets
from support.stereotypes import write_sets

HERE = REPOSITORY / "benchmarks"
SECONDS = 900.0  # after which a program counts as hung
NUMBER = r"-?[\d,]+(?:\.\d+)?"

# A program, its arguments for the smallest run, and a pattern that its output must match. "; " separates the arguments
# of several runs. In arguments, DATA is a folder with small public data sets, SETS a folder with small test sets for
# bias, and NEW an empty folder. In patterns, # is a number.
RUNS = [
    (
        "api.py",
        "full --requests 24 --latency 0.01 --in-flight 8",
        r"full: 24 requests, 10 ms, 8 in flight \(reached #\)",
    ),
    (
        "api.py",
        "rows --rows 24576",
        r"rows: 24,576 rows in # s, .* # B a row; peak # GB; rate at the end / .* start #$",
    ),
    ("api.py", "logits --rows 20", r"a reply is # bytes of JSON\nlogits: 20 rows .* # B a row; .* unknown, because"),
    ("api.py", "loop --rows 80", r"loop: 80 requests, # µs CPU each; rate at the end / rate at the start #$"),
    (
        "audit.py",
        "--rows 60 --size 30 --workers 1",
        r"\| audit and --keep-allowed \| # \| # \| # \| # rows kept; \w+ \|$",
    ),
    (
        "bias_of_corpus.py",
        "--corpora 1 --skews 0.2",
        r"\| 0.2 \| selection \| # \| #% \[#, #\] \| #% \| #% .* \| # \|$",
    ),
    ("bias_of_corpus.py", "--rows 100", r"^100 rows in # units: # CPU seconds, # seconds, # MB at most$"),
    (
        "bias_of_models.py",
        "plant NEW --winobias SETS --bbq SETS/Age.jsonl --items 8 --steps 2; "
        "planted NEW --winobias SETS --bbq SETS/Age.jsonl --items 8",
        r"^planted: step 0 of 2, loss #(.|\n)*^\| student \| BBQ Age: ambiguous \| (.|\n)*^\W+control: ",
    ),
    (
        "bias_of_models.py",
        "students NEW --rows DATA/rows.jsonl --steps 1 --students 1; "
        "measured NEW --winobias SETS --bbq SETS/Age.jsonl --items 2 --students 1",
        r"^student with seed 0: # s of CPU time(.|\n)*^\| student minus teacher \| BBQ Age: ambiguous \|",
    ),
    ("curation.py", "--rows 60", r"^199c186, 60 rows:\n(.|\n)*^  duplicates +# rows a CPU-second$"),
    ("curation.py", "--rows 40 --everything", r"^  everything +# rows a CPU-second .*, # MB read, # MB written$"),
    (
        "decontamination.py",
        "DATA/gsm8k --twins DATA/rows.jsonl",
        r"^  light +[78] of 8 (.|\n)*^  curated +train #, test #",
    ),
    (
        "good_rows.py",
        "DATA --most 9",
        r"^\| self-instruct, written outputs \| 9 \| 0 (.|\n)*^\| tables in Markdown \| 9 \|",
    ),
    ("good_rows.py", "DATA --most 9 --all --show 1", r"^\| set \| rows \| .*language"),
    ("good_rows.py", "DATA --most 9 --web", r"^\| tables in Markdown \| 9 \| #% \|"),
    ("gpu.py", "--device cpu --tiny --rounds 1 --precisions float32", r"^A training step, float32; 3 rows\n"),
    ("label_mass.py", "--rows 8 --seeds 1 --bounds 0", r"^ 0.00 +8 +#%  #% ± 0.0%$"),
    ("leaks.py", "nominal --seeds 2", r"^AUC of the untrained student: # \[#, #\], without a leak 0.5"),
    ("leaks.py", "overfitted NEW --epochs 1", r"^\| exposure \| .*(.|\n)*^not found: "),
    ("leaks.py", "cost --canaries 4 --references 3", r"^4 canaries x 3 references: # s wall(.|\n)*^mean exposure # \["),
    (
        "logits_size.py",
        "--rows 2 --tokens 4",
        r"^\| top-128 \| # \| 312 \| # \| # \| # \| # \|\n\| 50 draws \(# unique\) \| # \|",
    ),
    ("loss_bugs.py", "--only 07", r"^1 of 1 planted bugs make their test fail\.$"),
    (
        "losses.py",
        "--tokens 8 --vocabulary 400 --width 8 --only jsd",
        r"^\| jsd, dense \| # \| # \| # \| # \| # \| # \| #e?[-+]?# \|$",
    ),
    ("mutants.py", "--count 1 --areas confidence --workers 1 --out NEW.jsonl", r"^all \| 1 \| # \| #%$"),
    ("near_duplicates.py", "--rows 60 --repeat 1 --tools synthgen 'synthgen exact'", r"^synthgen exact  +#( +#){6}$"),
    ("privacy.py", "DATA/gsm8k --texts 60 --values 3", r"^\| email \| 3 \| 3 \| 100.0% (.|\n)*train.jsonl: 16 rows"),
    ("privacy_of_corpus.py", "--rows 40 --private 10", r"^\| private texts \| # \| # \| # \| 1 \|$"),
    ("rationales.py", "DATA", r"^\| planted: larger \| 16 \| 16 (.|\n)*^AUC 1.000$"),
    ("replay_logprobs.py", "--rows 2 --tokens 4 -k 8 --repeats 1", r"^all of generate: # µs CPU a token"),
    (
        "rivals.py",
        "--requests 16 --latency 0.01 --in-flight 4 --repeat 1 --tools synthgen",
        r"^\| synthgen-|synthgen .* \| 0 \|$",
    ),
    (
        "seeds.py",
        "--seeds 40 --few 40",
        r"^ids of 40 seeds are the same at 199c186 and now; #% of the seeds have the same split$",
    ),
    ("scale.py", "--only rates --rows 200 --workers 1 --folder NEW", r"^ray +1 +200 "),
    ("selection.py", "--rows 60 --chosen 5", r"^chosen: # ms of CPU time a row, for 5 of 60 \(#\)$"),
    ("sentences.py", "-n 3", r"^3 of # sentences, seed 0\n1\. \["),
    ("strategies.py", "--only evolve --limit 1 --rows 1", r"^evolve +# +# +# +#% "),
    ("streaming.py", "--rows 16 --steps 2 --pairs 0", r"^ +16( +#){9}$"),
    ("structure.py", "--check", r"^what +\| 199c186 \| now\n"),
    ("targets.py", "--tokens 8", r"^\| top-# \+ residual \| # \| #° \| #° \|$"),
    ("training_cost.py", "--rows 8 --steps 2 --pairs 1 --tokens 4 --arms cross-entropy topk", r"^topk +# +# \[#, #\]"),
    (
        "verification.py",
        "DATA",
        r"^CommonsenseQA: 8 rows, 6 right by their labels\n  agreement 100.00%(.|\n)*^all: # rows a second",
    ),
    ("vllm_capture.py", "--pairs 1 --rows 1 --tokens 2 --eager", r"ratio"),
    ("experiments/context.py", "--tiny", r"context student seed 0: \{'right': #"),
    ("experiments/curation.py", "--tiny", r"curation untrained seed 0: \{'right': #, 'gold': #, 'numbers': #\}"),
    ("experiments/ensemble.py", "--tiny", r"^teacher 1: (.|\n)*ensemble pool seed 0: \{'loss': #"),
    ("experiments/family.py", "--tiny", r"family text-aligned-half seed 0: \{'right': #, 'text': #"),
    ("experiments/hidden.py", "--tiny", r"hidden relations seed 0: \{'loss': #"),
    (
        "experiments/inheritance.py",
        "--tiny",
        r"inheritance-mlp null seed 0(.|\n)*inheritance hard-paraphrased seed 0: \{'transfer': #",
    ),
    ("experiments/logits.py", "--tiny", r"logits top-k-renormalized seed 0: \{'loss': #, 'top1': #"),
    ("experiments/memorized.py", "--tiny", r"memorized whole-short seed 0: \{'extracted 1 seen': #"),
    ("experiments/mutual.py", "--tiny", r"mutual mutual seed 0: \{'loss': #"),
    (
        "experiments/online.py",
        "--tiny",
        r"online offline-long seed 0: (.|\n)*online-again offline-long seed 3: \{'right': #",
    ),
    ("experiments/rationale.py", "--tiny", r"rationale step-by-step-shuffled seed 0: \{'right': #, 'ended': #"),
    (
        "experiments/selection.py",
        "--tiny",
        r"^\| `teacher_margin` \| # \[#, #\] \| 12 \| #(.|\n)*selection answer seed 0: \{'loss': #",
    ),
    ("experiments/tables.py", "--check", "^$"),
]

TOOLS = ("daft", "datajuicer", "datasketch", "datatrove", "rensa", "semhash", "textdedup")
# Programs that cannot run here, with the reason.
ELSEWHERE = {
    **dict.fromkeys(
        ("rivals/ask_curator.py", "rivals/ask_datadesigner.py", "rivals/ask_distilabel.py"),
        "rivals.py runs it in an environment with the tool",
    ),
    **dict.fromkeys(
        [f"rivals/near_{tool}.py" for tool in TOOLS],
        "near_duplicates.py runs it in an environment with the tool",
    ),
    "api_student.py": "it needs a server with a model",
    "rivals/ask_synthgen.py": "rivals.py runs it",
    "rivals/near_synthgen.py": "near_duplicates.py runs it",
}
NEEDS = {
    "replay_logprobs.py": "vllm",
    "scale.py": "ray",
    "vllm_capture.py": "vllm",
    "experiments/curation.py": "reasoning_gym",
    "experiments/family.py": "reasoning_gym",
}
READS_REVISION = ("curation.py", "seeds.py", "structure.py")
COLD = ("loss_bugs.py", "mutants.py")  # these import a copy of the source, so nothing may be imported before
# The exit code of these programs judges figures, which mean nothing at this size.
JUDGES = ("bias_of_models.py", "leaks.py", "mutants.py", "verification.py")


def programs() -> set[str]:
    """The files of benchmarks/ that are programs: those with a main part, and those that ask or compare a tool."""
    paths, main = sorted(HERE.rglob("*.py")), 'if __name__ == "__main__":'
    tools = {path for path in paths if path.name.startswith(("ask_", "near_"))}
    return {path.relative_to(HERE).as_posix() for path in paths if path in tools or main in path.read_text()}


def run(program: str, arguments: list[str], folder: Path) -> Done:
    """Runs a program to its end, with its temporary files in `folder`."""
    path, env = HERE / program, {**ENVIRONMENT, "TMPDIR": str(folder), "PYTHONPATH": str(REPOSITORY)}
    if program not in COLD:
        return warm(path, *arguments, env=env, limit=SECONDS)
    done = subprocess.run(
        [sys.executable, path, *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """The folders that DATA and SETS stand for."""
    folder = tmp_path_factory.mktemp("data")
    data = write_public_sets(folder / "data")
    write_sets(folder / "sets")
    return {"DATA": str(data), "SETS": str(folder / "sets")}


def test_every_program_has_a_run_or_a_reason():
    assert {program for program, _, _ in RUNS} | set(ELSEWHERE) == programs()
    assert not {program for program, _, _ in RUNS} & set(ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize(("program", "arguments", "pattern"), RUNS, ids=[f"{p} {a.split(';')[0]}" for p, a, _ in RUNS])
def test_a_program_prints_its_table(program, arguments, pattern, places, tmp_path):
    if program in NEEDS and not installed(NEEDS[program]):
        pytest.skip(f"{program} needs {NEEDS[program]}")
    if program in READS_REVISION and git("cat-file", "-e", "199c186").returncode:
        pytest.skip(f"{program} reads revision 199c186, which this copy does not have")
    known, before, printed = {**places, "NEW": str(tmp_path / "new")}, written(), ""
    for part in arguments.split("; "):
        words = [re.sub("|".join(known), lambda found: known[found[0]], word) for word in shlex.split(part)]
        done = run(program, words, tmp_path)
        printed += done.out + done.err
        assert "Traceback" not in printed, printed
        assert done.code == 0 or (program in JUDGES and done.code == 1), printed
    assert re.search(pattern.replace("#", NUMBER), printed, re.MULTILINE), printed
    assert not re.search(r"\b(nan|inf)\b|RuntimeWarning", printed), printed
    assert written() == before, "the program wrote into the repository"


def installed(module: str) -> bool:
    """Whether a package is installed. The folders of tests do not count."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def written() -> list[str]:
    """The changed, new and ignored files of the repository, without bytecode and caches."""
    lines = git("status", "--porcelain", "--ignored").stdout.splitlines()
    return [line for line in lines if "cache" not in line]


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "--no-optional-locks", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
