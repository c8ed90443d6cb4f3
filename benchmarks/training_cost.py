"""Compares the cost of training on stored distributions with two other costs: that of cross-entropy, and that of TRL
with a live teacher.

    python benchmarks/training_cost.py [--rows 48] [--steps 8] [--pairs 5] [--arms cross-entropy sampled topk trl]
    python benchmarks/training_cost.py --rows 8 --steps 2 --pairs 1 --tokens 4 --arms cross-entropy topk   # a quick run
    python benchmarks/training_cost.py --against 199c186 --arms cross-entropy sampled topk

The demo's teacher answers the shipped instructions once for each kind of stored target. Then every arm trains the same
student (six of the teacher's layers) on the same batches of eight rows. Each measurement runs in a separate process,
and the arms take turns. The benchmark measures completion tokens a second and CPU time in all steps but the first, and
the peak memory of the process (VmHWM). The intervals of the ratios to cross-entropy are from a bootstrap over the
rounds.

The arm "trl" is TRL's GKDTrainer with a live teacher, in a separate environment under .venv-rivals/. The settings of
GKDTrainer are lmbda 0 (train on the tokens of the corpus), beta 0 (forward KL) and no gradient checkpointing. TRL's
stable DistillationTrainer is not used, because it trains on text that it generates. TRL's loss on the first batch is
printed beside the package's KL over the full vocabulary.

Two more arms run only if they are named: --arms cross-entropy sampled hidden stored. The arm "hidden" adds a loss on
the hidden states of a live teacher. The arm "stored" reads the same hidden states from disk and has no teacher in
memory. The time to write the hidden states, before the rounds, is not counted.

With --against, each round also runs the arms in an older version of the repository, which makes its own corpora. The
program prints the ratios of this version to the older version.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".venv-rivals" / "trl"
TRL = "trl==1.16.0"
TOKENS = 96  # the maximum number of tokens of an answer, also in older versions
KINDS = {"sampled": {"kind": "sampled", "draws": 50}, "topk": {"kind": "topk", "k": 64}}


def corpus(kind: str, rows: int, folder: Path, tokens: int = TOKENS) -> Path:
    """Makes a curated run of the shipped recipe `instruct`, with stored distributions of one kind."""
    import synthgen
    from synthgen.recipe import Recipe

    recipe = synthgen.load_recipe("instruct")
    values = recipe.model_dump(mode="json")
    values["seeds"][0]["limit"] = rows
    values |= {"split": {"test": 0.0}, "logits": {**KINDS[kind], "temperature": 1.0}}
    values["generate"] |= {"max_new_tokens": tokens, "num_generations": -(-rows // 48)}
    values["curate"] |= {"truncated": False, "repetition": None, "duplicates": False}
    changed = Recipe.model_validate({k: v for k, v in values.items() if k != "teachers"})
    synthgen.generate(changed, folder / kind)
    synthgen.curate(changed, folder / kind)
    (folder / kind / "recipe.yaml").write_text(synthgen.recipe.dump_recipe(changed))
    return folder / kind


def train_arm(arm: str, run: Path, steps: int) -> dict[str, Any]:
    """Runs one arm with the package's own training."""
    from dataclasses import dataclass, field

    import torch

    from distill.cost import peak_rss
    from distill.data import Choice
    from distill.loop import Checkpoints, accelerator_of, fit
    from distill.losses import kl_full
    from distill.streaming.batches import Ahead, Order
    from distill.streaming.conversations import reader_of
    from distill.streaming.stream import open_stream
    from distill.students.decoder import decoder
    from distill.targets.hidden import LayerTerms
    from distill.targets.hidden_states import States, store
    from distill.targets.stored import FromStored
    from distill.tokenizer import written_with
    from synthgen.lm.forward import completion_logits
    from synthgen.recipe import Hidden, load_recipe, local_teacher
    from synthgen.teachers.transformers import LocalModel
    from synthgen.ui import UI, Progress

    recipe = load_recipe(run / "recipe.yaml")
    section = recipe.train.model_copy(update={"batch_size": 8, "save_steps": 10**6})
    teacher = LocalModel.open(local_teacher(recipe), lazy=True)
    data = open_stream(
        run / "curated",
        reader_of(teacher.tokens, written_with(run / "curated", teacher.tokens)),
        run / "cache",
        Choice(section.max_length),
    )
    order = Order(len(data), section.batch_size, section.seed)

    def batch(step: int) -> list[Any]:
        return data.batch(order.rows(step))

    model = decoder(recipe.train.student, lambda weights=teacher.weights: weights, 0).model
    if arm == "export":  # writes the inputs of the arm "trl": folders of student and teacher, rows as token ids
        model.save_pretrained(run / "student-0")
        teacher.model.save_pretrained(run / "teacher")
        for name in ("student-0", "teacher"):
            teacher.tokenizer.save_pretrained(run / name)
        batches = [[{"prompt": e.prompt, "completion": e.completion} for e in batch(step)] for step in range(steps)]
        (run / "batches.json").write_text(json.dumps(batches))
        first = batch(0)
        with torch.inference_mode():
            prompts, completions = [e.prompt for e in first], [e.completion for e in first]
            logits, logps = completion_logits(model, prompts, completions), teacher.logprobs(prompts, completions)
            total = sum(float(kl_full(z, logp).double().sum()) for z, logp in zip(logits, logps, strict=True))
        return {"first_loss": total / sum(len(e.completion) for e in first)}
    terms = None
    if arm in ("hidden", "stored", "states"):
        section = section.model_copy(update={"hidden": Hidden(stored=arm != "hidden")})
        states = States(run / "hidden", teacher.weights) if arm != "hidden" else None
        terms = LayerTerms(model, states or teacher.model, section)
        if arm == "states":
            assert states is not None
            depths = [t for _, t in terms.pairs]
            store(states, teacher.weights, depths, data, teacher.batch_size, UI(quiet=True))
            tokens = len(depths) * data.tokens
            return {"bytes": sum(p.stat().st_size for p in states.folder.rglob("*.parquet")) / tokens}
    if arm != "hidden":
        teacher.weights.unload()
    del teacher

    @dataclass
    class Clock(Progress):
        times: list[tuple[float, float]] = field(default_factory=list)

        def __init__(self) -> None:
            super().__init__("train", steps, "steps")
            self.times = [(time.perf_counter(), time.process_time())]

        def advance(self, count: int, **options: Any) -> None:
            if count:
                self.times.append((time.perf_counter(), time.process_time()))

    objective, clock = FromStored(model, section, None if arm == "cross-entropy" else data.meta, terms), Clock()
    accelerator = accelerator_of(section, torch.device("cpu"), run)
    with tempfile.TemporaryDirectory() as scratch:
        where = Checkpoints(Path(scratch), arm)
        with Ahead(batch, steps) as batch_of:
            metrics = fit(objective, batch_of, section, steps, where, clock, accelerator=accelerator)
    return result(clock.times, [int(row["tokens"]) for row in metrics], metrics[0]["loss"], peak_rss())


