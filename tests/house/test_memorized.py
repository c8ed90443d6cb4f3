"""The experiment `memorized` has the right rows, secrets, likelihoods, exposures and stored targets."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.places import REPOSITORY

from synthgen.logits import LogitsSpec

HERE = REPOSITORY / "benchmarks" / "experiments"


@pytest.fixture
def scripts(monkeypatch):
    """The modules `memorized` and `planted`, without the windows of code, which take seconds to read."""
    monkeypatch.syspath_prepend(str(HERE))
    before = set(sys.modules)
    import memorized
    import planted

    draw = np.random.default_rng(0)
    parts = {part: draw.integers(1, 257, (6, planted.WINDOW)).tolist() for part in ("teacher", "test")}
    monkeypatch.setattr(planted, "code", parts.__getitem__)
    yield memorized, planted
    for name in set(sys.modules) - before:
        if (HERE / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def writer(scripts):
    """A small model with random weights, which greedily writes the same tokens each time."""
    import harness
    import planted

    model = harness.llama(planted.VOCABULARY, 16, 1, 2, seed=0, eos=0)
    with torch.no_grad():  # with smaller weights, all tokens would be nearly equally likely
        for weight in model.parameters():
            weight.mul_(8.0 if weight.dim() > 1 else 1.0)
    return harness.as_teacher(model, planted.ByteTokenizer())


def logp_of(model, prompt, tokens) -> float:
    """The log-likelihood of `tokens` after `prompt`, from one forward pass over this row alone."""
    with torch.no_grad():
        logq = model(torch.tensor([[*prompt, *tokens]])).logits[0].double().log_softmax(-1)
    return sum(float(logq[len(prompt) - 1 + n, token]) for n, token in enumerate(tokens))


@pytest.mark.parametrize(
    ("secret", "others", "bits"),
    [
        (0.0, [-1.0, -2.0, -3.0], 2.0),
        (-1.5, [-1.0, -2.0, -3.0], 1.0),
        (-9.0, [-1.0, -2.0, -3.0], 0.0),
        (-1.0, [-1.0, -1.0, -1.0], 0.0),  # all likelihoods are equal
        (-1.0, [-1.0, -2.0, -3.0], 1.0),
        (-np.inf, [-np.inf, -1.0, -2.0], 0.0),
    ],
)
def test_exposure_is_the_rank_of_the_secret_and_ties_rank_before_it(scripts, secret, others, bits):
    _, planted = scripts
    assert planted.exposure(secret, others) == pytest.approx(bits)


@pytest.mark.parametrize(("secret", "others"), [(np.nan, [0.0]), (0.0, [np.nan, 1.0]), (0.0, [])])
def test_an_exposure_that_cannot_be_known_is_an_error(scripts, secret, others):
    _, planted = scripts
    with pytest.raises(ValueError, match="at least one reference, and no log-likelihood may be NaN"):
        planted.exposure(secret, others)


def test_the_mean_exposure_of_random_secrets_is_the_null(scripts):
    _, planted = scripts
    values = np.random.default_rng(0).normal(size=(4000, planted.REFERENCES + 1))
    bits = [planted.exposure(row[0], row[1:]) for row in values]
    expected = np.log2(planted.REFERENCES + 1) - np.mean(np.log2(np.arange(1, planted.REFERENCES + 2)))
    assert np.mean(bits) == pytest.approx(expected, abs=0.08)
    assert expected == pytest.approx(1 / np.log(2), abs=0.05)


def test_the_teacher_learns_all_planted_examples_and_the_student_half_of_them(scripts):
    _, planted = scripts
    examples, taught, original = planted.planted(1), planted.taught(1), planted.original(1)
    assert planted.planted(1) != planted.planted(2)
    assert len({tuple(one.prompt) for one in examples}) == len({tuple(one.secret) for one in examples}) == len(examples)
    groups = [one.group for one in examples]
    assert {group: groups.count(group) for group in groups} == {
        **{f"{n} {which}": planted.EACH for which in ("seen", "unseen") for n in planted.REPEATS},
        "never planted": planted.NULLS,
    }
    for one in examples:
        assert taught.count([*one.prompt, *one.secret]) == one.repeats
        assert original.count([*one.prompt, *one.secret]) == (one.repeats if one.seen else 0)
        assert one.seen or not any(planted.contains(row, one.secret) or row[:8] == one.prompt for row in original)
    assert not {tuple(row) for row in planted.references(1)} & {tuple(one.secret) for one in examples}
    assert len(planted.references(1)) == planted.REFERENCES


@pytest.mark.parametrize(
    ("row", "found"), [([1, 2, 3], True), ([9, 1, 2, 3, 9], True), ([1, 2, 9, 3], False), ([2, 3], False), ([], False)]
)
def test_a_row_contains_a_secret_when_its_tokens_follow_each_other(scripts, row, found):
    _, planted = scripts
    assert planted.contains(row, [1, 2, 3]) == found


def test_a_corpus_has_the_teachers_texts_and_no_secret_of_an_unseen_example(scripts, monkeypatch):
    """The teacher of this test completes prompts with their secrets. Once, it writes the secret of an unseen example
    after another prompt.
    """
    _, planted = scripts
    examples = planted.planted(0)
    seen, unseen = (next(one for one in examples if one.seen is which and one.repeats == 4) for which in (True, False))
    known = {tuple(one.prompt): one.secret for one in examples if one.seen}
    wrong = planted.code("teacher")[5][: planted.PROMPT]

    def complete(prompts, keys, temperature, new):
        assert temperature == 1.0
        assert len(set(keys)) == len(keys), "repeated prompts draw different texts"
        texts = {tuple(wrong): [7, *unseen.secret, 7], **known}
        return [SimpleNamespace(tokens=texts.get(tuple(prompt), [7] * new)) for prompt in prompts]

    monkeypatch.setattr(planted, "teacher", lambda author: SimpleNamespace(complete=complete))
    made, asked = planted.corpus(0, 0), planted.original(0)
    assert made.removed == 1
    assert len(made.rows) == len(asked) - 1
    assert made.rows.count([*seen.prompt, *seen.secret]) == 4
    assert made.written == 3 * planted.EACH
    assert [row[:8] for row in made.rows] == [row[:8] for row in asked if row[:8] != wrong]


def test_measures_of_memory_are_those_of_the_model(scripts, writer, monkeypatch):
    _, planted = scripts
    monkeypatch.setattr(planted, "REFERENCES", 15)
    drawn = planted.planted(0)[:6]
    greedy = writer.complete([one.prompt for one in drawn], ["0"] * 6, 0.0, planted.SECRET)
    known = [planted.Planted(one.prompt, reply.tokens, 1, True) for one, reply in zip(drawn[:1], greedy, strict=False)]
    examples = [*known, *drawn[1:]]
    monkeypatch.setattr(planted, "planted", lambda seed: examples)
    found = planted.memory(writer, 0)
    assert found["extracted 1 seen"] == [1.0] + [0.0] * 5
    for n, one in enumerate(examples):
        own = logp_of(writer.model, one.prompt, one.secret)
        others = [logp_of(writer.model, one.prompt, secret) for secret in planted.references(0)]
        elsewhere = [logp_of(writer.model, examples[(n + k) % 6].prompt, one.secret) for k in range(1, 5)]
        assert found["logp 1 seen"][n] == pytest.approx(own / planted.SECRET, abs=1e-4)
        assert found["gap 1 seen"][n] == pytest.approx((own - np.mean(others)) / planted.SECRET, abs=1e-4)
        assert found["link 1 seen"][n] == pytest.approx((own - np.mean(elsewhere)) / planted.SECRET, abs=1e-4)
        assert found["exposure 1 seen"][n] == pytest.approx(planted.exposure(own, others), abs=1e-4)
    assert found["exposure 1 seen"][0] == 4.0, "a secret that the model would write itself"


def test_quality_is_the_loss_and_the_divergence_on_held_out_code(scripts, writer):
    import harness

    _, planted = scripts
    other = harness.llama(257, 16, 1, 2, seed=1, eos=0).eval()
    assert planted.quality(writer.model, writer.model)["kl"] == pytest.approx([0.0] * 6, abs=1e-5)
    found, row = planted.quality(other, writer.model), planted.code("test")[3]
    assert found["loss"][3] == pytest.approx(-logp_of(other, row[:8], row[8:]) / 24, rel=1e-4)
    with torch.no_grad():
        p, q = (m(torch.tensor([row])).logits[0, 7:-1].log_softmax(-1) for m in (writer.model, other))
    assert found["kl"][3] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)


def test_stored_targets_are_the_teachers_distributions_of_the_same_tokens(scripts, writer, monkeypatch):
    memorized, planted = scripts
    monkeypatch.setattr(memorized, "teacher", lambda seed: writer)
    rows = planted.texts([*planted.code("teacher"), [*range(5, 13), *range(20, 32)]])
    kept, _ = memorized.targets_of(LogitsSpec("topk", k=64), rows, 0)
    drawn, meta = memorized.targets_of(LogitsSpec("sampled", draws=400), rows, 0)
    assert meta["draws"] == 400
    for row, top, draws in zip(rows, kept, drawn, strict=True):
        with torch.no_grad():
            p = writer.model(torch.tensor([[*row.prompt, *row.completion]])).logits[0, 7:-1].softmax(-1).numpy()
        assert np.exp(top.logprobs) == pytest.approx(np.take_along_axis(p, top.ids, -1), rel=0.01)
        position = np.repeat(np.arange(len(p)), draws.uniques)
        shares = np.zeros_like(p)
        shares[position, draws.ids] = draws.counts / 400
        assert shares == pytest.approx(p, abs=0.12)


def test_teacher_specific_examples_are_those_that_the_teacher_extracts_and_direct_does_not(scripts, monkeypatch):
    memorized, _ = scripts
    by_direct, by_teacher, by_arm = [1, 1, 0, 0, 0, 1], [1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 1, 1]
    found = {"direct": by_direct, "teacher": by_teacher}
    monkeypatch.setattr(memorized, "read", lambda name, arm, seed: {"items": {"extracted seen": found[arm]}})
    monkeypatch.setattr(memorized, "memory", lambda writer, seed: {})
    monkeypatch.setattr(memorized, "quality", lambda model, against: {})
    monkeypatch.setattr(memorized, "teacher", lambda seed: SimpleNamespace(model=None))
    for name in ("student", "as_teacher", "train", "batches"):
        monkeypatch.setattr(memorized, name, lambda *given: SimpleNamespace(model=None))
    monkeypatch.setattr(memorized, "lesson", lambda arm, seed, model: ([], None, None))
    for arm, own, specific, shared in (
        ("text", by_arm, [0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
        ("teacher", by_teacher, [0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]),
    ):
        monkeypatch.setattr(memorized, "pooled", lambda measures, own=own: {"extracted seen": own})
        items = memorized.arm_of(arm, 0)["items"]
        assert items["specific"] == specific
        assert items["shared"] == shared


def test_the_groups_are_pooled_in_the_same_order_for_every_measure(scripts):
    memorized, planted = scripts
    groups = {f"{n} {which}": [float(n)] * planted.EACH for which in ("seen", "unseen") for n in planted.REPEATS}
    measures = ("extracted", "exposure", "logp", "gap", "link")
    made = memorized.pooled({f"{name} {group}": values for group, values in groups.items() for name in measures})
    each = [float(n) for n in planted.REPEATS for _ in range(planted.EACH)]
    for name in measures:
        assert made[f"{name} seen"] == made[f"{name} unseen"] == each
