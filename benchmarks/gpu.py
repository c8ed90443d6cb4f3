"""Measures the time and memory of the loss and of a training step on a GPU.

    python benchmarks/gpu.py [--precisions float32 bfloat16] [--rounds 5] [--profile]
    python benchmarks/gpu.py --device cpu --tiny            # a quick run that only shows that it works

Weights and tokens are random. The teacher has the shape of SmolLM2-135M: vocabulary 49,152, width 576, 30 layers. The
student has the same shape but six layers. A row has 64 prompt tokens and 193 completion tokens. Each round runs all
arms in turn, and every second round has the reverse order. The first round is a warm-up, which is left out. Values are
medians of the rounds, with the lowest and highest value in brackets. A ratio compares an arm with cross-entropy in the
same round: in the first table, torch's cross-entropy on all logits; in the second, the arm "cross-entropy".

The first table measures the loss alone, which is computed from hidden states. The backward pass computes the gradients
of the hidden states and of the output layer's weight. The table shows the time of one forward and backward pass in
milliseconds, and the peak memory minus the memory in use before the measurement. The arm "cross-entropy, torch, whole"
computes all logits at once and calls torch's cross-entropy. The other arms use `distill.output_layer.through_head` with
two chunk sizes: the default, and four times the default.

The second table measures whole steps of `distill.loop.fit`: taking a batch from memory, forward pass, backward pass,
gradient clipping, and AdamW's update. The first step is left out, because it allocates the optimizer's state. The table
shows completion tokens a second, and the peak memory with weights, gradients and AdamW's moments. The arm
"cross-entropy, torch, whole logits" is a plain trainer: it uses torch's attention without a mask and computes all
logits at once.

There are three precisions: "float32"; "tf32", which is float32 with 10-bit mantissas in matrix products; and
"bfloat16", which is autocast with a teacher in bfloat16. The option --profile also prints the share of a step in which
the GPU computes, the kernels that take most time, and the lines at which the host waits for the GPU.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from distill import losses
from distill import output_layer as heads
from distill.data import Example
from distill.loop import Checkpoints, Objective, accelerator_of, fit
from distill.output_layer import Head, logits_of, through_head
from distill.targets.live import LiveTeacher, Text
from distill.targets.stored import FromStored
from synthgen import logits
from synthgen.lm.weights import Weights
from synthgen.recipe import TrainSection
from synthgen.ui import Progress

DRAWS, KEPT, LARGER = 50, 64, 4
STEPS = 4  # training steps of one call of `fit`; the first step is not timed


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--completion", type=int, default=193)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--layers", type=int, nargs=2, default=[6, 30], help="layers of the student and of the teacher")
    parser.add_argument("--tiny", action="store_true", help="small sizes, which take seconds on a CPU")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.tiny:
        options.rows, options.prompt, options.completion = 3, 5, 8
        options.vocabulary, options.width, options.layers = 500, 64, [1, 2]
        heads._CHUNK_ELEMENTS |= dict.fromkeys(("cpu", "cuda"), 1 << 12)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    tokens = options.rows * (options.prompt + options.completion - 1)
    print(f"{name}, torch {torch.__version__}; {tokens:,} tokens, {options.vocabulary:,} ids, width {options.width}\n")
    for precision in options.precisions:
        with matmul_precision(precision):
            print_losses(precision, tokens, options, device)
    for precision in options.precisions:
        with matmul_precision(precision):
            print_steps(precision, options, device)


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    yield
    torch.set_float32_matmul_precision("highest")


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> int:
    """Returns the bytes of GPU memory in use, and resets PyTorch's record of the peak. Returns 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def rounds_of(arms: dict[str, Callable[[], dict[str, float]]], count: int) -> dict[str, list[dict[str, float]]]:
    """Runs every arm in `count` rounds, after a warm-up round that is left out. Maps each arm to its measurements, one
    for each round.
    """
    results: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for number in range(count + 1):
        for name in arms if number % 2 else reversed(arms):
            result = arms[name]()
            if number:
                results[name].append(result)
    return results


# The loss alone


