"""Conversion of vLLM's FlatLogprobs to arrays and to a top-k target."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from vllm.logprobs import FlatLogprobs

from synthgen import logits
from synthgen.logits import LogitsSpec
from synthgen.teachers.vllm.flat import positions, top_k

V = 500


def _filled(logp_TV: np.ndarray, drawn: list[int], k: int, prompt: bool = False) -> FlatLogprobs:
    """A FlatLogprobs as the engine fills it: at each position the drawn token, then the k most likely tokens."""
    flat = FlatLogprobs()
    if prompt:
        flat.append(None)
    for logp, token in zip(logp_TV, drawn, strict=True):
        best = np.argsort(-logp, kind="stable")[:k]
        ids = [token, *best.tolist()]
        flat.append_fast(ids, [float(logp[i]) for i in ids], itertools.chain([1], range(1, k + 1)), [None] * len(ids))
    return flat


def _random(tokens: int, scale: float = 3.0, seed: int = 0) -> np.ndarray:
    z = np.random.default_rng(seed).normal(0, scale, (tokens, V))
    return z - np.logaddexp.reduce(z, axis=1, keepdims=True)


def test_top_k_is_that_of_the_distribution_whether_or_not_the_drawn_token_is_in_it():
    logp = _random(40)
    drawn = [int(np.argsort(-row)[0 if t % 2 else 300]) for t, row in enumerate(logp)]
    ids, values = positions(_filled(logp, drawn, 16))
    target = top_k(ids, values, V)
    order = np.argsort(-logp, axis=1, kind="stable")[:, :16]
    assert ids[:, 0].tolist() == drawn
    np.testing.assert_array_equal(target.ids, order)
    np.testing.assert_allclose(target.logprobs, np.take_along_axis(logp, order, 1), atol=1e-6)
    left = 1 - np.exp(np.take_along_axis(logp, order, 1)).sum(1)
    np.testing.assert_allclose(target.log_tail, np.log(left), atol=1e-5)
    assert (target.log_z == 0).all()


def test_dictionaries_of_the_same_positions_agree():
    logp = _random(10)
    flat = _filled(logp, logp.argmax(1).tolist(), 8)
    target = top_k(*positions(flat), V)
    for t in range(10):
        entries = {i: p.logprob for i, p in flat[t].items()}
        assert entries == pytest.approx(
            dict(zip(target.ids[t].tolist(), target.logprobs[t].tolist(), strict=True)), abs=1e-6
        )


def test_prompt_positions_begin_at_the_second_token():
    logp = _random(12)
    drawn = list(range(12))
    ids, values = positions(_filled(logp, drawn, 4, prompt=True), 5)
    assert ids[:, 0].tolist() == drawn[4:]
    np.testing.assert_allclose(values[:, 0], [logp[t, t] for t in range(4, 12)], atol=1e-6)


def test_residual_mass_of_a_peaked_distribution_is_bounded_under_rounding():
    z = np.full((1, V), -40.0)
    z[0, 0] = 0.0
    logp = (z - np.logaddexp.reduce(z, axis=1, keepdims=True)).astype(np.float32).astype(float)
    target = top_k(*positions(_filled(logp, [0], 8)), V)
    assert np.log(V - 8) - 41 < target.log_tail[0] <= np.log(V - 8) - 40 + 1e-3
    over = logp.copy()
    over[0, 0] = 1e-7  # by rounding, the kept mass can exceed one
    assert np.isfinite(top_k(*positions(_filled(over, [0], 8)), V).log_tail).all()


def test_top_k_over_the_whole_vocabulary_has_no_residual_mass():
    logp = _random(3)
    target = top_k(*positions(_filled(logp, [0, 1, 2], V)), V)
    assert (target.log_tail == -np.inf).all()


def test_unsorted_candidates_are_sorted():
    logp = _random(5)
    flat = _filled(logp, [0] * 5, 6)
    for start, end in zip(flat.start_indices, flat.end_indices, strict=True):
        for name in ("token_ids", "logprobs"):
            getattr(flat, name)[start + 1 : end] = getattr(flat, name)[start + 1 : end][::-1]
    target = top_k(*positions(flat), V)
    assert (np.diff(target.logprobs, axis=1) <= 0).all()
    np.testing.assert_array_equal(target.ids, np.argsort(-logp, axis=1, kind="stable")[:, :6])


def test_positions_of_different_widths_are_refused():
    flat = _filled(_random(4), [0] * 4, 6)
    flat.append({1: flat[0][0]})
    with pytest.raises(ValueError, match="not 7 each"):
        positions(flat)


def test_a_target_is_the_same_after_encoding_and_decoding():
    logp = _random(20, scale=1.5)
    target = top_k(*positions(_filled(logp, [0] * 20, 32)), V)
    meta = logits.meta(LogitsSpec("topk", k=32), V, "t", "k")
    back = logits.decode(logits.encode(target, meta), meta)
    np.testing.assert_array_equal(back.ids, target.ids)
    np.testing.assert_allclose(back.logprobs, target.logprobs, atol=logits.STORAGE_ERROR + 1e-6)
