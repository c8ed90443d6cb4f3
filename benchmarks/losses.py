"""Measures the memory and time to compute the loss and its gradients, with the logits of all tokens at once, and with
the logits of one chunk of tokens at a time.

    python benchmarks/losses.py [--tokens 2048] [--vocabulary 49152] [--width 576] [--compiled] [--only jsd]

Each measurement runs in a separate process. The process creates random hidden states and an output weight, and computes
loss and gradients once as a warm-up. The process then repeats this computation and measures its CPU time, on which
other programs have little effect. Memory is the process's peak minus the memory in use before the computation. The
memory includes the gradient of the weight. The arm "whole" computes the logits of all tokens and calls
`distill.losses.divergence`. The arm "chunked" uses `distill.output_layer.through_head`. With the option --compiled, the
arm "whole" is also measured under `torch.compile`, which compiles during the warm-up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import median

import torch

from distill import losses
from distill.cost import peak_rss
from distill.output_layer import Head, logits_of, through_head

CASES = [
    ("cross_entropy", "labels"),
    ("forward_kl", "sampled"),
    ("reverse_kl", "topk"),
    ("forward_kl", "dense"),
    ("jsd", "dense"),
]
KEPT, PASSES = 50, 2


def target_of(kind: str, tokens: int, vocabulary: int) -> losses.Target:
    """Random targets of kind `kind`. Dense targets are float16."""
    ids = torch.rand(tokens, 4 * KEPT).topk(KEPT).indices * (vocabulary // (4 * KEPT))
    if kind == "labels":
        return losses.Labels(ids[:, 0])
    if kind == "sampled":
        return losses.Sampled(ids, torch.full((tokens, KEPT), 1 / KEPT))
    if kind == "topk":
        logp = torch.full((tokens, KEPT), 0.8 / KEPT).log()
        return losses.TopK(ids, logp, torch.full((tokens,), 0.2).log(), torch.zeros(tokens))
    return losses.Dense(torch.randn(tokens, vocabulary, dtype=torch.float16))


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Computes loss and gradients several times. Returns the CPU seconds of the first computation, the median CPU
    seconds of the later computations, and the peak memory in MiB minus the memory in use before the first computation.
    Also returns the loss and the norm of the gradient, which must be the same in all arms.
    """
    torch.manual_seed(0)
    hidden = torch.randn(arguments.tokens, arguments.width).requires_grad_()
    weight = (torch.randn(arguments.vocabulary, arguments.width) / arguments.width**0.5).requires_grad_()
    head = Head(weight)
    target = target_of(arguments.kind, arguments.tokens, arguments.vocabulary)

    def whole() -> torch.Tensor:
        return losses.divergence(logits_of(hidden, head), target, arguments.name).sum()

    def chunked() -> torch.Tensor:
        def tokenwise(z_CV: torch.Tensor, chunk: tuple[int, int]) -> torch.Tensor:
            return losses.divergence(z_CV, losses.cut(target, *chunk), arguments.name)

        return through_head(hidden, head, tokenwise, torch.ones(arguments.tokens))[0]

    way = {"whole": whole, "chunked": chunked, "compiled": torch.compile(whole)}[arguments.way]
    before, times = peak_rss(), []
    for _ in range(1 + PASSES):
        hidden.grad = weight.grad = None
        began = time.process_time()
        loss = way()
        loss.backward()
        times.append(time.process_time() - began)
    assert hidden.grad is not None
    return {
        "first": times[0],
        "seconds": median(times[1:]),
        "mib": (peak_rss() - before) / 2**20,
        "loss": float(loss.detach()) / arguments.tokens,
        "norm": float(hidden.grad.norm()),
    }


def run(arguments: argparse.Namespace, name: str, kind: str, way: str) -> dict[str, float]:
    sizes = [f"--{key}={getattr(arguments, key)}" for key in ("tokens", "vocabulary", "width")]
    command = [sys.executable, __file__, f"--name={name}", f"--kind={kind}", f"--way={way}", *sizes]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(json.loads(out.splitlines()[-1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--only", nargs="+", choices=dict(CASES), default=list(dict(CASES)), help="the divergences")
    for hidden_option in ("--name", "--kind", "--way"):
        parser.add_argument(hidden_option, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given)))
        sys.exit()
    print(
        f"{given.tokens:,} tokens × {given.vocabulary:,} ids, hidden size {given.width}, float32, "
        f"{torch.get_num_threads()} thread(s), torch {torch.__version__}\n"
    )
    columns = ("divergence, target", "whole, s", "chunked, s", "ratio", "whole, MiB", "chunked, MiB", "ratio")
    print(f"| {' | '.join(columns)} | gradients differ by |")
    print("|---|---|---|---|---|---|---|---|")
    for name, kind in [case for case in CASES if case[0] in given.only]:
        whole, chunked = run(given, name, kind, "whole"), run(given, name, kind, "chunked")
        print(
            f"| {name}, {kind} | {whole['seconds']:.2f} | {chunked['seconds']:.2f} | "
            f"{chunked['seconds'] / whole['seconds']:.2f} | {whole['mib']:,.0f} | {chunked['mib']:,.0f} | "
            f"{chunked['mib'] / whole['mib']:.3f} | {abs(whole['norm'] / chunked['norm'] - 1):.0e} |",
            flush=True,
        )
        if given.compiled:
            compiled = run(given, name, kind, "compiled")
            print(
                f"|   whole, compiled | {compiled['seconds']:.2f} (first {compiled['first']:.0f}) | | "
                f"{compiled['seconds'] / whole['seconds']:.2f} | {compiled['mib']:,.0f} | | | |",
                flush=True,
            )
