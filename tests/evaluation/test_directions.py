"""The tables of evaluations say which direction of a measure is better."""

from __future__ import annotations

from distill.evaluation import classifiers, fidelity, recorded, similarity

LOW = {"kl", "from_targets", "nll", "perplexity", "calibration", "bits_per_byte", "judge_loss"}
LOW |= {"weights_bytes", "peak_rss_bytes", "answer_ms", "joules_per_token", "prompt_tokens"}
LOW |= {"answer_tokens", "answer_usd"}
HIGH = {"agreement", "accuracy", "same_answer", "judge_win", "spearman", "cosine"}
HIGH |= {"rows_per_second", "tokens_per_second"}
NEITHER = {"parameters", "judge_tie", "position_bias"}


def test_errors_and_costs_are_better_when_they_are_low():
    tables = [one.MEASURES for one in (classifiers, fidelity, recorded, similarity)]
    assert {name for table in tables for name in table} == LOW | HIGH | NEITHER
    for table in tables:
        for name, measure in table.items():
            assert measure.lower_is_better is (True if name in LOW else False if name in HIGH else None), name
