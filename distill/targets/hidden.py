"""Loss terms on a teacher's layers: on hidden states of some layers, and on attention relations of one layer.

    terms = LayerTerms(student, teacher, section)         # its projections are trained, but not part of the student
    states_ND, loss, parts = terms(student, head, rows, step)

Both terms are computed in float32. The terms are means over the n_valid completion tokens of the whole optimizer step.
Both terms are zero when the student equals the teacher and reads the same prompt.

    hidden      Σ ‖LN(W h_s) − LN(h_t)‖² / (n_valid · d_t)  or  Σ (1 − cos) / n_valid

The hidden term is a mean over pairs (s, t) of a student layer and a teacher layer. The hidden states of these layers
are h_s and h_t, and d_t is the teacher's width. LN is layer normalization without gain and bias. W is a projection
without bias. Each pair has its own W, which is trained with the student. W starts as the identity when the widths are
equal. TinyBERT (arXiv 1909.10351) has a single W for all pairs, and no LN.

    relations   Σ_{Q,K,V} Σ_a KL(R_a^T ‖ R_a^S) / (A_r · n_valid),  R_a = softmax(A_a A_aᵀ / √d_r)

The relations term is from MiniLMv2 (arXiv 2012.15828). The queries, keys or values of one layer are split into A_r
relation heads of width d_r, and A_a is the part of head a. Queries, keys and values are the outputs of the projections,
before rotary position embeddings. Row n of R_a has the similarities of token n to itself and to the tokens before it. T
is the teacher, S the student.

The teacher's states are computed by the live teacher in each step, or read from files
(`distill.targets.hidden_states`). The teacher reads the prompt that it was sent when the corpus was generated. The
student reads its own prompt. When both prompts have the same tokens, relations include prompt tokens. Otherwise
relations are only between completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from distill.data import Example
from distill.output_layer import Head
from distill.targets.hidden_states import States
from distill.targets.layer_outputs import NO_HEAD, attention_parts, layers_of, see
from synthgen.errors import RecipeError
from synthgen.recipe import Hidden, Relations, TrainSection


class LayerTerms(nn.Module):
    """The terms `section.hidden` and `section.relations` for one student of one frozen teacher.

    `teacher` is the live teacher or its stored states. `section.relations` needs the live teacher. Raises RecipeError
    when the section's layers, widths or heads do not fit the two models.
    """

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel | States, section: TrainSection) -> None:
        super().__init__()
        self.stored = teacher if isinstance(teacher, States) else None
        # A tuple hides the teacher from nn.Module, so the teacher is neither trained nor saved.
        self.teacher = (None if self.stored else teacher,)
        self.hidden, self.relations = section.hidden, section.relations
        self.pairs: list[tuple[int, int]] = []
        self.projections = nn.ModuleList()
        self.heads = self.layer = 0
        if self.hidden:
            self._prepare_hidden(self.hidden, student, teacher, section.seed)
        if self.relations:
            self._prepare_relations(self.relations, student, teacher)

    def _prepare_hidden(
        self, hidden: Hidden, student: PreTrainedModel, teacher: PreTrainedModel | States, seed: int
    ) -> None:
        depth = teacher.depth if isinstance(teacher, States) else len(layers_of(teacher))
        self.pairs = layer_pairs(hidden, len(layers_of(student)), depth)
        own = int(student.config.get_text_config().hidden_size)
        wanted = teacher.width if isinstance(teacher, States) else int(teacher.config.get_text_config().hidden_size)
        if hidden.projection:
            generator = torch.Generator().manual_seed(seed)
            self.projections.extend(projection(own, wanted, generator) for _ in self.pairs)
        elif own != wanted:
            raise RecipeError(
                f"train.hidden.projection is false, but the student is {own} wide and the teacher {wanted}",
                "leave train.hidden.projection out, so that a projection is learned",
            )

    def _prepare_relations(
        self, relations: Relations, student: PreTrainedModel, teacher: PreTrainedModel | States
    ) -> None:
        if isinstance(teacher, States):
            raise ValueError("relations are computed from the live teacher")
        depth = len(layers_of(teacher))
        self.layer = depth - 1 if relations.layer is None else relations.layer
        if self.layer >= depth:
            raise RecipeError(
                f"train.relations.layer is {self.layer}; the teacher has layers 0 to {depth - 1}",
                "name a layer that the teacher has",
            )
        config = teacher.config.get_text_config()
        fewest = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.heads = relations.heads or fewest
        for model, layer in ((student, len(layers_of(student)) - 1), (teacher, self.layer)):
            for width in attention_parts(layers_of(model)[layer])[1]:
                if width % self.heads:
                    raise RecipeError(
                        f"train.relations.heads is {self.heads}, which does not divide a width of {width}",
                        "give a number that divides the widths of queries, keys and values of both models",
                    )

    def describe(self) -> str:
        """Describe the terms in words, for the model card."""
        terms = []
        if self.hidden:
            pairs = ", ".join(f"{s} from {t}" for s, t in self.pairs)
            how = "learned projections" if len(self.projections) else "no projection"
            terms.append(f"hidden states ({self.hidden.loss}, layers {pairs}, {how}, weight {self.hidden.weight:g})")
        if self.relations:
            terms.append(
                f"attention relations (the last layer from {self.layer}, {self.heads} heads, "
                f"weight {self.relations.weight:g})"
            )
        return " and ".join(terms) + (" of the teacher, stored" if self.stored else " of the live teacher")

    def forward(
        self, model: PreTrainedModel, head: Head | None, rows: Sequence[Example], step: Sequence[Example]
    ) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Return (states, loss, parts) for the student `model`.

        The states are the result of `completion_states`. The loss is the weighted sum of the terms, and `parts` has the
        unweighted terms by name. `rows` are some rows of the optimizer step `step`. Each term is divided by the number
        of completion tokens in the whole step.
        """
        prompts, completions = [e.prompt for e in rows], [e.completion for e in rows]
        last = -1 if self.relations else None
        states, student = see(model, head, prompts, completions, [s for s, _ in self.pairs], last)
        device = states[0].device
        teacher = self._of_teacher(rows, device)
        tokens = sum(len(e.completion) for e in step)
        total = torch.zeros((), device=device)
        parts: dict[str, float] = {}
        with torch.autocast(device.type, enabled=False):
            if self.hidden:
                value = self._hidden(self.hidden, rows, student, teacher)
                parts["hidden"] = float(value.detach()) / tokens
                total = total + self.hidden.weight / tokens * value
            if self.relations:
                value = self._relations(rows, student, teacher)
                parts["relations"] = float(value.detach()) / tokens
                total = total + self.relations.weight / tokens * value
        return torch.cat(states), total, parts

    def _of_teacher(self, rows: Sequence[Example], device: torch.device) -> list[list[Tensor]]:
        """The teacher's layer outputs for each row, in the form that `see` returns."""
        prompts, completions = [_read_by_teacher(e) for e in rows], [e.completion for e in rows]
        depths = [t for _, t in self.pairs]
        if self.stored:
            texts = zip(prompts, completions, strict=True)
            return [[self.stored.read(t, *text) for t in depths] for text in texts]
        layer = self.layer if self.relations else None
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return see(self.teacher[0], NO_HEAD, prompts, completions, depths, layer)[1]

    def _hidden(
        self, hidden: Hidden, rows: Sequence[Example], student: list[list[Tensor]], teacher: list[list[Tensor]]
    ) -> Tensor:
        """Sum the distances of hidden states over the tokens of `rows`, and take the mean over layer pairs."""
        device = student[0][0].device
        total = torch.zeros((), device=device)
        for n in range(len(self.pairs)):
            w = self.projections[n].weight if len(self.projections) else None
            h_s, h_t = (
                torch.cat([outputs[n][-len(e.completion) :] for outputs, e in zip(side, rows, strict=True)])
                for side in (student, teacher)
            )
            total = total + hidden_term(h_s, h_t.to(device), w, hidden.loss) / len(self.pairs)
        return total

    def _relations(self, rows: Sequence[Example], student: list[list[Tensor]], teacher: list[list[Tensor]]) -> Tensor:
        """Sum the divergences of attention relations over the tokens of `rows`."""
        total = torch.zeros((), device=student[0][0].device)
        for e, own, other in zip(rows, student, teacher, strict=True):
            count = len(e.completion)
            keys = None if e.prompt == _read_by_teacher(e) else count
            for a, b in zip(own[-3:], other[-3:], strict=True):
                total = total + relation_term(a, b.to(total.device), self.heads, count, keys)
        return total


