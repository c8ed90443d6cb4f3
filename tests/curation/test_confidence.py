"""Scores of the teacher's confidence: right if they can be computed from the stored distributions, otherwise absent."""

from __future__ import annotations

import numpy as np
import pytest
from support.corpora import corpus_of, curating, parts, row

import synthgen
from synthgen import corpus, logits
from synthgen.curation import job
from synthgen.curation.confidence import MEASURES, measured
from synthgen.errors import CorpusError, RecipeError
from synthgen.logits import LogitsSpec, Sampled, TopK
from synthgen.records import Record, to_table

VOCABULARY = 40


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def distributions(count: int, seed: int = 0, width: float = 2.0) -> np.ndarray:
    """Probabilities of `count` positions over the vocabulary."""
    return softmax(np.random.default_rng(seed).normal(0, width, (count, VOCABULARY)))


def topk(p: np.ndarray, k: int, temperature: float = 1.0) -> TopK:
    """The top-k of these distributions, after it was written and read back."""
    ids = np.argsort(-p, axis=1)[:, :k]
    logp = np.log(np.take_along_axis(p, ids, 1))
    hot = p ** (1 / temperature)
    left = hot.sum(1) - np.take_along_axis(hot, ids, 1).sum(1)
    with np.errstate(divide="ignore"):
        tail = np.log(np.maximum(left, 0) / hot.sum(1))
    target = TopK(ids.astype(np.int32), logp, tail, np.log(hot.sum(1)).astype(np.float32))
    spec = logits.meta(LogitsSpec("topk", temperature, k=k), VOCABULARY, "t@1", "hash")
    return logits.decode(logits.encode(target, spec), spec)


def drawn(p: np.ndarray, draws: int, seed: int = 1) -> Sampled:
    rng = np.random.default_rng(seed)
    return logits.count_draws(np.array([rng.choice(VOCABULARY, draws, p=each) for each in p]))


def of(target, tokens, temperature: float = 1.0) -> dict[str, float]:
    return dict(zip(MEASURES, measured(target, tokens, temperature), strict=True))


def truth(p: np.ndarray, tokens) -> dict[str, float]:
    """The measures, computed from whole distributions by their definitions."""
    own = p[np.arange(len(p)), tokens]
    best = np.sort(p, axis=1)[:, ::-1]
    return {
        "logprob": np.log(own).mean(),
        "probability": own.mean(),
        "entropy": -(p * np.log(p)).sum(1).mean(),
        "margin": (best[:, 0] - best[:, 1]).mean(),
    }


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_whole_distributions_give_all_measures(temperature):
    p = distributions(30)
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, 30)
    assert of(topk(p, VOCABULARY, temperature), tokens, temperature) == pytest.approx(truth(p, tokens), abs=0.002)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_top_k_gives_a_lower_bound_of_the_entropy_and_the_rest_exactly(temperature):
    p = distributions(30)
    tokens = np.argsort(-p, axis=1)[np.arange(30), np.arange(30) % 8]
    found, whole = of(topk(p, 8, temperature), tokens, temperature), truth(p, tokens)
    for name in ("logprob", "probability", "margin"):
        assert found[name] == pytest.approx(whole[name], abs=0.002)
    best = np.sort(p, axis=1)[:, ::-1]
    merged = np.concatenate([best[:, :8], best[:, 8:].sum(1, keepdims=True)], axis=1)
    assert found["entropy"] == pytest.approx(-(merged * np.log(merged)).sum(1).mean(), abs=0.01)
    assert found["entropy"] < whole["entropy"] - 0.1


def known(found: dict[str, float]) -> list[str]:
    return [name for name in MEASURES if not np.isnan(found[name])]


def test_what_a_top_k_does_not_show_is_absent():
    p = distributions(5)
    best = np.argsort(-p, axis=1)
    assert known(of(topk(p, 8), best[:, 0])) == [*MEASURES]
    assert known(of(topk(p, 8), [*best[:4, 0], best[4, 8]])) == ["entropy", "margin"], "a token outside of the top-k"
    assert known(of(topk(p, 1), best[:, 0])) == ["logprob", "probability", "entropy"], "no second best"
    assert known(of(topk(p[:0], 8), [])) == []