def result(times: list[tuple[float, float]], tokens: list[int], first_loss: float, peak: int) -> dict[str, Any]:
    """The measurements of one run of an arm. Rates are computed over all steps but the first."""
    (began, cpu_began), (ended, cpu_ended) = times[1], times[-1]
    count = sum(tokens[1:])
    return {
        "tokens_per_second": count / (ended - began),
        "tokens_per_cpu_second": count / (cpu_ended - cpu_began),
        "peak": peak,
        "first_loss": first_loss,
    }


def trl(run: Path) -> dict[str, Any]:
    """Runs TRL's GKDTrainer on the same batches."""
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    batches = json.loads((run / "batches.json").read_text())
    rows = [row for batch in batches for row in batch]
    tokenizer = AutoTokenizer.from_pretrained(run / "student-0", trust_remote_code=False)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    times: list[tuple[float, float]] = [(time.perf_counter(), time.process_time())]

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **options: Any) -> None:
            times.append((time.perf_counter(), time.process_time()))

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(r["prompt"]) + len(r["completion"]) for r in batch)
        ids = torch.full((len(batch), width), tokenizer.pad_token_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for n, r in enumerate(batch):
            whole = torch.tensor(r["prompt"] + r["completion"])
            ids[n, : len(whole)], mask[n, : len(whole)] = whole, 1
            labels[n, len(r["prompt"]) : len(whole)] = whole[len(r["prompt"]) :]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    class Trainer(GKDTrainer):
        def _get_train_sampler(self, *args: Any) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    settings = GKDConfig(
        output_dir=str(run / "trl"), lmbda=0.0, beta=0.0, temperature=1.0, per_device_train_batch_size=8,
        max_steps=len(batches), learning_rate=5e-4, gradient_checkpointing=False, bf16=False, use_cpu=True,
        optim="adamw_torch_fused", logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
        dataloader_num_workers=0,
    )  # fmt: skip
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(run / "student-0", dtype=torch.float32, trust_remote_code=False),
        teacher_model=AutoModelForCausalLM.from_pretrained(
            run / "teacher", dtype=torch.float32, trust_remote_code=False
        ),
        args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, data_collator=collate,
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    status = Path("/proc/self/status").read_text().splitlines()
    peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return result(times, [sum(len(r["completion"]) for r in batch) for batch in batches], losses[0], peak)


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def child(python: Path | str, arm: str, run: Path, steps: int, tree: Path = ROOT) -> dict[str, Any]:
    """Runs an arm in a new process, with the version of the package in `tree`."""
    program = str(tree / "benchmarks" / "training_cost.py")
    command = [str(python), program, "--child", arm, "--run", str(run), "--steps", str(steps)]
    with timed(arm if tree == ROOT else f"{arm}, older version"):
        done = subprocess.run(command, env=environment(tree), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree)}


