"""For each kind of stored target, measures the bytes on disk for each token, and the angle between the gradient of the
loss on this target and the exact gradient.

    python benchmarks/targets.py [--tokens 400]

The distributions are those of the demo's teacher on its own replies to the reasoning seeds. The first student has half
of the teacher's layers, and its distributions are far from the teacher's. The second student has all layers but two,
and its distributions are close to the teacher's. Every target is written to a Parquet shard with zstd and read back,
and the package's loss is computed on it. The bytes of a token are the size of the shard, divided by the number of
tokens.

The angle is between two gradients with respect to the logits: the gradient of the loss on the target, and the gradient
of the full KL. One column shows the angle between the gradients that are summed over all tokens, as in a training step.
The other column shows the mean of the angles at single tokens. In rows called "renormalized", the top-k is used as in
other tools: the probabilities of the kept ids are scaled to sum to one, the student's softmax is over the whole
vocabulary, and there is no residual mass.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import torch

from distill.data import target_batch
from distill.losses import Dense, Sampled, Target, TopK, cut, divergence
from distill.students.build import layer_map
from distill.students.layers import from_layers
from synthgen import corpus, durable, logits
from synthgen.lm.forward import completion_logits
from synthgen.lm.sampling import invert, top_k
from synthgen.prompts import load_prompt
from synthgen.recipe import load_recipe
from synthgen.requests import Request
from synthgen.seeds import load_seeds
from synthgen.teachers.transformers import LocalModel

CHUNK = 32  # number of tokens whose full gradients are in memory at once


def distributions(teacher: LocalModel, tokens: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[int]]:
    """Returns (teacher's log-probabilities (N, V), logits (N, V) of each student, number of tokens of each row)."""
    recipe = load_recipe("reasoning")
    prompt = load_prompt(recipe.prompts, recipe.task)
    seeds = load_seeds(recipe.seeds, recipe.split, prompt.question)[: 2 + tokens // 40]
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": min(48, tokens)}
    requests = [Request("sample", prompt.teacher(s.fields), sampling, id=f"{n:032x}") for n, s in enumerate(seeds)]
    replies = teacher.sample(requests, None)
    depth = teacher.model.config.num_hidden_layers
    students = {
        f"{count} of {depth} layers": from_layers(teacher.model, layer_map(count, depth)).eval()
        for count in (depth // 2, depth - 2)
    }
    asked = [teacher.render(r.messages) for r in requests]
    logp: list[torch.Tensor] = []
    z: dict[str, list[torch.Tensor]] = {name: [] for name in students}
    rows: list[int] = []
    for prompt_ids, reply in zip(asked, replies, strict=True):
        ids = list(reply.token_ids)
        with torch.inference_mode():
            logp.append(completion_logits(teacher.model, [prompt_ids], [ids])[0].float().log_softmax(-1))
            for name, student in students.items():
                z[name].append(completion_logits(student, [prompt_ids], [ids])[0].float())
        rows.append(len(ids))
        if sum(rows) >= tokens:
            break
    return torch.cat(logp).clone(), {name: torch.cat(parts).clone() for name, parts in z.items()}, rows


def stored(logp_NV: torch.Tensor, rows: list[int], spec: logits.LogitsSpec) -> tuple[Target, float]:
    """Writes the distributions to a shard. Returns (target read back from the shard, bytes of the shard on disk divided
    by the number of tokens).
    """
    meta = logits.meta(spec, logp_NV.shape[-1], "teacher", "tokenizer")
    targets: list[logits.Target] = []
    for row, part in enumerate(logp_NV.split(rows)):
        if spec.kind == "sampled":
            u = torch.from_numpy(np.random.default_rng([row, spec.draws]).random((len(part), spec.draws)))
            targets.append(logits.count_draws(invert(part.softmax(-1).double().cumsum(-1), u).numpy()))
        else:
            targets.append(logits.TopK(*(t.numpy() for t in top_k(part, spec.k, 1.0))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        durable.write_json(folder / "inputs.json", {})
        aligns = [b"0" * 16] * len(rows)
        table = logits.to_table([str(n) for n in range(len(rows))], aligns, targets, meta)
        corpus.commit(folder, "train-00000", {"logits/teacher": table})
        path = folder / "logits" / "teacher" / "train-00000.parquet"
        shard = logits.read(path)
        return target_batch([shard.target(n) for n in range(len(shard))], meta), path.stat().st_size / sum(rows)


def gradients(z_NV: torch.Tensor, target: Target) -> torch.Tensor:
    z_NV = z_NV.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(z_NV, target, "forward_kl").sum(), z_NV)
    return gradient


def renormalized(target: TopK) -> Target:
    """A target without residual mass, in which the probabilities of the kept ids are scaled to sum to one."""
    return Sampled(target.ids_NK, target.logp_NK.softmax(-1))


class Angles:
    """Sums gradients over chunks of tokens, and computes the angles between the gradients of the loss on the target and
    the exact gradients.
    """

    def __init__(self, vocabulary: int) -> None:
        self.ours, self.full = torch.zeros(vocabulary).double(), torch.zeros(vocabulary).double()
        self.each: list[float] = []

    def add(self, ours_NV: torch.Tensor, full_NV: torch.Tensor) -> None:
        self.ours += ours_NV.sum(0)
        self.full += full_NV.sum(0)
        a, b = ours_NV.double(), full_NV.double()
        self.each += _degrees((a * b).sum(-1), a.square().sum(-1), b.square().sum(-1)).tolist()

    def summary(self) -> tuple[float, float]:
        """Returns two angles in degrees: the angle between the summed gradients, and the mean of the angles at single
        tokens.
        """
        a, b = self.ours, self.full
        return float(_degrees(a @ b, a @ a, b @ b)), float(np.mean(self.each))


def _degrees(dot: torch.Tensor, aa: torch.Tensor, bb: torch.Tensor) -> torch.Tensor:
    return (dot / (aa * bb).sqrt()).clamp(-1, 1).acos() * 180 / math.pi


def equal_bytes(logp_NV: torch.Tensor, rows: list[int], budget: float) -> int:
    """The largest k for which a shard takes at most `budget` bytes a token."""
    k = 1
    while stored(logp_NV, rows, logits.LogitsSpec("topk", k=k + 1))[1] <= budget:
        k += 1
    return k


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=400)
    wanted = parser.parse_args().tokens
    model = LocalModel.open(load_recipe("reasoning").teacher)
    logp, students, rows = distributions(model, wanted)
    arms: list[tuple[str, Target, float]] = []
    for draws in (12, 50):
        target, size = stored(logp, rows, logits.LogitsSpec("sampled", draws=draws))
        arms.append((f"{draws} draws", target, size))
        k = equal_bytes(logp, rows, size)
        kept, size = stored(logp, rows, logits.LogitsSpec("topk", k=k))
        assert isinstance(kept, TopK)
        arms += [(f"top-{k} renormalized", renormalized(kept), size), (f"top-{k} + residual", kept, size)]
    print(f"{model.identity['model']}, V = {logp.shape[-1]:,}, {len(logp)} tokens of {len(rows)} replies")
    for student, z in students.items():
        print(f"\nStudent: {student}, KL {float(divergence(z, Dense(logp)).mean()):.2f} nats a token\n")
        print(
            "| target | bytes a token | angle of the sum over tokens | mean angle of single tokens |\n|---|---|---|---|"
        )
        for name, target, size in arms:
            angles = Angles(logp.shape[-1])
            for a in range(0, len(z), CHUNK):
                b = min(a + CHUNK, len(z))
                angles.add(gradients(z[a:b], cut(target, a, b)), gradients(z[a:b], Dense(logp[a:b])))
            summed, single = angles.summary()
            print(f"| {name} | {size:.1f} | {summed:.1f}° | {single:.1f}° |", flush=True)