def test_missing_candidates_of_a_server_are_not_taken_for_improbable_ones():
    """The free slots of a position repeat its first id at -32 nats."""
    p = np.full((2, VOCABULARY), 0.1 / (VOCABULARY - 3))
    p[:, :3] = [[0.5, 0.3, 0.1], [0.6, 0.2, 0.1]]
    whole = topk(p, 3)
    ids, logp, tail = whole.ids.copy(), whole.logprobs.copy(), whole.log_tail.copy()
    ids[1, 1:], logp[1, 1:], tail[1] = ids[1, 0], logits.FLOOR, np.log(0.4)
    found = of(TopK(ids, logp, tail, whole.log_z), [0, 0])
    assert known(found) == ["logprob", "probability", "entropy"]
    assert found["probability"] == pytest.approx(0.55, abs=0.002)
    one = np.array([[0.5, 0.3, 0.1, 0.1]])
    assert found["entropy"] == pytest.approx(
        (-(one * np.log(one)).sum() - 0.6 * np.log(0.6) - 0.4 * np.log(0.4)) / 2, abs=0.005
    )
    ids[1, 1], logp[1, 1], tail[1] = 1, np.log(0.2), np.log(0.2)
    assert known(of(TopK(ids, logp, tail, whole.log_z), [0, 0])) == [*MEASURES]
    tail[1] = np.log(0.25)  # now the missing candidate may be the second most probable token
    assert known(of(TopK(ids, logp, tail, whole.log_z), [0, 0])) == ["logprob", "probability", "entropy"]


def test_draws_give_an_unbiased_probability_and_nothing_else():
    p = distributions(6, width=1.0)
    tokens = np.argsort(-p, axis=1)[:, 2]
    assert known(of(drawn(p, 50), tokens)) == ["probability"]
    assert known(of(drawn(p, 50), tokens, 2.0)) == []
    rounds = 400
    found = [of(drawn(p, 50, seed), tokens)["probability"] for seed in range(rounds)]
    own = p[np.arange(6), tokens]
    error = np.sqrt((own * (1 - own)).sum() / 6**2 / 50 / rounds)
    assert abs(np.mean(found) - own.mean()) < 4 * error


def sure_and_unsure(count: int) -> tuple[list[Record], list[np.ndarray]]:
    """Rows and their distributions. In every third row, the teacher was unsure."""
    rows, p = [], []
    for number in range(count):
        p.append(distributions(6, number, width=0.3 if number % 3 == 0 else 8.0))
        tokens = p[-1].argmax(1).tolist()
        rows.append(row(f"Answer number {number}.", number, token_ids=tokens))
    return rows, p


def with_logits(run, rows: list[Record], targets: list, spec: LogitsSpec, size: int = 4, teacher: str = "t"):
    """A run with these rows and their distributions."""
    corpus_of(run, rows, size)
    folder = run / "generated"
    (folder / "manifest.json").unlink()
    meta = logits.meta(spec, VOCABULARY, "t@1", "hash")
    names = corpus.shards(folder)
    for place, name in enumerate(names):
        here = slice(place * size, (place + 1) * size)
        aligns = [logits.align(r.token_ids or (), "t@1", "hash", spec.temperature) for r in rows[here]]
        table = logits.to_table([r.id for r in rows[here]][::-1], aligns[::-1], targets[here][::-1], meta)
        corpus.commit(folder, name, {"data": to_table(rows[here]), f"logits/{teacher}": table})
    facts = {"description": "", "task": "t", "strategy": "answer", "prompt_version": "v", "labels": [], "teachers": {}}
    facts |= {"sources": [], "counts": {"rows": len(rows)}}
    corpus.finish(folder, "generated", facts, names)
    return run


def scores(record: Record) -> dict[str, float]:
    return {one["name"]: one["value"] for one in record.scores if one["name"].startswith("teacher_")}