def older(commit: str, rows: int, scratch: Path) -> tuple[Path, dict[str, Path]]:
    """Unpacks an older version and makes its corpora. Returns the folder of the older version, and for each kind of
    stored target the folder of its run.
    """
    tree, folder = scratch / "older", scratch / "older-runs"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    made = "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import training_cost as t"
    made += "; t.corpus(sys.argv[2], int(sys.argv[3]), pathlib.Path(sys.argv[4]))"
    for kind in KINDS:
        command = [sys.executable, "-c", made, str(tree / "benchmarks"), kind, str(rows), str(folder)]
        subprocess.run(command, cwd=tree, env=environment(tree), check=True)
    return tree, {kind: folder / kind for kind in KINDS}


def compare(commit: str, now: dict[str, list[dict[str, Any]]], before: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the ratios of this version to an older version."""
    print(f"this version / {commit}: tokens/s, tokens for each CPU-second, peak memory")
    for arm, results in now.items():
        rounds = list(zip(results, before[arm], strict=True))
        keys = ("tokens_per_second", "tokens_per_cpu_second", "peak")
        print(f"{arm:14}", *(interval([new[key] / old[key] for new, old in rounds]) for key in keys), sep="  ")


def install() -> Path:
    python = HOME / "bin" / "python"
    if not (HOME / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
        pins = ["-c", str(ROOT / "constraints.txt")]
        subprocess.run([str(python), "-m", "pip", "-q", "install", *pins, "torch", TRL], check=True)
        (HOME / ".ready").touch()
    return python


def interval(ratios: list[float]) -> str:
    """A text with the mean of `ratios` and the mean's 95% bootstrap interval. `ratios` has one ratio for each round."""
    values = np.array(ratios)
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(-1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Runs all arms and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="maximum number of tokens of an answer")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--arms", nargs="*", default=["cross-entropy", "sampled", "topk", "trl"])
    parser.add_argument("--against", default="", help="commit of an older version")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.against and options.tokens != TOKENS:
        parser.error(f"--against needs --tokens {TOKENS}, because the corpora of an older version have that many")
    if options.child:
        measured = trl(options.run) if options.child == "trl" else train_arm(options.child, options.run, options.steps)
        print(json.dumps(measured))
        return
    python = install() if "trl" in options.arms else Path(sys.executable)
    with tempfile.TemporaryDirectory() as scratch:
        with timed("corpora"):
            runs = {kind: corpus(kind, options.rows, Path(scratch), options.tokens) for kind in KINDS}
        reference = child(sys.executable, "export", runs["sampled"], options.steps)["first_loss"]
        if "stored" in options.arms:
            size = child(sys.executable, "states", runs["sampled"], options.steps)["bytes"]
            print(f"stored hidden states: {size:.0f} bytes for each token and layer")
        runs_of: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
        before: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
        tree, old_runs = older(options.against, options.rows, Path(scratch)) if options.against else (ROOT, runs)
        for _ in range(options.pairs):
            for arm in options.arms:
                where = runs.get(arm, runs["sampled"])
                runs_of[arm].append(child(python if arm == "trl" else sys.executable, arm, where, options.steps))
                if options.against:
                    old_run = old_runs.get(arm, old_runs["sampled"])
                    before[arm].append(child(sys.executable, arm, old_run, options.steps, tree))
    print(f"{'':14} {'':>9} {'ratio to cross-entropy':>22} {'ratio by':>20} {'':>8} {'ratio':>7}")
    print(f"{'arm':14} {'tokens/s':>9} {'of tokens/s':>22} {'CPU time':>20} {'peak GB':>8} {'of peak':>7}")
    base = runs_of["cross-entropy"]
    for arm, results in runs_of.items():
        ratio, cpu = (
            interval([row[key] / base_row[key] for row, base_row in zip(results, base, strict=True)])
            for key in ("tokens_per_second", "tokens_per_cpu_second")
        )
        rate = statistics.median(r["tokens_per_second"] for r in results)
        peak, base_peak = (statistics.median(r["peak"] for r in rows) for rows in (results, base))
        print(f"{arm:14} {rate:9.0f} {ratio:>22} {cpu:>20} {peak / 1e9:8.2f} {peak / base_peak:7.2f}")
    if options.against:
        compare(options.against, runs_of, before)
    if "trl" in runs_of and "sampled" in runs_of:
        ratio = interval(
            [
                a["tokens_per_second"] / b["tokens_per_second"]
                for a, b in zip(runs_of["sampled"], runs_of["trl"], strict=True)
            ]
        )
        first_loss = runs_of["trl"][0]["first_loss"]
        print(f"ratio of tokens/s, sampled / trl: {ratio}")
        print(f"KL of the first batch over the full vocabulary: synthgen {reference:.6f}, trl {first_loss:.6f}")


if __name__ == "__main__":
    main()