def print_losses(precision: str, tokens: int, options: argparse.Namespace, device: torch.device) -> None:
    size, width = options.vocabulary, options.width
    generator = torch.Generator(device).manual_seed(0)
    random = lambda *shape: torch.randn(*shape, generator=generator, device=device)  # noqa: E731
    hidden_ND, weight_VD = random(tokens, width).requires_grad_(), (random(size, width) / 8).requires_grad_()
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    teacher_ND, teacher_head = random(tokens, width).to(kind), Head((random(size, width) / 8).to(kind))
    first_N = torch.randint(size, (tokens,), generator=generator, device=device)
    spaced = lambda k: (first_N[:, None] + torch.arange(k, device=device) * (size // k)) % size  # noqa: E731
    labels = losses.Labels(first_N)
    drawn = losses.Sampled(spaced(DRAWS), torch.full((tokens, DRAWS), 1 / DRAWS, device=device))
    kept_NK = torch.full((tokens, KEPT), 0.8 / KEPT, device=device).log()
    rest_N = torch.full((tokens,), 0.2, device=device).log()
    topk = losses.TopK(spaced(KEPT), kept_NK, rest_N, torch.zeros(tokens, device=device), size - 1)
    weights_N = torch.full((tokens,), 1 / tokens, device=device)

    def whole() -> torch.Tensor:
        return functional.cross_entropy(functional.linear(hidden_ND, weight_VD).float(), first_N)

    def chunked(name: str, target: losses.Target | None, times: int) -> Callable[[], torch.Tensor]:
        def tokenwise(z_CV: torch.Tensor, at: tuple[int, int]) -> torch.Tensor:
            if target is not None:
                return losses.divergence(z_CV, losses.cut(target, *at), name)
            with torch.no_grad():
                live = losses.Dense(logits_of(teacher_ND[slice(*at)], teacher_head))
            return losses.divergence(z_CV, live, name)

        chunk = times * heads.chunk_of(size, device.type)
        return lambda: through_head(hidden_ND, Head(weight_VD), tokenwise, weights_N, chunk)[0]

    def timed(loss_of: Callable[[], torch.Tensor]) -> dict[str, float]:
        hidden_ND.grad = weight_VD.grad = None
        before = reset_peak(device)
        synchronize(device)
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of()
        loss.backward()
        synchronize(device)
        return {"ms": 1e3 * (time.perf_counter() - began), "peak": peak(device) - before, "loss": float(loss.detach())}

    ways = {("cross-entropy, torch, whole", 0): whole}
    for what, name, target in (
        ("cross-entropy", "cross_entropy", labels),
        (f"{DRAWS} draws", "forward_kl", drawn),
        (f"top-{KEPT}, forward KL", "forward_kl", topk),
        (f"top-{KEPT}, reverse KL", "reverse_kl", topk),
        ("live teacher's output layer, forward KL", "forward_kl", None),
    ):
        for times in (1, LARGER):
            ways[what, times] = chunked(name, target, times)
    measured = rounds_of({str(key): lambda way=way: timed(way) for key, way in ways.items()}, options.rounds)
    base = [row["ms"] for row in measured[str(("cross-entropy, torch, whole", 0))]]
    print(f"The loss alone, {precision}\n")
    print("| loss | tokens in a chunk | ms | ratio to torch, whole | peak MiB | value |\n|---|---|---|---|---|---|")
    for (what, times), results in zip(ways, measured.values(), strict=True):
        ms = [row["ms"] for row in results]
        ratio = spread([value / base_value for value, base_value in zip(ms, base, strict=True)], ".2f")
        chunk = f"{times * heads.chunk_of(size, device.type):,}" if times else "all"
        memory, loss = median(row["peak"] for row in results) / 2**20, results[0]["loss"]
        print(f"| {what} | {chunk} | {spread(ms, '.1f')} | {ratio} | {memory:,.0f} | {loss:.4f} |", flush=True)
    print()


# Whole steps


class Plain(Objective):
    """Cross-entropy as a plain trainer computes it, on all completion logits at once. All rows must have the same
    length.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Sequence[Example], step: Sequence[Example]) -> tuple[torch.Tensor, dict[str, float]]:
        ids_BT = torch.tensor([[*e.prompt, *e.completion] for e in rows], device=self.model.device)
        count = len(rows[0].completion)
        z_BTV = self.model(ids_BT[:, :-1], logits_to_keep=count, use_cache=False).logits
        loss = functional.cross_entropy(z_BTV.float().flatten(0, 1), ids_BT[:, -count:].flatten(), reduction="sum")
        loss = loss / sum(len(e.completion) for e in step)
        return loss, {"loss": float(loss.detach())}

    def tokens(self, rows: Sequence[Example]) -> int:
        return sum(len(e.completion) for e in rows)


class Clock(Progress):
    """Records the time at which each step ended."""

    def __init__(self, device: torch.device) -> None:
        super().__init__("train", 0, "steps")
        self.device = device
        self.times: list[float] = []

    def advance(self, count: int, *, failed: int = 0, resumed: bool = False) -> None:
        if count:
            synchronize(self.device)
            self.times.append(time.perf_counter())


def batches_of(options: argparse.Namespace, kind: str, count: int = 2) -> list[list[Text]]:
    """Batches of random rows whose stored distributions are of kind `kind`. If `kind` is empty, the rows have no
    distributions.
    """
    rng, size, rows = np.random.default_rng(0), options.vocabulary, []
    for number in range(count * options.rows):
        prompt, completion = (rng.integers(0, size, n).tolist() for n in (options.prompt, options.completion))
        target: logits.Target | None = None
        if kind == "sampled":
            # A third of the draws are the most likely id, as is typical of a real model.
            drawn_TN = rng.integers(0, size, (len(completion), DRAWS), dtype=np.int32)
            drawn_TN[:, : DRAWS // 3] = np.array(completion)[:, None]
            target = logits.count_draws(drawn_TN)
        elif kind == "topk":
            ids_TK = (np.array(completion)[:, None] + np.arange(KEPT) * (size // KEPT)) % size
            logp_TK = np.tile(np.log(0.8 * 0.5 ** np.arange(1, KEPT + 1)), (len(completion), 1)).astype(np.float32)
            rest_T = np.full(len(completion), np.log(0.2), np.float32)
            target = logits.TopK(ids_TK.astype(np.int32), logp_TK, rest_T, np.zeros(len(completion), np.float32))
        rows.append(Text(str(number), prompt, completion, target, True, teacher_prompt=prompt))
    return [rows[n * options.rows : (n + 1) * options.rows] for n in range(count)]


def model_of(options: argparse.Namespace, layers: int, seed: int, device: torch.device) -> Any:
    """A model with random weights, created on `device`."""
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=options.width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=options.width // 64,
        num_key_value_heads=max(1, options.width // 192),
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    with device:
        return LlamaForCausalLM(config)


@contextmanager
def chunks(times: int) -> Iterator[None]:
    before = dict(heads._CHUNK_ELEMENTS)
    heads._CHUNK_ELEMENTS.update({kind: size * times for kind, size in before.items()})
    yield
    heads._CHUNK_ELEMENTS.update(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.use_deterministic_algorithms(False)


def print_steps(precision: str, options: argparse.Namespace, device: torch.device) -> None:
    base = {"batch_size": options.rows, "save_steps": 10**6, "kd_weight": 0.9}
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    section = TrainSection.model_validate({**base, "dtype": dtype})
    online = TrainSection.model_validate({**base, "dtype": dtype, "online": {"mode": "teacher"}})
    meta = {"temperature": 1.0, "vocab_size": options.vocabulary}
    metas = {
        "sampled": {**meta, "kind": "sampled", "draws": DRAWS},
        "topk": {**meta, "kind": "topk", "k": KEPT},
        "": None,
    }
    data = {kind: batches_of(options, kind) for kind in metas}

    def live(model: Any) -> Objective:
        teacher = model_of(options, options.layers[1], 1, device).eval().to(getattr(torch, dtype))
        return LiveTeacher(model, SimpleNamespace(weights=Weights.of(teacher)), online)  # type: ignore[arg-type]

    def shards(kind: str) -> Callable[[Any], Objective]:
        return lambda model: FromStored(model, section, metas[kind])

    arms: dict[str, tuple[Callable[[Any], Objective], str, Callable[[], Any]]] = {
        "cross-entropy": (shards(""), "", nullcontext),
        "cross-entropy, torch, whole logits": (Plain, "", nullcontext),
        f"{DRAWS} draws": (shards("sampled"), "sampled", nullcontext),
        f"{DRAWS} draws, chunks {LARGER} times as large": (shards("sampled"), "sampled", lambda: chunks(LARGER)),
        f"{DRAWS} draws, deterministic kernels": (shards("sampled"), "sampled", deterministic),
        f"top-{KEPT}": (shards("topk"), "topk", nullcontext),
        "live teacher, full KL": (live, "", nullcontext),
    }

    def trained(name: str, steps: int) -> dict[str, float]:
        objective_of, kind, how = arms[name]
        gc.collect()
        reset_peak(device)
        clock = Clock(device)
        with how(), tempfile.TemporaryDirectory() as scratch:
            accelerator = accelerator_of(section, device, Path(scratch))
            objective = objective_of(model_of(options, options.layers[0], 0, device))
            where = Checkpoints(Path(scratch), "arm")
            batch_of = lambda step: data[kind][step % 2]  # noqa: E731
            metrics = fit(objective, batch_of, section, steps, where, clock, accelerator=accelerator)
            accelerator.free_memory()
        seconds = (clock.times[-1] - clock.times[0]) / max(1, steps - 1)
        return {"rate": metrics[0]["tokens"] / max(seconds, 1e-9), "peak": peak(device), "loss": metrics[0]["loss"]}

    measured = rounds_of({name: lambda name=name: trained(name, STEPS) for name in arms}, options.rounds)
    base_rates = [row["rate"] for row in measured["cross-entropy"]]
    print(f"A training step, {precision}; {options.rows} rows\n")
    print(
        "| arm | completion tokens/s | ratio to cross-entropy | peak MiB | peak, ratio to cross-entropy | first loss |"
    )
    print("|---|---|---|---|---|---|")
    base_peak = median(row["peak"] for row in measured["cross-entropy"]) or 1
    for name, results in measured.items():
        rates, memory = [row["rate"] for row in results], median(row["peak"] for row in results)
        ratio = spread([rate / base_rate for rate, base_rate in zip(rates, base_rates, strict=True)], ".2f")
        print(
            f"| {name} | {spread(rates, ',.0f')} | {ratio} | {memory / 2**20:,.0f} | {memory / base_peak:.2f} | "
            f"{results[0]['loss']:.4f} |",
            flush=True,
        )
    print()
    if options.profile:
        for name, results in measured.items():
            seconds = options.rows * options.completion / median(row["rate"] for row in results)
            print_profile(f"{name}, {precision}", seconds, lambda steps, name=name: trained(name, steps), device)


def print_profile(name: str, seconds: float, trained: Callable[[int], Any], device: torch.device) -> None:
    """Prints the time that the device computes in one step, and the kernels that take most time.

    The device's time in a step is half the difference between its times in a training of 4 steps and in a training of 2
    steps. `seconds` is the duration of a step without the profiler.
    """
    from torch.profiler import ProfilerActivity, profile

    sums: list[dict[str, float]] = []
    for steps in (2, 4):
        with profile(activities=[ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU]) as profiler:
            trained(steps)
        which = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        sums.append({e.key: getattr(e, which) / 1e6 for e in profiler.key_averages()})
    a_step = {key: (value - sums[0].get(key, 0.0)) / 2 for key, value in sums[1].items()}
    busy = sum(a_step.values())
    print(f"{name}: {1e3 * seconds:.1f} ms a step; the device computes for {100 * busy / seconds:.0f}% of it")
    for key, value in sorted(a_step.items(), key=lambda item: -item[1])[:8]:
        print(f"    {1e3 * value:7.2f} ms  {key[:100]}")
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trained(STEPS)
        torch.cuda.set_sync_debug_mode("default")
        places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
        print(f"    the host waits for the device {len(places) / STEPS:.0f} times a step, mostly at", end=" ")
        print(", ".join(f"{place} ({count / STEPS:g})" for place, count in Counter(places).most_common(10)))
    print(flush=True)


if __name__ == "__main__":
    main()
