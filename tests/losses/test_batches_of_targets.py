"""Batches of stored distributions are those of the rows one after the other, and rows that are left out are counted."""

from __future__ import annotations

import numpy as np
import pytest

from distill import losses
from distill.data import NO_ROWS, REASONS, Example, in_words, sampled_batch, target_batch, topk_batch, validation_rows
from synthgen import logits
from synthgen.errors import CorpusError, UserError
from synthgen.recipe import TrainSection

DRAWN = [
    logits.Sampled(np.array([7, 2, 9]), np.array([3, 1, 4]), np.array([2, 1])),
    logits.Sampled(np.array([5]), np.array([4]), np.array([1])),
]
"""Two rows with 4 draws at each of 3 positions: (7, 7, 7, 2), (9, 9, 9, 9), (5, 5, 5, 5)."""


def kept(*ids: tuple[int, ...]) -> logits.TopK:
    n = len(ids)
    some = [np.arange(n * len(ids[0]), dtype=np.float32).reshape(n, -1), np.full(n, -2.0, np.float32)]
    return logits.TopK(np.array(ids, np.int32), *some, np.arange(n, dtype=np.float32))


def test_ids_that_were_drawn_have_their_share_of_the_draws():
    ids, weights = sampled_batch(DRAWN, 4)
    assert (weights * 4).tolist() == [[3, 1], [4, 0], [4, 0]]
    assert ids[weights > 0].tolist() == [7, 2, 9, 5]
    assert np.allclose(weights.sum(1), 1)


def test_the_positions_of_all_rows_are_in_one_batch():
    rows = [kept((3, 1), (4, 2)), kept((9, 8))]
    ids, logprobs, tail, log_z = topk_batch(rows)
    assert ids.tolist() == [[3, 1], [4, 2], [9, 8]]
    assert (logprobs.tolist(), tail.tolist(), log_z.tolist()) == ([[0, 1], [2, 3], [0, 1]], [-2] * 3, [0, 1, 0])


def test_a_target_of_another_kind_than_the_shards_state_is_refused():
    drawn, top = {"kind": "sampled", "draws": 4}, {"kind": "topk"}
    found = target_batch(DRAWN, drawn)
    assert isinstance(found, losses.Sampled)
    assert found.ids_NU.shape == (3, 2)
    found = target_batch([kept((3, 1)), kept((9, 8))], top)
    assert isinstance(found, losses.TopK)
    assert found.largest == 9
    for targets, meta in (([*DRAWN, kept((1,))], drawn), (DRAWN, top), ([None], top), ([DRAWN[0], None], drawn)):
        with pytest.raises(ValueError, match=f"shards state targets of kind '{meta['kind']}'"):
            target_batch(targets, meta)


def test_masked_tokens_are_not_learned():
    row = Example("a", [1], [4, 5, 6], None, True)
    assert row.learned == 3
    assert Example("a", [1], [4, 5, 6], None, True, masked=np.array([True, False, True])).learned == 1


def test_rows_that_are_left_out_are_counted_in_words():
    assert in_words({"too_long": 1200, "degenerate": 0, "not_scored": 3}) == (
        f"1,200 {REASONS['too_long']}, 3 {REASONS['not_scored']}"
    )
    assert in_words({}) == in_words({"degenerate": 0}) == ""


def test_validation_rows_are_read_only_where_they_are_measured(tmp_path):
    def fails(text: str):
        def read() -> list:
            raise CorpusError(text)

        return read

    assert validation_rows(TrainSection(), tmp_path, fails("not read")) == ()
    section = TrainSection(eval_steps=2)
    assert validation_rows(section, tmp_path, lambda: ["row"]) == ["row"]
    with pytest.raises(CorpusError, match="is damaged"):
        validation_rows(section, tmp_path, fails("x is damaged"))
    for read in (list, fails(f"x {NO_ROWS}")):
        with pytest.raises(UserError, match="has no validation rows"):
            validation_rows(section, tmp_path, read)
