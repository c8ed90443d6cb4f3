"""Merged distributions of several teachers: exact or with a bounded error for top-k, and unbiased for draws."""

from __future__ import annotations

import html
import shutil

import numpy as np
import pytest
import torch
import yaml
from support.rows import load
from support.small import small_task, small_teacher
from support.training import curve_of, resumes_everywhere
from support.unaudited import train

import synthgen
from distill import evaluate, losses
from distill.card import write_model_card
from distill.data import Choice, sampled_batch, topk_batch
from distill.evaluation.fidelity import _Answers
from distill.targets import ensemble
from distill.targets.ensemble import Merge, agreement, aligned, best_weights, by_validation, merged, mixed
from synthgen import corpus, logits
from synthgen.errors import CorpusError, RecipeError, UserError
from synthgen.lm.sampling import invert, top_k
from synthgen.recipe import check_recipe
from synthgen.results.training import Ensemble
from synthgen.teachers.transformers import LocalModel

V, N = 61, 30
WEIGHTS = (0.5, 0.2, 0.3)
HOWS = ["mean", "pool"]


def teachers(count: int = 3, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    """Log-probabilities (K, N, V) of similar teachers, in float64."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(1, N, V, generator=generator, dtype=torch.float64)
    own = torch.randn(count, N, V, generator=generator, dtype=torch.float64)
    return ((common + 0.7 * own) * scale).log_softmax(-1)


def stored(logp_NV: torch.Tensor, k: int, temperature: float) -> logits.TopK:
    return logits.TopK(*(part.numpy() for part in top_k(logp_NV, k, temperature)))


def metas(count: int = 3, temperature: float = 1.0, k: int = 8, size: int = V) -> list[dict]:
    same = {"kind": "topk", "k": k, "temperature": temperature, "vocab_size": size, "tokenizer": "t"}
    return [{**same, "teacher": f"m{i}@r{i}"} for i in range(count)]


def combined(logp_KNV: torch.Tensor, weights, how: str) -> torch.Tensor:
    """The merged distribution, computed on the whole vocabulary in float64."""
    w = torch.tensor(weights, dtype=torch.float64)[:, None, None]
    return (w.log() + logp_KNV).logsumexp(0) if how == "mean" else (w * logp_KNV).sum(0).log_softmax(-1)


def spread(target: logits.TopK, temperature: float) -> torch.Tensor:
    """A target as a dense distribution, computed by a loop. The residual mass is shared equally by ids that are not
    kept.
    """
    out = torch.zeros(len(target), V, dtype=torch.float64)
    for n in range(len(target)):
        kept = [int(i) for i in target.ids[n] if i < V]
        tail = float(np.exp(np.float64(target.log_tail[n])))
        out[n] = tail / max(1, V - len(kept))
        for i, logp in zip(kept, target.logprobs[n], strict=False):
            out[n, i] = np.exp(np.float64(logp) / temperature - target.log_z[n])
    return out


def as_loss(target: logits.TopK) -> losses.TopK:
    return losses.TopK(*topk_batch([target]))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_whole_vocabularies_merge_exactly(how, temperature):
    """Values and gradients of the losses at the temperature equal those of the dense reference."""
    logp = teachers()
    targets = [stored(p, V, temperature) for p in logp]
    target = as_loss(merged(targets, metas(temperature=temperature, k=V), WEIGHTS, how))
    exact = combined((logp / temperature).log_softmax(-1), WEIGHTS, how)
    z = torch.randn(N, V, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    for name in ("forward_kl", "reverse_kl", "jsd"):
        values = losses.divergence(z, target, name, temperature=temperature)
        wanted = losses.divergence(z, losses.Dense(temperature * exact), name, temperature=temperature)
        assert torch.allclose(values, wanted, atol=1e-5), name
        gradients = [torch.autograd.grad(v.sum(), z, retain_graph=True)[0] for v in (values, wanted)]
        assert torch.allclose(*gradients, atol=1e-5), name


def test_the_pool_of_tempered_distributions_is_the_tempered_pool_and_the_mean_is_not():
    logp = teachers()
    tempered = (logp / 2).log_softmax(-1)
    after = {how: (combined(logp, WEIGHTS, how) / 2).log_softmax(-1) for how in HOWS}
    assert torch.allclose(combined(tempered, WEIGHTS, "pool"), after["pool"])
    assert not torch.allclose(combined(tempered, WEIGHTS, "mean"), after["mean"], atol=1e-2)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 4, 25])
def test_supports_are_united_and_missing_ids_get_their_share(how, temperature, k):
    logp = teachers()
    targets = [stored(p, k, temperature) for p in logp]
    target = merged(targets, metas(temperature=temperature, k=k), WEIGHTS, how)
    by_hand = combined(torch.stack([spread(t, temperature) for t in targets]).log(), WEIGHTS, how).exp()
    for n in range(N):
        union = {int(i) for t in targets for i in t.ids[n]}
        assert set(target.ids[n].tolist()) - {V} == union
        assert (np.diff(target.logprobs[n][: len(union)]) <= 0).all(), "likeliest first"
        assert np.isneginf(target.logprobs[n][len(union) :]).all()
        p = np.exp(target.logprobs[n][: len(union)].astype(float) / temperature)
        assert p == pytest.approx([float(by_hand[n, i]) for i in target.ids[n][: len(union)]], rel=1e-5)
        assert p.sum() + np.exp(target.log_tail[n]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_errors_are_bounded_by_what_was_left_out(temperature):
    logp = teachers()
    tempered = (logp / temperature).log_softmax(-1)
    last = {how: float("inf") for how in HOWS}
    for k in (2, 8, 25, 50):
        targets = [stored(p, k, temperature) for p in logp]
        rest = sum(w * np.exp(t.log_tail.astype(float)) for w, t in zip(WEIGHTS, targets, strict=True))
        for how in HOWS:
            exact = combined(tempered, WEIGHTS, how)
            found = merged(targets, metas(temperature=temperature, k=k), WEIGHTS, how)
            off = 0.5 * (spread(found, temperature) - exact.exp()).abs().sum(-1).numpy()
            if how == "mean":
                assert (off <= rest + 1e-6).all()
            assert off.mean() < last[how], "more is nearer"
            last[how] = off.mean()
            for n in range(N):
                common = sorted(set.intersection(*({int(i) for i in t.ids[n]} for t in targets)))
                if how == "pool" and len(common) > 1:
                    place = [found.ids[n].tolist().index(i) for i in common]
                    values = found.logprobs[n][place].astype(float) / temperature
                    assert values - values[0] == pytest.approx(
                        (exact[n, common] - exact[n, common[0]]).numpy(), abs=1e-5
                    )
    assert max(last.values()) < 0.02


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "cross_entropy"])
@pytest.mark.parametrize("how", HOWS)
def test_empty_slots_teach_nothing(name, how):
    """Values and gradients are compared with a plain float64 computation for each row, over the union of the kept ids
    and one bucket for all other ids.
    """
    temperature = 2.0
    targets = [stored(p, 5, temperature) for p in teachers()]
    found = merged(targets, metas(temperature=temperature, k=5), WEIGHTS, how)
    assert (found.ids == V).any()
    z = torch.randn(N, V, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    values = losses.divergence(z, as_loss(found), name, temperature=temperature, vocabulary=V)
    logq = (z / temperature).log_softmax(-1)
    wanted = []
    for n in range(N):
        ids = [int(i) for i in found.ids[n] if i < V]
        others = [i for i in range(V) if i not in ids]
        kept = torch.tensor(found.logprobs[n][: len(ids)], dtype=torch.float64) / temperature
        p = torch.cat([kept, torch.tensor(found.log_tail[n : n + 1], dtype=torch.float64)]).softmax(-1)
        q = torch.cat([logq[n, ids], logq[n, others].logsumexp(-1, keepdim=True)]).exp()
        m = {"jsd": 0.5 * p + 0.5 * q, "skew_kl": 0.1 * p + 0.9 * q, "skew_reverse_kl": 0.9 * p + 0.1 * q}.get(name)

        def kl(a, b):
            return (a * (a / b).log()).sum()

        wanted.append(
            {
                "forward_kl": lambda p=p, q=q: kl(p, q),
                "reverse_kl": lambda p=p, q=q: kl(q, p),
                "jsd": lambda p=p, q=q, m=m: 2 * kl(p, m) + 2 * kl(q, m),
                "skew_kl": lambda p=p, m=m: kl(p, m),
                "skew_reverse_kl": lambda q=q, m=m: kl(q, m),
                "cross_entropy": lambda p=p, q=q: -(p * q.log()).sum(),
            }[name]()
        )
    wanted = temperature**2 * torch.stack(wanted)
    assert torch.allclose(values, wanted, atol=1e-5)
    (a,), (b,) = (torch.autograd.grad(v.sum(), z, retain_graph=True) for v in (values, wanted))
    assert torch.allclose(a, b, atol=1e-5)


def test_vocabularies_padded_to_different_sizes():
    """Ids beyond the smaller vocabulary are padding. These ids are left out, and the other probabilities sum to one."""
    logp = teachers(2)
    wide = torch.cat([logp[1], torch.full((N, 3), -1.0)], -1).log_softmax(-1)
    two = metas(2, k=6)
    two[1]["vocab_size"] = V + 3
    target, meta = Merge(("a", "b"), "mean", "", (0.5, 0.5))([stored(logp[0], 6, 1.0), stored(wide, 6, 1.0)], two)
    assert (meta["vocab_size"], meta["k"]) == (V, 12)
    assert target.ids.max() <= V
    assert np.exp(target.logprobs).sum(-1) + np.exp(target.log_tail) == pytest.approx(np.ones(N), abs=1e-5)


def test_slots_that_an_api_left_empty_do_not_count_as_kept():
    """An empty slot has the first id again, with the lowest log-probability. The first id must keep its probability,
    and the slot must not count as a kept id.
    """
    logp = teachers(2)
    full, short = stored(logp[0], 4, 1.0), stored(logp[1], 3, 1.0)
    ids = np.concatenate([short.ids, short.ids[:, :1]], -1)
    floor = np.full((N, 1), logits.FLOOR, np.float32)
    empty = logits.TopK(ids, np.concatenate([short.logprobs, floor], -1), short.log_tail, short.log_z)
    for how in HOWS:
        a, b = (merged([full, t], metas(2, k=4), (0.4, 0.6), how) for t in (empty, short))
        assert np.allclose(a.log_tail, b.log_tail)
        assert (a.ids[:, :3] == b.ids[:, :3]).all()


# Draws


def drawn(logp_NV: torch.Tensor, draws: int, temperature: float, seed: int) -> logits.Sampled:
    u = torch.from_numpy(np.random.default_rng(seed).random((len(logp_NV), draws)))
    return logits.count_draws(invert((logp_NV / temperature).softmax(-1).cumsum(-1), u).numpy())


def z_scores(weights, temperature: float, repeats: int = 400) -> np.ndarray:
    """The difference between the mean of mixed draws and the weighted mean of the distributions, in standard errors."""
    logp, draws = teachers(2), (20, 7)
    sizes = [{"vocab_size": V, "draws": n} for n in draws]
    targets = [drawn(p.repeat(repeats, 1), n, temperature, i) for i, (p, n) in enumerate(zip(logp, draws, strict=True))]
    ids, values = sampled_batch([mixed(targets, sizes, weights)], draws[0])
    estimates = torch.zeros(repeats * N, V).scatter_add_(-1, ids, values).view(repeats, N, V).double()
    assert torch.allclose(estimates.sum(-1), torch.ones(repeats, N).double(), atol=1e-5)
    exact = combined((logp / temperature).log_softmax(-1), (0.75, 0.25), "mean").exp()
    error = estimates.std(0) / repeats**0.5
    return ((estimates.mean(0) - exact) / error.clip(1e-9))[exact > 0.005].numpy()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_mixed_draws_are_unbiased(temperature):
    z = z_scores((0.75, 0.25), temperature)
    assert abs(z.mean()) < 3 / len(z) ** 0.5 * 2
    assert 0.8 < z.std() < 1.2
    assert z_scores((0.65, 0.35), temperature).std() > 1.4, "other weights would be seen"


# Weights


def test_weights_by_likelihood_are_the_best_of_a_grid():
    logp = teachers(2)
    p = combined(logp, (0.8, 0.2), "mean")
    tokens = torch.multinomial(p.exp(), 40, replacement=True, generator=torch.Generator().manual_seed(0))
    for how in HOWS:
        for k, temperature in ((V, 1.0), (9, 2.0)):
            targets = [stored(q, k, temperature) for q in logp]
            rows = [(targets, metas(2, temperature, k), tokens[:, i].tolist()) for i in range(40)]
            weights = best_weights(rows, how)
            assert sum(weights) == pytest.approx(1)
            dense = torch.stack([spread(stored(q, k, 1.0), 1.0) for q in logp]).log()

            def likelihood(w, dense=dense, how=how):
                return float(combined(dense, (w, 1 - w), how).gather(-1, tokens).mean())

            best = max(np.linspace(0.001, 0.999, 400), key=likelihood)
            assert weights[0] == pytest.approx(best, abs=0.01), (how, k)
            if how == "mean" and k == V:
                assert weights[0] == pytest.approx(0.8, abs=0.06), "what the tokens were drawn with"


def test_the_search_for_weights_ends_when_they_stand_still(monkeypatch):
    logp = teachers(2)
    tokens = torch.multinomial(logp.exp().mean(0), 20, replacement=True, generator=torch.Generator().manual_seed(0))
    rows = [([stored(q, 9, 1.0) for q in logp], metas(2, 1.0, 9), tokens[:, i].tolist()) for i in range(20)]
    tries = []
    monkeypatch.setattr(ensemble, "_logsumexp", lambda x, real=ensemble._logsumexp: tries.append(1) or real(x))
    for how in HOWS:
        tries.clear()
        found = best_weights(rows, how)
        assert 2 < len(tries) / len(rows) < 150, how
        assert found == pytest.approx(best_weights(rows, how, steps=2000), abs=1e-6)
        assert best_weights(rows, how, steps=1) != pytest.approx(found, abs=1e-6)


def test_a_first_step_that_is_too_long_is_halved():
    logp = teachers(2, scale=20.0)
    even = combined(logp, (0.5, 0.5), "pool").exp()
    tokens = torch.multinomial(even, 20, replacement=True, generator=torch.Generator().manual_seed(0))
    rows = [([stored(q, 9, 1.0) for q in logp], metas(2, 1.0, 9), tokens[:, i].tolist()) for i in range(20)]
    assert best_weights(rows, "pool", steps=1) == (0.5, 0.5)
    weights = best_weights(rows, "pool")
    assert weights == pytest.approx((0.54, 0.46), abs=0.04)
    assert weights[0] > 0.51
    (alone,) = rows[:1]
    assert sum(best_weights([alone], "pool")) == pytest.approx(1)


def test_a_teacher_that_knows_nothing_gets_no_weight():
    logp = teachers(2)
    flat = torch.zeros(N, V, dtype=torch.float64).log_softmax(-1)
    tokens = torch.multinomial(logp[0].exp(), 30, replacement=True, generator=torch.Generator().manual_seed(0))
    rows = [
        ([stored(logp[0], 9, 1.0), stored(flat, 9, 1.0)], metas(2, 1.0, 9), tokens[:, i].tolist()) for i in range(30)
    ]
    for how in HOWS:
        assert best_weights(rows, how)[0] > 0.9


def test_agreement_is_the_mass_in_common():
    logp = teachers()
    targets = [stored(p, V, 1.0) for p in logp]
    shares = agreement(aligned(targets, metas(k=V))[1])
    p = logp.exp()
    common = {(a, b): float(torch.minimum(p[a], p[b]).sum(-1).mean()) for a in range(3) for b in range(3)}
    degree = [sum(common[a, b] for b in range(3) if b != a) for a in range(3)]
    assert shares == pytest.approx([d / sum(degree) for d in degree], abs=1e-6)
    stranger = [stored(q, V, 1.0) for q in (logp[0], logp[0], torch.roll(logp[0], 7, -1))]
    shares = agreement(aligned(stranger, metas(k=V))[1])
    assert shares[0] == pytest.approx(shares[1])
    assert shares[2] < 0.8 * shares[0]


# From the recipe to the student


TOPK = {"kind": "topk", "k": 6, "score_by": ["b", "c"]}
STUDENT = {
    "student": {"kind": "decoder", "layers": 1},
    "batch_size": 4,
    "max_steps": 4,
    "save_steps": 1,
    "baseline": False,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(name, logits, **train)` returns the recipe of three small teachers and the folder of its curated run."""
    folder = tmp_path_factory.mktemp("ensemble")
    names = {n: str(small_teacher(folder / f"teacher-{n}", seed=i)) for i, n in enumerate("abc")}
    three = {n: {"model": model, "license": "Apache-2.0", "device": "cpu"} for n, model in names.items()}

    def make(kept: dict, **section):
        name = f"{kept['kind']}-{kept.get('temperature', 1.0)}"
        path = small_task(
            folder / f"task-{name}",
            folder / "teacher-a",
            seeds=16,
            teachers=three,
            split={"test": 0.25, "validation": 0.2},
            logits=kept,
            train={**STUDENT, **section},
        )
        values = yaml.safe_load(path.read_text())
        del values["teacher"]
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        recipe = synthgen.load_recipe(path)
        if not (folder / name).exists():
            synthgen.generate(recipe, folder / name)
            synthgen.curate(recipe, folder / name)
        return recipe, folder / name

    return make


@pytest.fixture
def unanswered(monkeypatch):
    """Evaluation without greedy answers, which these tests do not need."""
    monkeypatch.setattr("distill.evaluation.fidelity._answers", lambda *arguments: _Answers())


def test_a_student_of_an_ensemble_says_so(run, tmp_path, unanswered):
    recipe, folder = run(TOPK, ensemble={"teachers": {"a": 3, "c": 1}, "merge": "pool"})
    teacher = LocalModel.open(recipe.teacher)
    trained = train(recipe, folder, tmp_path / "student", teacher=teacher)
    student = trained.folder
    assert trained.training.ensemble == Ensemble(merge="pool", by="the recipe", weights={"a": 0.75, "c": 0.25})
    assert trained.training.left_out == {"too_long": 0, "degenerate": 0}
    words = "the log-opinion pool of several teachers' stored distributions, weights by the recipe: a 0.750, c 0.250"
    assert words in (student / "README.md").read_text()
    evaluation = evaluate(recipe, folder, student, teacher=teacher)
    assert evaluation.learned_from == words
    far = evaluation.table["distilled"]["from_targets"].mean
    assert far > 0
    write_model_card(student, recipe, corpus.verify(folder / "curated"))
    card = (student / "README.md").read_text()
    assert "KL from the training targets" in card
    assert f"| {far:.3f} [" in next(line for line in card.splitlines() if line.startswith("| distilled"))
    shutil.copytree(student, folder / "student")
    page = html.unescape(synthgen.report(folder).path.read_text())
    assert words in page
    assert "from the training targets" in page
    shutil.rmtree(folder / "student")
    # The KL from the pool to the first teacher, computed by the reference functions of this file.
    merge = Merge(("a", "c"), "pool", "", (0.75, 0.25))
    data = load(folder / "curated", teacher.render, Choice(512, "test", teachers=("a", "c"), merge=merge))
    total = count = 0.0
    for e in data.examples:
        [logp] = teacher.logprobs([e.prompt], [e.completion])
        total += float(losses.divergence(logp, as_loss(e.target), vocabulary=258).sum())
        count += len(e.completion)
    assert evaluation.table["teacher"]["from_targets"].mean == pytest.approx(total / count, rel=1e-3)


@pytest.mark.parametrize(
    "wanted",
    [{}, {"merge": "pool"}, {"by": "validation"}, {"by": "validation", "merge": "pool"}, {"by": "agreement"}],
)
def test_every_way_of_weighing_trains(run, tmp_path, wanted):
    recipe, folder = run(TOPK, ensemble=wanted)
    training = train(recipe, folder, tmp_path / "student").training
    weights = training.ensemble.weights
    assert list(weights) == ["a", "b", "c"]
    assert sum(weights.values()) == pytest.approx(1, abs=1e-5)
    if wanted.get("by") is None:
        assert set(weights.values()) == {0.333333}
    if wanted.get("by") == "validation":
        assert weights["a"] > 0.6, "the rows are what a wrote"
    assert (training.ensemble.deviations is not None) == (wanted.get("by") == "agreement")
    assert training.targets.k == 18


def test_one_teacher_of_several_by_name(run, tmp_path, unanswered):
    """The targets are those of the named teacher, and nearly those of an ensemble in which this teacher has all the
    weight.
    """
    recipe, folder = run(TOPK, teacher="b")
    alone = train(recipe, folder, tmp_path / "b")
    assert alone.training.targets.teacher.startswith("teacher-b@")
    assert (alone.training.teacher, alone.training.learned_from) == ("b", "the stored distributions of b")
    teacher = LocalModel.open(recipe.teacher)
    [one, both] = (
        load(folder / "curated", teacher.render, Choice(512, teachers=names, merge=merge))
        for names, merge in ((("b",), None), (("a", "b"), Merge(("a", "b"), "mean", "", (0.0, 1.0))))
    )
    z = torch.randn(sum(len(e.completion) for e in one.examples), 258)
    values = [
        losses.divergence(z, losses.TopK(*topk_batch([e.target for e in d.examples])), "forward_kl").mean()
        for d in (one, both)
    ]
    # The target of the ensemble has more outcomes than the top-k of b alone, so its divergence is a little higher.
    assert float(values[0]) <= float(values[1]) + 1e-5
    assert float(values[0]) == pytest.approx(float(values[1]), rel=0.3)
    assert evaluate(recipe, folder, alone.folder, teacher=teacher).learned_from.endswith("of b")


def test_draws_are_mixed(run, tmp_path, unanswered):
    recipe, folder = run(
        {"kind": "sampled", "draws": 10, "score_by": ["b", "c"]}, ensemble={"teachers": {"a": 1, "b": 4}}
    )
    student = train(recipe, folder, tmp_path / "student")
    assert student.training.ensemble.weights == {"a": 0.2, "b": 0.8}
    assert evaluate(recipe, folder, student.folder).table["distilled"]["from_targets"].mean > 0


def test_resume_with_an_ensemble_is_exact(run, tmp_path):
    recipe, folder = run(TOPK, ensemble={"by": "agreement"})
    resumes_everywhere(lambda out, ui: train(recipe, folder, out, ui=ui), tmp_path, cuts=[1, 3])


def test_micro_batches_of_merged_targets_add_up(run, tmp_path):
    curves = []
    for size in (None, 3):
        recipe, folder = run(TOPK, ensemble={}, micro_batch_size=size, loss="reverse_kl")
        curves.append(curve_of(train(recipe, folder, tmp_path / f"size-{size}").folder, "loss"))
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


@pytest.mark.parametrize(
    ("kept", "section", "says"),
    [
        (TOPK, {}, "name one teacher in train.teacher, or merge them"),
        (TOPK, {"teacher": "d"}, "the logits of 'd' are not stored"),
        (TOPK, {"ensemble": {"teachers": ["a", "x"]}}, "the logits of 'x' are not stored"),
        (TOPK, {"ensemble": {"teachers": ["a"]}}, "two or more teachers"),
        (TOPK, {"ensemble": {"teachers": ["a", "a"]}}, "named twice"),
        (TOPK, {"ensemble": {"teachers": ["a", "b"], "by": "agreement"}}, "two teachers always get equal weights"),
        (TOPK, {"ensemble": {"teachers": {"a": 1, "b": 2}, "by": "uniform"}}, "the teachers have weights"),
        (TOPK, {"ensemble": {"teachers": {"a": 1, "b": -2}}}, "greater than 0"),
        (TOPK, {"ensemble": {}, "teacher": "a"}, "not both"),
        (TOPK, {"ensemble": {}, "kd_weight": 0}, "learns from none"),
        ({**TOPK, "kind": "sampled"}, {"ensemble": {"merge": "pool"}}, "pool is biased"),
        ({**TOPK, "kind": "sampled"}, {"ensemble": {"by": "validation"}}, "draws give most tokens probability"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(run, kept, section, says):
    with pytest.raises(RecipeError) as caught:
        run(kept, **section)
    assert says in str(caught.value)
    assert "\n" not in caught.value.message


def test_validation_rows_are_needed_for_weights_by_them(run):
    recipe, _ = run(TOPK, ensemble={"by": "validation"})
    values = recipe.model_dump()
    values["split"]["validation"] = 0.0
    values.pop("teacher")
    with pytest.raises(RecipeError, match=r"set split\.validation"):
        check_recipe(synthgen.Recipe.model_validate(values))


def test_a_corpus_without_validation_rows_is_named_and_other_errors_are_passed_on(tmp_path):
    def read(message: str):
        def fail(choice):
            raise CorpusError(message)

        return fail

    with pytest.raises(UserError, match=f"{tmp_path} has no validation rows"):
        by_validation(tmp_path, read("x has no rows to train on in split 'validation'"), 9, ["a", "b"], "mean")
    with pytest.raises(CorpusError, match="shard x is damaged"):
        by_validation(tmp_path, read("shard x is damaged"), 9, ["a", "b"], "mean")


def test_logits_that_are_not_there(run, tmp_path):
    recipe, folder = run(TOPK, ensemble={"teachers": ["a", "b"]})
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "generated" / "logits" / "b")
    with pytest.raises(CorpusError, match="no logits of a teacher 'b'"):
        train(recipe, copy, tmp_path / "student")
