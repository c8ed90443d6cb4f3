"""What a student learns from inside its teacher: hidden states of some layers, and attention relations of one.

    inside = Inside(student, teacher, section)            # None of it is in the student: dropped on export
    states_ND, loss, parts = inside(student, head, rows, step)

Both terms are means over the tokens that teach (`n_valid`, completion tokens of the whole optimizer step), in float32,
and zero when the student is the teacher and reads the same prompt:

    hidden      Σ ‖LN(W h_s) − LN(h_t)‖² / (n_valid · d_t)  or  Σ (1 − cos) / n_valid;  a mean over layer pairs (s, t)
                LN without gain or bias; W a bias-free projection a pair, trained with the student (TinyBERT, arXiv
                1909.10351, has one for all and no LN); the identity at first where the widths are equal
    relations   Σ_{Q,K,V} Σ_a KL(R_a^T ‖ R_a^S) / (A_r · n_valid),  R_a = softmax(A_a A_aᵀ / √d_r)
                A_a: queries, keys or values of one layer cut into A_r relation heads (MiniLMv2, arXiv 2012.15828), as
                they leave their projections, before rotary positions; a token is related to itself and those before it

The live teacher makes its states in each step, or has made them before (`distill.targets.hidden_states`). It reads the prompt that it
was sent, as when its distributions were stored, and the student its own. Where the two are the same tokens, relations
reach into the prompt; where they are not, they are among completion tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.data import Example
from distill.output_layer import Head
from distill.targets.hidden_states import States
from distill.targets.layer_outputs import NO_HEAD, attention_parts, layers_of, see
from synthgen.errors import RecipeError
from synthgen.recipe import Hidden, TrainSection


class Inside(nn.Module):
    """The terms `section.hidden` and `section.relations` for one student of one teacher (a causal model, frozen).

    With `stored` states the teacher itself is not asked, and may be None; relations need it. Raises
    RecipeError for layers, widths or heads that do not fit the two models.
    """

    def __init__(self, student: Any, teacher: Any, section: TrainSection, stored: States | None = None) -> None:
        super().__init__()
        self.teacher = (teacher,)  # no submodule: neither trained nor saved
        self.stored = stored
        self.hidden, self.relations = section.hidden, section.relations
        self.pairs: list[tuple[int, int]] = []
        self.projections = nn.ModuleList()
        self.heads = self.layer = 0
        if self.hidden:
            depth = stored.depth if stored else len(layers_of(teacher))
            self.pairs = layer_pairs(self.hidden, len(layers_of(student)), depth)
            own = int(student.config.get_text_config().hidden_size)
            its = stored.width if stored else int(teacher.config.get_text_config().hidden_size)
            if self.hidden.projection:
                generator = torch.Generator().manual_seed(section.seed)
                self.projections.extend(projection(own, its, generator) for _ in self.pairs)
            elif own != its:
                raise RecipeError(
                    f"train.hidden.projection is false, but the student is {own} wide and the teacher {its}",
                    "leave it out: a projection is learned",
                )
        if self.relations:
            self.layer = len(layers_of(teacher)) - 1 if self.relations.layer is None else self.relations.layer
            if self.layer >= len(layers_of(teacher)):
                raise RecipeError(
                    f"train.relations.layer is {self.layer}; the teacher has layers 0 to {len(layers_of(teacher)) - 1}",
                    "name a layer it has",
                )
            config = teacher.config.get_text_config()
            few = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            self.heads = self.relations.heads or few
            for model, layer in ((student, len(layers_of(student)) - 1), (teacher, self.layer)):
                for width in attention_parts(layers_of(model)[layer])[1]:
                    if width % self.heads:
                        raise RecipeError(
                            f"train.relations.heads is {self.heads}, which does not divide a width of {width}",
                            "set it to a number that divides the widths of queries, keys and values of both models",
                        )

    def describe(self) -> str:
        """In words, for cards."""
        found = []
        if self.hidden:
            pairs = ", ".join(f"{s} from {t}" for s, t in self.pairs)
            how = "learned projections" if len(self.projections) else "no projection"
            found.append(f"hidden states ({self.hidden.loss}, layers {pairs}, {how}, weight {self.hidden.weight:g})")
        if self.relations:
            found.append(
                f"attention relations (the last layer from {self.layer}, {self.heads} heads, "
                f"weight {self.relations.weight:g})"
            )
        return " and ".join(found) + (" of the teacher, stored" if self.stored else " of the live teacher")

    def forward(
        self, model: Any, head: Head | None, rows: Sequence[Example], step: Sequence[Example]
    ) -> tuple[Tensor, Tensor, dict[str, float]]:
        """What `completion_states` gives for the student `model`; and the weighted terms with their values by name.

        `rows` are some of the rows of `step`, by whose tokens the terms are divided.
        """
        completions = [e.completion for e in rows]
        student_prompts = [e.prompt for e in rows]
        teacher_prompts = [list(e.teacher_prompt) or e.prompt for e in rows]
        attention = (-1, self.layer) if self.relations else (None, None)
        states, mine = see(model, head, student_prompts, completions, [s for s, _ in self.pairs], attention[0])
        device = states[0].device
        depths = [t for _, t in self.pairs]
        if self.stored:
            texts = zip(teacher_prompts, completions, strict=True)
            its = [[self.stored.read(t, *text) for t in depths] for text in texts]
        else:
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                _, its = see(self.teacher[0], NO_HEAD, teacher_prompts, completions, depths, attention[1])
        tokens = sum(len(e.completion) for e in step)
        total = torch.zeros((), device=device)
        parts: dict[str, float] = {}
        with torch.autocast(device.type, enabled=False):
            if self.hidden:
                found = total
                for n in range(len(self.pairs)):
                    w = self.projections[n].weight if len(self.projections) else None
                    h_s = torch.cat([row[n][-len(c) :] for row, c in zip(mine, completions, strict=True)])
                    h_t = torch.cat([row[n][-len(c) :] for row, c in zip(its, completions, strict=True)])
                    found = found + hidden_term(h_s, h_t.to(device), w, self.hidden.loss) / len(self.pairs)
                parts["hidden"] = float(found.detach()) / tokens
                total = total + self.hidden.weight / tokens * found
            if self.relations:
                found = torch.zeros((), device=device)
                for n, (own, other) in enumerate(zip(mine, its, strict=True)):
                    count = len(completions[n])
                    keys = None if student_prompts[n] == teacher_prompts[n] else count
                    for a, b in zip(own[-3:], other[-3:], strict=True):
                        found = found + relation_term(a, b.to(device), self.heads, count, keys)
                parts["relations"] = float(found.detach()) / tokens
                total = total + self.relations.weight / tokens * found
        return torch.cat(states), total, parts


def hidden_term(h_s: Tensor, h_t: Tensor, weight: Tensor | None, loss: str) -> Tensor:
    """Sum over tokens of the distance of `h_s` (N, d_s), through `weight` (d_t, d_s), from `h_t` (N, d_t)."""
    h_s, h_t = _float(h_s), _float(h_t)
    if weight is not None:
        h_s = functional.linear(h_s, weight.to(h_s.dtype))
    if loss == "cosine":
        return (1 - functional.cosine_similarity(h_s, h_t, dim=-1)).sum()
    size = h_t.shape[-1:]
    return (functional.layer_norm(h_s, size) - functional.layer_norm(h_t, size)).square().sum() / size[0]


def relation_term(a_s: Tensor, a_t: Tensor, heads: int, queries: int, keys: int | None = None) -> Tensor:
    """Σ over heads and the last `queries` positions of KL(R^T ‖ R^S), divided by `heads`.

    `a_s` (L_s, D_s), `a_t` (L_t, D_t) are queries, keys or values of one sequence. `keys`: relate only the last so
    many positions; without it all, and then L_s = L_t.
    """
    logr_s, logr_t = (_relations(_float(a if keys is None else a[-keys:]), heads, queries) for a in (a_s, a_t))
    past = logr_t > -torch.inf
    return (logr_t.exp() * (logr_t - logr_s).masked_fill(~past, 0)).sum() / heads


def _relations(a_LD: Tensor, heads: int, queries: int) -> Tensor:
    """Log-relations (heads, queries, L) of the last `queries` positions to themselves and those before."""
    length = len(a_LD)
    a = a_LD.view(length, heads, -1).transpose(0, 1)
    scores = a[:, length - queries :] @ a.transpose(1, 2) / a.shape[-1] ** 0.5
    past = torch.ones(queries, length, dtype=torch.bool, device=a.device).tril(length - queries)
    return scores.masked_fill(~past, -torch.inf).log_softmax(-1)


def _float(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def layer_pairs(section: Hidden, student: int, teacher: int) -> list[tuple[int, int]]:
    """(student layer, teacher layer), from 0, of models of so many layers. Raises RecipeError."""
    if section.layers == "uniform":
        return [(s, max(1, round((s + 1) * teacher / student)) - 1) for s in range(student)]
    pairs = sorted(section.layers.items())
    for s, t in pairs:
        if not (0 <= s < student and 0 <= t < teacher):
            raise RecipeError(
                f"train.hidden.layers pairs {s} with {t}; the student has layers 0 to {student - 1}, the teacher 0 to "
                f"{teacher - 1}",
                "name layers they have",
            )
    if not pairs:
        raise RecipeError("train.hidden.layers is empty", "name pairs of layers, or leave it out")
    return pairs


def projection(student: int, teacher: int, generator: torch.Generator) -> nn.Linear:
    """A bias-free map from the student's width to the teacher's: the identity where they are equal, else random."""
    layer = nn.Linear(student, teacher, bias=False)
    with torch.no_grad():
        if student == teacher:
            layer.weight.copy_(torch.eye(student))
        else:
            layer.weight.copy_(torch.randn(teacher, student, generator=generator) / student**0.5)
    return layer