def _read_by_teacher(row: Example) -> list[int]:
    """The tokens of the prompt that the teacher reads."""
    return list(row.teacher_prompt) or row.prompt


def hidden_term(h_s: Tensor, h_t: Tensor, weight: Tensor | None, loss: str) -> Tensor:
    """Sum the distances between `h_s` (N, d_s) and `h_t` (N, d_t) over the N tokens.

    `h_s` is first projected by `weight` (d_t, d_s), if given.
    """
    h_s, h_t = _float(h_s), _float(h_t)
    if weight is not None:
        h_s = functional.linear(h_s, weight.to(h_s.dtype))
    if loss == "cosine":
        return (1 - functional.cosine_similarity(h_s, h_t, dim=-1)).sum()
    size = h_t.shape[-1:]
    return (functional.layer_norm(h_s, size) - functional.layer_norm(h_t, size)).square().sum() / size[0]


def relation_term(a_s: Tensor, a_t: Tensor, heads: int, queries: int, keys: int | None = None) -> Tensor:
    """Sum KL(R^T ‖ R^S) over heads and the last `queries` positions, and divide by `heads`.

    `a_s` (L_s, D_s) and `a_t` (L_t, D_t) are queries, keys or values of one sequence. With `keys`, only the last `keys`
    positions are related to each other. Without `keys`, all positions are related to each other, and L_s must equal
    L_t.
    """
    logr_s, logr_t = (_relations(_float(a if keys is None else a[-keys:]), heads, queries) for a in (a_s, a_t))
    past = logr_t > -torch.inf
    return (logr_t.exp() * (logr_t - logr_s).masked_fill(~past, 0)).sum() / heads


