"""Teachers with another tokenizer: the places where texts are cut into parts, the values that are exact, and a
comparison of ULD with its formula.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support.small import small_teacher
from support.training import curve_of, metrics_of, resumes_everywhere, training_of
from support.unaudited import train

import synthgen
from distill import losses
from distill.data import Choice, Example, rows, topk_batch
from distill.output_layer import Head
from distill.targets.across import Part, Translation, Vocabulary, cuts, load_across, shared, uld
from distill.targets.stored import Rows, batch_loss
from synthgen import logits
from synthgen.errors import CorpusError, RecipeError
from synthgen.lm.sampling import top_k
from synthgen.recipe import TrainSection
from synthgen.teachers.transformers import LocalModel

STUDENTS = Vocabulary([b"a", b"b", b" ", b"ab", b" a", b"ba", None], 6)
TEACHERS = Vocabulary([b"b", b"a", b"ab", b"bb", b" ", None, b"aba", b"bab"], 5)
TRANSLATION = Translation(shared(STUDENTS, TEACHERS, 8), 7, 8)


def segmented(rng, text: bytes, vocabulary: Vocabulary) -> list[int]:
    """A random tokenization of a text."""
    ids: list[int] = []
    while text:
        fit = [i for i, piece in enumerate(vocabulary.pieces) if piece and text.startswith(piece)]
        ids.append(int(rng.choice(fit)))
        text = text[len(vocabulary.pieces[ids[-1]]) :]
    return ids


def test_cuts_are_the_bytes_where_both_begin_a_token():
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = bytes(rng.choice(list(b"ab a"), rng.integers(1, 12)).tolist())
        a, b = segmented(rng, text, STUDENTS), segmented(rng, text, TEACHERS)
        closed = [bool(rng.integers(2)) for _ in range(2)]
        parts = cuts(a + [6] * closed[0], STUDENTS, b + [5] * closed[1], TEACHERS)
        starts = [
            {len(b"".join(v.pieces[i] for i in ids[:n])) for n in range(1, len(ids) + 1)}
            for ids, v in ((a, STUDENTS), (b, TEACHERS))
        ]
        assert len(parts) == len(starts[0] & starts[1]) + all(closed)
        for own, theirs in parts[: len(parts) - all(closed)]:
            assert (
                b"".join(STUDENTS.pieces[i] for i in a[own]) == b"".join(TEACHERS.pieces[i] for i in b[theirs]) != b""
            )
        assert sum(own.stop - own.start for own, _ in parts) == len(a) + all(closed)
        if all(closed):
            assert parts[-1] == (slice(len(a), len(a) + 1), slice(len(b), len(b) + 1))


def test_texts_that_differ_and_a_space_of_its_own():
    assert cuts([0, 1], STUDENTS, [1, 1], TEACHERS) is None
    assert cuts([0, 6, 1], STUDENTS, [1, 0], TEACHERS) is None, "a special token within"
    # The tokens " a" and "a" differ, so the first part is left out.
    assert cuts([4, 1, 0], STUDENTS, [1, 0, 1], TEACHERS) == [(slice(1, 2), slice(1, 2)), (slice(2, 3), slice(2, 3))]
    assert cuts([1, 0], STUDENTS, [4, 0, 1], TEACHERS) is None, "the space is a token of its own"
    assert cuts([6], STUDENTS, [1, 5], TEACHERS) is None
    assert cuts([0, 6], STUDENTS, [5], TEACHERS) is None
    assert cuts([6], STUDENTS, [4, 5], TEACHERS) is None
    assert cuts([6], STUDENTS, [5], TEACHERS) == [(slice(0, 1), slice(0, 1))]


def test_shared_tokens_have_the_same_bytes():
    assert shared(STUDENTS, TEACHERS, 8).tolist() == [1, 0, 3, -1, 2, 6, -1, -1]
    assert shared(STUDENTS, TEACHERS, 11).tolist()[8:] == [-1, -1, -1]


def stored(logp: torch.Tensor, k: int) -> logits.TopK:
    return logits.TopK(*(part.numpy() for part in top_k(logp, k, 1.0)))


def example(a: list[int], b: list[int], k: int, seed: int = 0) -> tuple[Example, torch.Tensor, list]:
    """(row, the teacher's log-probabilities, parts). The row has the student's tokens `a`, and targets of a random
    teacher, whose tokens are `b`.
    """
    logp = (2 * torch.randn(len(b), 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))).log_softmax(
        -1
    )
    parts = cuts(a, STUDENTS, b, TEACHERS)
    topk, ulds = TRANSLATION.translated(stored(logp, k), b, parts, len(a))
    return Example("x", [], a, topk, True, (), parts=tuple(ulds)), logp, parts


A, B = [0, 1, 3, 2, 3, 0, 6], [1, 0, 1, 0, 4, 6, 5]  # the tokens a b ab _ ab a end, and the tokens a b a b _ aba end


@pytest.mark.parametrize("k", [8, 5, 2])
def test_shared_tokens_are_exact_and_the_rest_one_outcome(k):
    e, logp, parts = example(A, B, k)
    assert [(m.start, t.start) for m, t in parts if m.stop - m.start == t.stop - t.start == 1] == [
        (0, 0),
        (1, 1),
        (3, 4),
        (6, 6),
    ]
    z = torch.randn(len(A), 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    for name in ("forward_kl", "reverse_kl", "jsd"):
        values = losses.divergence(z, losses.TopK(*topk_batch([e.target])), name, vocabulary=7)
        q = z.softmax(-1)
        to = TRANSLATION.ids
        for own, theirs in parts:
            if own.stop - own.start > 1 or theirs.stop - theirs.start > 1:
                continue
            n, t = own.start, theirs.start
            kept = logp[t].topk(k).indices.tolist()
            both = [(i, int(to[i])) for i in kept if to[i] >= 0]
            p = torch.stack([logp[t].exp()[i] for i, _ in both] + [1 - logp[t].exp()[[i for i, _ in both]].sum()])
            r = torch.stack([q[n, j] for _, j in both] + [1 - q[n, [j for _, j in both]].sum()])
            m = (p + r) / 2

            def kl(x, y):
                return (x * (x / y).log()).sum()

            wanted = {
                "forward_kl": lambda p=p, r=r: kl(p, r),
                "reverse_kl": lambda p=p, r=r: kl(r, p),
                "jsd": lambda p=p, r=r, m=m: 2 * kl(p, m) + 2 * kl(r, m),
            }[name]()
            assert values[n].item() == pytest.approx(wanted.item(), abs=1e-5)
            (x,), (y,) = (torch.autograd.grad(v, z, retain_graph=True) for v in (values[n], wanted))
            assert torch.allclose(x, y, atol=1e-5)
        apart = [2, 4, 5]
        assert values[apart].abs().max() < 1e-9, "where it is cut differently no divergence is asked for"
        (gradient,) = torch.autograd.grad(values[apart].sum(), z)
        assert gradient.abs().max() < 1e-9


def uld_by_hand(e: Example, logp: torch.Tensor, parts, z: torch.Tensor, b: list[int], k: int) -> torch.Tensor:
    """The formula of the paper, one part at a time, in float64. The probability outside the top-k is spread evenly."""
    total = torch.zeros((), dtype=torch.float64)
    for own, theirs in parts:
        if own.stop - own.start == theirs.stop - theirs.start == 1:
            continue
        p_all = []
        for t in range(theirs.start, theirs.stop):
            p = logp[t].exp().clone()
            kept = p.topk(k).indices
            rest = torch.ones(8, dtype=torch.bool).index_fill(0, kept, False)
            p[rest] = p[rest].sum() / max(1, int(rest.sum()))
            p_all.append(p)
        p = p_all[-1] * np.prod([float(p_all[n][b[theirs.start + n]]) for n in range(len(p_all) - 1)])
        q_all = z[own].softmax(-1)
        q = q_all[-1]
        for n in range(len(q_all) - 1):
            q = q * q_all[n, e.completion[own.start + n]]
        p, q = p.sort(descending=True).values, q.sort(descending=True).values
        for i in range(max(len(p), len(q))):
            total = total + ((p[i] if i < len(p) else 0) - (q[i] if i < len(q) else 0)).abs()
    return total


@pytest.mark.parametrize("k", [8, 5, 2])
@pytest.mark.parametrize("with_head", [True, False])
def test_uld_against_float64(k, with_head, monkeypatch):
    rows = [
        example(A, B, k),
        example([3, 3], [1, 7], k, 1),
        example([0, 1], [1, 0], k, 2),
        example([5, 1], [0, 2], k, 3),
    ]
    batch = [e for e, _, _ in rows]
    assert [len(e.parts) for e in batch] == [2, 1, 0, 1]
    generator = torch.Generator().manual_seed(2)
    count = sum(len(e.completion) for e in batch)
    # two of the nine ids are padding
    weight = torch.randn(9, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    h = torch.randn(count, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    z = h @ weight.T
    wanted, start = torch.zeros((), dtype=torch.float64), 0
    for (e, logp, parts), b in zip(rows, (B, [1, 7], [1, 0], [0, 2]), strict=True):
        wanted = wanted + uld_by_hand(e, logp, parts, z[start : start + len(e.completion), :7], b, k)
        start += len(e.completion)
    expected = torch.autograd.grad(wanted, (h, weight), retain_graph=True)
    for size in (1 << 23, 15, 1):
        monkeypatch.setattr("distill.targets.across._CHUNK_ELEMENTS", size)
        value = uld(h, Head(weight), batch, 7) if with_head else uld(z, None, batch, 7)
        assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
        for x, y in zip(torch.autograd.grad(value, (h, weight), retain_graph=True), expected, strict=True):
            assert torch.allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("kd_weight", [0.9, 0.5, 1.0])
def test_cross_entropy_has_the_whole_weight_where_no_target_is(kd_weight):
    """The loss and its gradient are compared with float64. One row has no cross-entropy, because a check rejected this
    row.
    """
    spelled = [(A, B), ([3, 3], [1, 7]), ([0, 1], [1, 0])]
    batch = [example(a, b, 5, n)[0] for n, (a, b) in enumerate(spelled)]
    batch[1] = replace(batch[1], kept=False)
    ids = torch.tensor([t for e in batch for t in e.completion])
    kept = torch.tensor([e.kept for e in batch for _ in e.completion])
    within = torch.zeros(len(ids), dtype=torch.bool)
    start = 0
    for e in batch:
        for part in e.parts:
            within[start + part.begin : start + part.end] = True
        start += len(e.completion)
    assert (within & kept).any()
    assert (within & ~kept).any()
    assert (~within & kept).any()
    meta = {"kind": "topk", "k": 5, "temperature": 1.0, "vocab_size": 7}
    z = torch.randn(len(ids), 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    target = losses.TopK(*topk_batch([e.target for e in batch]))
    ce = torch.nn.functional.cross_entropy(z, ids, reduction="none")
    kd = losses.divergence(z, target, "forward_kl").double()
    assert float(kd[within].detach().abs().max()) < 1e-6
    wanted = kd_weight * (kd + ce * within * kept).mean() + (1 - kd_weight) * ce[kept].mean()
    section = TrainSection(kd_weight=kd_weight, across={})
    value, parts = batch_loss(z, None, Rows(batch, batch), section, meta)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert parts["cross_entropy"] == pytest.approx(ce[kept].mean().item(), rel=1e-5)
    pairs = zip(torch.autograd.grad(value, z), torch.autograd.grad(wanted, z), strict=True)
    assert all(torch.allclose(a, b.to(a.dtype), atol=1e-6) for a, b in pairs)
    halves = [batch_loss(z[: len(batch[0].completion)], None, Rows(batch[:1], batch), section, meta)[0]]
    halves.append(batch_loss(z[len(batch[0].completion) :], None, Rows(batch[1:], batch), section, meta)[0])
    assert float(sum(halves)) == pytest.approx(wanted.item(), rel=1e-5), "a step in portions"


def test_uld_is_zero_when_both_spread_alike():
    p = np.sort(np.random.default_rng(0).dirichlet(np.ones(7)))[::-1].astype(np.float32)
    e = Example("x", [], [3], None, True, (), parts=(Part(0, 1, p, 0.0, 0),))
    z = torch.log(torch.from_numpy(p.copy()))[torch.randperm(7)][None]
    assert uld(z, None, [e], 7).item() == pytest.approx(0, abs=1e-6)


def test_the_same_tokenizer_changes_nothing():
    logp = torch.randn(4, 7, dtype=torch.float64).log_softmax(-1)
    ids = [0, 3, 2, 6]
    target = stored(logp, 4)
    same, ulds = Translation(np.arange(7), 7, 7).translated(target, ids, cuts(ids, STUDENTS, ids, STUDENTS), 4)
    assert not ulds
    z = torch.randn(4, 7, dtype=torch.float64)
    a, b = (losses.divergence(z, losses.TopK(*topk_batch([t])), vocabulary=7) for t in (same, target))
    assert torch.allclose(a, b, atol=1e-6)


# From two runs to a student

WORDS = ["the cat and the hat", "and then the hen ran", "a thin hand", "than then", "the end"]
MERGES = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d"), ("Ġ", "the"), ("Ġ", "and")]
STUDENT = {"student": {"kind": "decoder", "layers": 1}, "batch_size": 4, "max_steps": 4, "save_steps": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """`runs(**train)` returns the recipe and the run of a corpus of byte tokens. The texts of this corpus were scored
    by a teacher with word tokens.
    """
    folder = tmp_path_factory.mktemp("across")
    bytes_, words = small_teacher(folder / "bytes"), small_teacher(folder / "words", 1, merges=MERGES)

    def recipe(name: str, teacher: Path, seeds: str, **sections) -> synthgen.Recipe:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "user.j2").write_text("{{ question }}\n")
        source = {"path": seeds, "source": "tests", "license": "CC0-1.0", "id": "id", "group": "id"}
        values = {
            "task": "sums",
            "license": "CC0-1.0",
            "strategy": "score",
            "seeds": [source],
            "split": {"test": 0.2},
            "teacher": {"model": str(teacher), "license": "Apache-2.0", "device": "cpu"},
            "logits": {"kind": "topk", "k": 12},
            "curate": {"answer": False, "repetition": None, "truncated": False},
            **sections,
        }
        (folder / name / "recipe.yaml").write_text(yaml.safe_dump(values))
        return synthgen.load_recipe(folder / name / "recipe.yaml")

    rows = [{"id": f"q{i}", "question": f"{i}?", "completion": f"{WORDS[i % 5]} {i}"} for i in range(20)]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = recipe("students", bytes_, "../seeds.jsonl")
    synthgen.generate(first, folder / "run")
    synthgen.curate(first, folder / "run")
    synthgen.generate(recipe("teachers", words, str(folder / "run" / "generated" / "data")), folder / "scored")

    def make(**section):
        across = {"run": str(folder / "scored"), **section.pop("across", {})}
        return recipe(
            "students", bytes_, "../seeds.jsonl", train={**STUDENT, "across": across, **section}
        ), folder / "run"

    return make


def test_a_student_of_another_tokenizers_teacher(runs, tmp_path):
    wanted, run = runs()
    teacher = LocalModel.open(wanted.teacher)
    data = load_across(run / "curated", teacher.tokens, wanted.train.across, Choice(512))
    assert data.left_out == {"too_long": 0, "not_scored": 0, "texts_differ": 0}
    differently = 0
    for e in data.examples:
        text = teacher.tokenizer.decode(e.completion[:-1])
        cut = [text[p.begin : p.end] for p in e.parts]
        assert set(cut) <= {"the", "th", "an", "and", " the", " and"}, cut
        differently += len(cut)
    assert differently > 20
    whole = resumes_everywhere(
        lambda out, ui: train(wanted, run, out, teacher=teacher, ui=ui), tmp_path / "students", cuts=[1, 3]
    )
    across = training_of(whole).across
    tokens = sum(len(e.completion) for e in data.examples)
    assert across.tokens_by_divergence + across.tokens_by_uld == tokens
    assert across.tokens_without_target == 0
    assert "which has another tokenizer" in (whole / "README.md").read_text()
    metrics = metrics_of(whole)
    for m in metrics:
        mixed = 0.9 * (m["distillation"] + m["uld"]) + 0.1 * m["cross_entropy"]
        assert mixed * 1.001 < m["loss"] < mixed + 0.9 * m["cross_entropy"], "cross-entropy where there is no target"
    first, last = metrics[0], metrics[-1]
    assert last["distillation"] + last["uld"] < first["distillation"] + first["uld"]
    split, _ = runs(micro_batch_size=3)
    pieces = train(split, run, tmp_path / "split", teacher=teacher).folder
    assert curve_of(pieces, "uld") == pytest.approx(curve_of(whole, "uld"), rel=1e-3)


def test_a_share_of_the_seeds_is_a_share_of_the_rows(runs):
    """Without it, all points of `distill curve` would be trained on the same rows."""
    wanted, run = runs()
    tokens = LocalModel.open(wanted.teacher).tokens
    whole, some = (load_across(run / "curated", tokens, wanted.train.across, Choice(512, share=s)) for s in (1.0, 0.4))
    places = {f"q{i}": int(hashlib.blake2b(f"q{i}".encode(), digest_size=8).hexdigest(), 16) for i in range(20)}
    inside = {seed for seed, place in places.items() if place < 0.4 * 2**64}
    assert {e.id for e in whole.examples} > {e.id for e in some.examples}
    seeds = {record.id: record.seed_id for record, _ in rows(run / "curated", "train")}
    assert {seeds[e.id] for e in some.examples} == inside & set(seeds.values())


def test_what_is_refused(runs, tmp_path):
    wanted, run = runs(across={"tokenizer": runs()[0].teacher.model})
    with pytest.raises(CorpusError, match="not made with the tokenizer of"):
        train(wanted, run, tmp_path / "student")
    wanted, run = runs(across={"run": str(run)})
    with pytest.raises(CorpusError, match="has no scores for rows"):
        train(wanted, run, tmp_path / "student")
    for section, says in (({"teacher": "a"}, "learns from one teacher"), ({"kd_weight": 0}, "learns from none")):
        with pytest.raises(RecipeError, match=says):
            runs(**section)
