"""The sums of a row over the whole vocabulary, and rows that have no stored targets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.evaluation.distance import Distances, _row, unigram
from distill.evaluation.fidelity import _table


def test_the_sums_of_a_row_are_those_of_float64():
    generator = torch.Generator().manual_seed(3)
    z, teacher = (torch.randn(9, 40, generator=generator) * 2 for _ in range(2))
    tokens = torch.randint(40, (9,), generator=generator).tolist()
    q, p = (one.double().log_softmax(-1).numpy() for one in (z, teacher))
    kl, agreement, nll, far = _row(z, teacher.log_softmax(-1), tokens, None, None)
    assert kl == pytest.approx(float((np.exp(p) * (p - q)).sum()), rel=1e-5)
    assert nll == pytest.approx(-sum(q[place, token] for place, token in enumerate(tokens)), rel=1e-5)
    assert agreement == sum(p[place].argmax() == q[place].argmax() for place in range(9))
    assert np.isnan(far), "without a stored target, the distance from it is not 0"


def test_the_unigram_is_the_smoothed_share_of_each_token(monkeypatch):
    batches = [np.array([0, 2, 2]), np.array([], np.int64), np.array([2, 3])]
    monkeypatch.setattr("distill.evaluation.distance.training_tokens", lambda source: iter(batches))
    found = unigram(Path("corpus"), 6)
    assert found.exp().tolist() == pytest.approx([2 / 11, 1 / 11, 4 / 11, 2 / 11, 1 / 11, 1 / 11])
    assert found.dtype == torch.float32


def test_rows_without_stored_targets_do_not_bring_the_student_nearer_to_its_targets():
    rows = [SimpleNamespace(token_ids=[0] * length, seed_id=str(length)) for length in (2, 4, 6)]
    ones, bins = np.ones(3), np.ones((3, 15, 3))

    def far(values: list[float]) -> object:
        found = Distances(
            *({"distilled": ones} for _ in range(3)), {"distilled": np.array(values)}, {"distilled": bins}
        )
        return _table(found, rows, 0)["distilled"]["from_targets"]

    assert far([3.0, np.nan, 5.0]).mean == pytest.approx(8 / 8)
    assert far([3.0, 4.0, 5.0]).mean == pytest.approx(12 / 12)
    assert far([np.nan] * 3) is None