def _relations(a_LD: Tensor, heads: int, queries: int) -> Tensor:
    """Return (heads, queries, L): log-relations of each of the last `queries` positions to itself and all earlier
    positions.
    """
    length = len(a_LD)
    a = a_LD.view(length, heads, -1).transpose(0, 1)
    scores = a[:, length - queries :] @ a.transpose(1, 2) / a.shape[-1] ** 0.5
    past = torch.ones(queries, length, dtype=torch.bool, device=a.device).tril(length - queries)
    return scores.masked_fill(~past, -torch.inf).log_softmax(-1)


def _float(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def layer_pairs(section: Hidden, student: int, teacher: int) -> list[tuple[int, int]]:
    """Return the pairs (student layer, teacher layer), counted from 0.

    `student` and `teacher` are the numbers of layers of the models. Raises RecipeError when the section names no layer,
    or a layer that a model does not have.
    """
    if section.layers == "uniform":
        return [(s, max(1, round((s + 1) * teacher / student)) - 1) for s in range(student)]
    pairs = sorted(section.layers.items())
    for s, t in pairs:
        if not (0 <= s < student and 0 <= t < teacher):
            raise RecipeError(
                f"train.hidden.layers pairs {s} with {t}; the student has layers 0 to {student - 1}, the teacher 0 to "
                f"{teacher - 1}",
                "name layers that the models have",
            )
    if not pairs:
        raise RecipeError("train.hidden.layers is empty", "name pairs of layers, or leave train.hidden.layers out")
    return pairs


def projection(student: int, teacher: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer without bias from the student's width to the teacher's.

    The layer is the identity when the widths are equal, and random otherwise.
    """
    layer = nn.Linear(student, teacher, bias=False)
    with torch.no_grad():
        if student == teacher:
            layer.weight.copy_(torch.eye(student))
        else:
            layer.weight.copy_(torch.randn(teacher, student, generator=generator) / student**0.5)
    return layer