def test_scores_are_stored_and_bounds_reject_the_unsure_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "TASK_ROWS", 5)
    rows, p = sure_and_unsure(13)
    targets = [topk(each, 12) for each in p]
    run = with_logits(tmp_path / "run", rows, targets, LogitsSpec("topk", k=12))
    synthgen.curate(curating(confidence=True), run)
    kept, rejected = parts(run)
    assert (list(kept), rejected) == ([r.id for r in rows], {})
    for number, record in enumerate(kept.values()):
        whole = truth(p[number], rows[number].token_ids)
        found = scores(record)
        assert found["teacher_logprob"] == pytest.approx(whole["logprob"], abs=0.002)
        assert found["teacher_probability"] == pytest.approx(whole["probability"], abs=0.002)
        assert found["teacher_margin"] == pytest.approx(whole["margin"], abs=0.002)
        assert found["teacher_entropy_at_least"] <= whole["entropy"] + 0.01
    unsure = {f"r{n}" for n in range(0, 13, 3)}
    bounds = {"min_logprob": -1.5, "min_probability": 0.3, "max_entropy": 1.5, "min_margin": 0.2}
    for rule, bound in bounds.items():
        synthgen.curate(curating(confidence={rule: bound}), run, run / rule, workers=2 if rule == "min_margin" else 1)
        kept, rejected = parts(run, rule)
        assert set(rejected) == unsure, rule
        (verdict,) = rejected["r0"].verdicts
        assert (verdict["rule"], verdict["threshold"], verdict["teaches"]) == (rule, bound, "distribution")
        assert verdict["score"] in [pytest.approx(value) for value in scores(rejected["r0"]).values()]


def test_rows_without_distributions_of_their_own_tokens_have_no_score(tmp_path):
    rows, p = sure_and_unsure(4)
    rows[0].completion = [{"role": "assistant", "content": "Yes.\nQ: And now?\nA: No."}]
    rows[1].teacher = "another"
    run = with_logits(tmp_path / "run", rows, [topk(each, 12) for each in p], LogitsSpec("topk", k=12))
    synthgen.curate(curating(next_turn=True, confidence={"min_logprob": -9.0}), run)
    kept, _ = parts(run)
    assert [bool(scores(record)) for record in kept.values()] == [False, False, True, True]
    assert (kept["r0"].text, kept["r0"].token_ids) == ("Yes.", None)


def test_each_row_of_a_large_shard_has_its_own_score(tmp_path):
    """Shards are read in batches of 2,048 rows."""
    count, rows, targets = 2050, [], []
    p = np.full((count, 1, VOCABULARY), 0.0)
    for number in range(count):
        p[number, 0, 1:] = (1 - 0.2 - 0.7 * number / count) / (VOCABULARY - 1)
        p[number, 0, 0] = 0.2 + 0.7 * number / count
        rows.append(row(f"Number {number}.", number, token_ids=[0]))
        targets.append(topk(p[number], 4))
    run = with_logits(tmp_path / "run", rows, targets, LogitsSpec("topk", k=4), size=count)
    synthgen.curate(curating(confidence=True), run)
    found = [scores(record)["teacher_probability"] for record in parts(run)[0].values()]
    assert found == pytest.approx(p[:, 0, 0].tolist(), abs=0.001)


def test_draws_at_temperature_one_give_one_score(tmp_path):
    rows, p = sure_and_unsure(4)
    for temperature, names in ((1.0, ["teacher_probability"]), (2.0, [])):
        run = tmp_path / str(temperature)
        with_logits(run, rows, [drawn(each, 50) for each in p], LogitsSpec("sampled", temperature, draws=50))
        synthgen.curate(curating(confidence=True), run)
        assert list(scores(parts(run)[0]["r1"])) == names


def test_distributions_of_other_tokens_are_an_error(tmp_path):
    rows, p = sure_and_unsure(4)
    run = with_logits(tmp_path / "run", rows, [topk(each, 12) for each in p], LogitsSpec("topk", k=12))
    (path,) = (run / "generated" / "logits" / "t").iterdir()
    rows[2].token_ids = [1, 2, 3, 4, 5, 6]
    corpus_of(tmp_path / "other", rows, 4)
    table = corpus.read_shard(tmp_path / "other" / "generated" / "data" / "train-00000.parquet")
    (run / "generated" / "manifest.json").unlink()
    found = logits.read(path)
    again = logits.to_table(found.ids, found.aligns, [found.target(n) for n in range(4)], found.meta)
    corpus.commit(run / "generated", "train-00000", {"data": table, "logits/t": again})
    facts = {"description": "", "task": "t", "strategy": "answer", "prompt_version": "v", "labels": [], "teachers": {}}
    corpus.finish(run / "generated", "generated", {**facts, "sources": [], "counts": {"rows": 4}}, ["train-00000"])
    with pytest.raises(CorpusError, match="does not belong to record r2"):
        synthgen.curate(curating(confidence=True), run)


def test_a_corpus_without_distributions_is_refused(tmp_path):
    run = corpus_of(tmp_path, [row("one", 0)])
    with pytest.raises(RecipeError, match="reads the teacher's distributions, which"):
        synthgen.curate(curating(confidence=True), run)
