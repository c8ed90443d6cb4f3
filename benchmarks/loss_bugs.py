"""Plants nineteen kinds of bugs, one at a time, in a copy of the source, and checks that the test of each bug fails.

    python benchmarks/loss_bugs.py [--only 07 13]        # or: make loss-bugs

A bug is a list of (file, old text, new text). The old text must occur exactly once in the file. If the old text is
missing, the source has changed, and the bug's entry in BUGS must be adapted. The exit status is 1 if the test of a bug
passes although the bug is planted, or fails although no bug is planted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import datasets  # noqa: F401  Imported here once, for all forked runs: imports take most of the time of a run.
import pyarrow.parquet  # noqa: F401
import pytest
import torch
import transformers  # noqa: F401

REPOSITORY = Path(__file__).parent.parent
COPIED = ("synthgen", "distill", "tests", "prompts", "data", "pyproject.toml")
TESTS = "tests/losses/test_loss_bugs.py"
LOSSES, HEAD, TRAIN = "distill/losses.py", "distill/output_layer.py", "distill/targets/stored.py"
STREAM, LAYERS = "distill/streaming/distributions.py", "distill/students/layers.py"
FORWARD = "synthgen/lm/forward.py"

BUGS: dict[str, list[tuple[str, str, str]]] = {
    "01 padding in the loss": [
        (
            TRAIN,
            "tokens = max(1, sum(e.learned for e in step))",
            "tokens = len(step) * max(len(e.completion) for e in step)",
        ),
    ],
    "02 mean of micro-batch means": [
        (TRAIN, "rows, step, device = batch.rows, batch.step, ", "rows, step, device = batch.rows, batch.rows, ")
    ],
    "03 shift by one, packed": [
        (FORWARD, "rows = [[*p[len(begin) :], *c][:-1] for", "rows = [[*p[len(begin) :], *c] for"),
        (FORWARD, "start + len(prompt) - len(begin) - 1, start", "start + len(prompt) - len(begin), start"),
    ],
    "03 shift by one, padded": [
        (FORWARD, "        ids[:, :-1],\n", "        ids,\n"),
        (FORWARD, "attention_mask=mask[:, :-1]", "attention_mask=mask"),
        (FORWARD, "clamp(min=0)[:, :-1],\n        logits_to_keep=right", "clamp(min=0),\n        logits_to_keep=right"),
    ],
    "04 reduction over the vocabulary": [
        (
            LOSSES,
            "values.masked_fill(logw == -torch.inf, 0)).sum(-1)",
            "values.masked_fill(logw == -torch.inf, 0)).mean(-1)",
        ),
    ],
    "05 temperature unused": [(TRAIN, 'temperature=meta["temperature"],', "temperature=1.0,")],
    "06 JSD mixture swapped": [(LOSSES, "logm = _mixture(logp, logq, beta)", "logm = _mixture(logq, logp, beta)")],
    "07 top-k renormalized on both sides": [
        (
            LOSSES,
            "return logp.log_softmax(-1), logq  #",
            "return logp[:, :-1].log_softmax(-1), logq[:, :-1].log_softmax(-1)  #",
        ),
    ],
    "08 truncated reverse KL": [
        (LOSSES, "return logp.log_softmax(-1), logq  #", "return logp.log_softmax(-1)[:, :-1], logq[:, :-1]  #"),
    ],
    "09 vocabulary padding as zero logits": [
        (
            LOSSES,
            "z_NV = z_NV[:, :vocabulary]",
            "z_NV = functional.pad(z_NV[:, :vocabulary], (0, z_NV.shape[-1] - vocabulary))",
        ),
        (
            LOSSES,
            "_float(target.logits_NV)[:, :vocabulary]",
            "functional.pad(_float(target.logits_NV), (0, z_NV.shape[-1] - target.logits_NV.shape[-1]))",
        ),
    ],
    "10 softmax in bfloat16": [
        (LOSSES, "return values if values.dtype == torch.float64 else values.float()", "return values"),
    ],
    "11 fused but materialized": [(HEAD, "size = chunk or chunk_of(width, kind)", "size = len(states_ND)")],
    "12 wrapper bypassed": [
        (HEAD, "    layer, config = model", '    model = getattr(model, "module", model)\n    layer, config = model'),
        (
            HEAD,
            "        self.model, self.body = model, model.base_model\n",
            '        model = getattr(model, "module", model)\n'
            "        self.model, self.body = model, model.base_model\n",
        ),
    ],
    "13 softcap or scale ignored": [
        (HEAD, "if head is not None and head.scale != 1.0:", "if False:"),
        (HEAD, "if head is not None and head.softcap is not None:", "if False:"),
        (HEAD, "return head if torch.allclose(nearest, expected, atol=1e-3, rtol=1e-2) else None", "return head"),
    ],
    "14 stored rows against shuffled batches": [
        (STREAM, "_pack([column[row - start].as_py()", "_pack([column[(row - start + 1) % batch.num_rows].as_py()")
    ],
    "15 NaN gradient from minus infinity": [(LOSSES, "values.masked_fill(logw == -torch.inf, 0)", "values")],
    "16 absolute position, packed": [
        (
            FORWARD,
            "np.arange(before + shared, before + shared + stop - start)",
            "np.arange(before + start, before + stop)",
        ),
    ],
    "16 absolute position, padded": [
        (
            FORWARD,
            "position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, :-1]",
            "position_ids=torch.arange(ids.shape[1] - 1)[None].expand(len(ids), -1)",
        ),
    ],
    "17 student and teacher end differently": [
        (LAYERS, "student.generation_config = copy.deepcopy(teacher.generation_config)", "pass"),
    ],
    "18 logits and labels chunked differently": [
        (
            HEAD,
            "h = states[a : a + plan.size]",
            "h = states.tensor_split(-(-len(states) // plan.size))[a // plan.size]",
        ),
    ],
    "19 large negative values as a mask": [
        (
            LOSSES,
            "both = (teacher_NV > -torch.inf) & (z_NV > -torch.inf)",
            "both = (teacher_NV > -1e3) & (z_NV > -1e3)",
        ),
    ],
}


def plant(folder: Path, bug: list[tuple[str, str, str]]) -> None:
    """Replaces the old texts of a bug in the copy. Exits if an old text does not occur exactly once."""
    for name, text, instead in bug:
        path = folder / name
        source = path.read_text()
        if source.count(text) != 1:
            sys.exit(f"{name} holds this text {source.count(text)} times, not once: {text!r}. Adapt the bug.")
        path.write_text(source.replace(text, instead))


def run(numbers: list[str] | None, bug: list[tuple[str, str, str]]) -> tuple[int, str]:
    """Plants `bug` in a new copy of the source. Runs there the tests that belong to the bugs `numbers`, or the tests of
    all bugs if `numbers` is None. Returns (exit status of pytest, output).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in COPIED:
            origin = REPOSITORY / part
            if origin.is_dir():
                shutil.copytree(origin, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, folder / part)
        plant(folder, bug)
        log = folder / "log"
        child = os.fork()
        if child == 0:
            with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                os.chdir(folder)
                sys.path.insert(0, str(folder))
                arguments = [TESTS, "-q", "-x", "-rf", "--tb=line", "-p", "no:cacheprovider", "--durations=0"]
                status = pytest.main(
                    [*arguments, *(["-k", " or ".join(f"test_bug_{n}_" for n in numbers)] if numbers else [])]
                )
                import distill

                if not str(distill.__file__).startswith(str(folder)):
                    status = 90  # the tests did not import the copy of the source
            os._exit(int(status))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, log.read_text()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="the numbers of the bugs to plant, such as 07 13")
    only = parser.parse_args().only
    torch.set_num_threads(1)  # with more threads, a forked child would wait for threads that only its parent has
    chosen = {name: bug for name, bug in BUGS.items() if not only or name[:2] in only}
    status, log = run(only, [])
    if status != 0:
        sys.exit(f"The tests fail without a bug (status {status}):\n{log[-3000:]}")
    print("| bug | test | without the bug | with the bug | first failure |\n|---|---|---|---|---|")
    passed = 0
    for name, bug in chosen.items():
        status, log = run([name[:2]], bug)
        failed = [
            line.split(" - ")[0].removeprefix("FAILED ") for line in log.splitlines() if line.startswith("FAILED")
        ]
        red = status == 1 and bool(failed)
        passed += not red
        test = failed[0].split("::")[-1] if failed else f"test_bug_{name[:2]}_…"
        reason = next(
            (line.split(": ", 1)[-1] for line in log.splitlines() if line.startswith(("E ", str(Path("/"))))), ""
        )
        reason = reason.removeprefix("E ").strip()
        print(
            f"| {name} | {test} | passes | {'fails' if red else f'PASSES (status {status})'} | {reason[:70]} |",
            flush=True,
        )
    print(f"\n{len(chosen) - passed} of {len(chosen)} planted bugs make their test fail.")
    sys.exit(bool(passed))
