"""Tests that calibration finds planted errors, that held-out rows are divided into parts, and that the energy meter
counts only the CPU packages."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.cost import counters, joules
from distill.evaluation.slices import BINS, calibration, calibration_bins, slices


def planted(rows: int, tokens: int, shift: float, seed: int = 0) -> tuple[np.ndarray, list[str], float]:
    """(bins of each row, cluster of each row, expected calibration error) of a simulated model. The model's most likely
    token is right with a probability that is lower by `shift` than the probability that the model states.
    """
    random = np.random.default_rng(seed)
    bins, gaps = [], np.zeros((BINS, 2))
    for _ in range(rows):
        confidence = random.uniform(0.4, 0.95, tokens)
        hit = random.random(tokens) < confidence - shift
        logits = torch.full((tokens, 40), 0.0)
        logits[:, 0] = torch.from_numpy(np.log(confidence / (1 - confidence) * 39)).float()
        labels = torch.from_numpy(np.where(hit, 0, 1))
        bins.append(calibration_bins(logits, labels))
        for c, h in zip(confidence, hit, strict=True):
            gaps[min(BINS - 1, int(c * BINS))] += (h - c, 1)
    return np.stack(bins), [str(n // 2) for n in range(rows)], float(np.abs(gaps[:, 0]).sum() / gaps[:, 1].sum())


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_calibration_sees_what_was_planted(shift):
    bins, clusters, expected = planted(200, 50, shift)
    found = calibration(bins, clusters, 0)
    assert found.mean == pytest.approx(expected, abs=1e-3)
    assert found.mean == pytest.approx(shift, abs=0.02)
    assert found.low - 0.02 < found.mean < found.high
    assert found.high - found.low < 0.06


def test_one_token_of_each_kind():
    """A token that is predicted with probability 1 has the calibration error 0 if it is right, and 1 if it is wrong."""
    sure = torch.tensor([[50.0, 0.0]])
    right, wrong = (calibration_bins(sure, torch.tensor([n])) for n in (0, 1))
    assert right[-1].tolist() == [1, 1, 1]
    assert wrong[-1].tolist() == [1, 1, 0]
    assert calibration(np.stack([right]), ["a"], 0).mean == pytest.approx(0)
    assert calibration(np.stack([wrong]), ["a"], 0).mean == pytest.approx(1)


def row(n: int, strategy: str = "answer", length: int = 5, right: float | None = None) -> SimpleNamespace:
    scores = [] if right is None else [{"name": "answer", "value": right}]
    return SimpleNamespace(id=str(n), strategy=strategy, token_ids=[0] * length, scores=scores)


def test_parts_of_the_rows():
    records = [row(n, "answer" if n < 10 else "vote", length=1 + n, right=float(n % 2)) for n in range(30)]
    found = slices(records)
    assert found["strategy: answer"] == list(range(10))
    assert found["strategy: vote"] == list(range(10, 30))
    assert found["answer: right"] == list(range(1, 30, 2))
    assert found["length: shortest third"] == list(range(10))
    assert found["length: longest third"] == list(range(20, 30))
    lengths = [found[name] for name in found if name.startswith("length")]
    assert sorted(n for some in lengths for n in some) == list(range(30))


def test_a_division_into_one_part_is_none_and_small_parts_are_left_out():
    assert slices([row(n) for n in range(30)]) == {}
    found = slices([row(n, "rare" if n < 3 else "answer") for n in range(30)])
    assert list(found) == ["strategy: answer"]
    assert slices([]) == {}


def test_energy_is_of_the_packages_alone(tmp_path):
    assert counters(tmp_path) == []
    for name, value in (("intel-rapl:0", 5_000_000), ("intel-rapl:1", 2_500_000), ("intel-rapl:0:0", 9_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
    assert counters(tmp_path) == [5_000_000, 2_500_000]
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert counters(tmp_path) == []


def test_energy_is_not_known_when_a_counter_began_again_at_zero():
    assert joules([5_000_000, 2_500_000], [6_000_000, 3_000_000]) == 1.5
    assert joules([5_000_000], [5_000_000]) == 0.0
    assert joules([5_000_000, 262_000_000], [60_000_000, 1_000_000]) is None
    assert joules([], []) is None
    assert joules([5_000_000], []) is None
