"""The logits format: exact values, values within the stated error, and a check that each distribution is used only with
its own tokens.
"""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthgen import logits
from synthgen.errors import CorpusError


def draws(t: int, n: int, vocabulary: int, seed: int = 0) -> np.ndarray:
    """Ids (t, n) drawn from a Zipf distribution, in which ids occur more than once."""
    return np.minimum(np.random.default_rng(seed).zipf(1.3, (t, n)) - 1, vocabulary - 1)


@pytest.mark.parametrize("vocabulary", [300, 49_152, 70_000, 2**24 + 5])
@pytest.mark.parametrize("n", [1, 50, 300])
@pytest.mark.parametrize("t", [0, 1, 17])
def test_sampled_is_exact(t, n, vocabulary):
    drawn = draws(t, n, vocabulary)
    target = logits.count_draws(drawn)
    meta = logits.meta(logits.LogitsSpec("sampled", 1.0, draws=n), vocabulary, "t", "k")
    back = logits.decode(logits.encode(target, meta), meta)
    start = 0
    for row in range(t):
        ids, counts = np.unique(drawn[row], return_counts=True)
        stop = start + int(back.uniques[row])
        assert np.array_equal(back.ids[start:stop], ids)
        assert np.array_equal(back.counts[start:stop], counts)
        start = stop
    assert start == len(back.ids)


@pytest.mark.parametrize("vocabulary", [300, 49_152, 70_000])
@pytest.mark.parametrize("t", [0, 1, 17])
def test_topk_is_within_the_stated_error(t, vocabulary):
    generator = np.random.default_rng(0)
    logprobs = -np.sort(generator.exponential(3, (t, 20)).astype(np.float32), axis=1)
    ids = generator.integers(0, vocabulary, (t, 20)).astype(np.int32)
    target = logits.TopK(ids, logprobs, -generator.random(t).astype(np.float32), generator.random(t).astype(np.float32))
    meta = logits.meta(logits.LogitsSpec("topk", 2.0, k=20), vocabulary, "t", "k")
    back = logits.decode(logits.encode(target, meta), meta)
    assert np.array_equal(back.ids, ids)
    assert np.array_equal(back.log_z, target.log_z)
    assert np.abs(back.logprobs - np.maximum(logprobs, logits.FLOOR)).max(initial=0) <= logits.STORAGE_ERROR + 1e-6
    assert np.abs(back.log_tail - target.log_tail).max(initial=0) <= logits.STORAGE_ERROR + 1e-6


@pytest.mark.parametrize("n", [255, 256, 65_535])
def test_counts_and_numbers_of_ids_up_to_all_draws(n):
    meta = logits.meta(logits.LogitsSpec("sampled", 1.0, draws=n), 1 << 17, "t", "k")
    drawn = np.stack([np.full(n, 9), np.arange(n)])
    blobs = logits.encode(logits.count_draws(drawn), meta)
    back = logits.decode(blobs, meta)
    assert back.uniques.tolist() == [1, n]
    assert back.counts.tolist() == [n, *[1] * n]
    assert back.ids.tolist() == [9, *range(n)]
    assert len(blobs["uniques"]) == (2 if n < 256 else 4), "one byte for each number if it is enough"


@pytest.mark.parametrize(("vocabulary", "width"), [(1 << 16, 2), ((1 << 16) + 1, 3), (1 << 24, 3), ((1 << 24) + 1, 4)])
def test_the_last_id_of_a_vocabulary_and_the_bytes_of_an_id(vocabulary, width):
    ids = np.array([[vocabulary - 1], [0], [vocabulary - 2]])
    meta = logits.meta(logits.LogitsSpec("sampled", 1.0, draws=1), vocabulary, "t", "k")
    blobs = logits.encode(logits.count_draws(ids), meta)
    assert sorted(blobs) == ["counts", *(f"ids_{byte}" for byte in range(width)), "uniques"]
    assert logits.decode(blobs, meta).ids.tolist() == ids.ravel().tolist()


@pytest.mark.parametrize(("k", "tail"), [(2, -32.0), (3, -np.inf)])
def test_values_that_are_small_or_equal_and_whole_vocabularies(k, tail):
    """A top-k of the whole vocabulary has no residual mass. Log-probabilities below the floor are stored as the floor.
    If some ids are not kept, a residual mass below the floor is stored as the floor too.
    """
    meta = logits.meta(logits.LogitsSpec("topk", 1.0, k=k), 3, "t", "k")
    values = np.array([[0.0, -np.inf, -np.inf][:k], [-1.0] * k, [1e-6, -0.001, -31.999][:k]], np.float32)
    target = logits.TopK(np.tile(np.arange(k), (3, 1)), values, np.full(3, -np.inf), np.array([1.5, -2.5, 0.0]))
    back = logits.decode(logits.encode(target, meta), meta)
    assert logits.FLOOR == -32.0
    assert logits.STORAGE_ERROR == 1 / 1024
    steps = [[0, 32 * 512, 32 * 512][:k], [512] * k, [0, 1, 32 * 512 - 1][:k]]
    assert (back.logprobs * -512).tolist() == steps
    assert back.log_tail.tolist() == [tail] * 3
    assert back.log_z.tolist() == [1.5, -2.5, 0.0]
    assert len(back) == 3


@pytest.mark.parametrize("spec", [logits.LogitsSpec("sampled", draws=5), logits.LogitsSpec("topk", k=4)])
def test_a_shard_without_rows_has_the_columns_of_one_with_rows(tmp_path, spec):
    meta = logits.meta(spec, 300, "t", "k")
    table = logits.to_table([], [], [], meta)
    drawn = logits.count_draws(np.zeros((2, 5), np.int64))
    top = logits.TopK(np.zeros((2, 4), np.int32), np.zeros((2, 4)), np.zeros(2), np.zeros(2))
    full = logits.to_table(["a"], [b""], [drawn if spec.draws else top], meta)
    assert table.schema == full.schema
    assert (table.num_rows, full["tokens"].to_pylist()) == (0, [2])
    pq.write_table(table, tmp_path / "a.parquet")
    assert len(logits.read(tmp_path / "a.parquet")) == 0
    with pytest.raises(CorpusError, match="logits row 0 does not belong"):
        logits.check_aligned(logits.read(tmp_path / "a.parquet"), 0, "a", [1], tmp_path)


def test_row_groups_stay_under_their_size():
    meta = logits.meta(logits.LogitsSpec("sampled", draws=5), 300, "t", "k")
    assert logits.row_group_rows(logits.to_table([], [], [], meta)) == 64 << 20
    wide = pa.table({"a": pa.array([b"x" * (1 << 20)] * 3, pa.large_binary())})
    assert 60 <= logits.row_group_rows(wide) <= 64
    assert logits.row_group_rows(pa.table({"a": pa.array([b"x" * (65 << 20)], pa.large_binary())})) == 1


def test_unsorted_topk_is_refused():
    meta = logits.meta(logits.LogitsSpec("topk", 1.0, k=2), 300, "t", "k")
    target = logits.TopK(np.array([[1, 2]]), np.array([[-2.0, -1.0]]), np.array([-1.0]), np.array([0.0]))
    with pytest.raises(ValueError, match="sorted"):
        logits.encode(target, meta)


def test_a_row_beside_the_wrong_tokens_fails(tmp_path):
    meta = logits.meta(logits.LogitsSpec("sampled", 1.0, draws=5), 300, "teacher", "tokenizer")
    tokens = [[1, 2, 3], [4, 5]]
    targets = [logits.count_draws(draws(len(t), 5, 300)) for t in tokens]
    aligns = [logits.align(t, "teacher", "tokenizer", 1.0) for t in tokens]
    path = tmp_path / "part.parquet"
    pq.write_table(logits.to_table(["a", "b"], aligns, targets, meta), path)
    shard = logits.read(path)
    logits.check_aligned(shard, 0, "a", [1, 2, 3], path)
    for row, name, ids in ((0, "a", [1, 2, 4]), (0, "b", [1, 2, 3]), (1, "a", [1, 2, 3]), (2, "c", [1])):
        with pytest.raises(CorpusError, match="does not belong"):
            logits.check_aligned(shard, row, name, ids, path)
    assert {len(align) for align in aligns} == {16}
    for other in (("x", "tokenizer", 1.0), ("teacher", "x", 1.0), ("teacher", "tokenizer", 2.0)):
        assert logits.align([1, 2, 3], *other) != aligns[0]


def test_a_file_that_is_no_shard_is_named(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(CorpusError, match=r"x\.parquet"):
        logits.read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CorpusError, match=r"x\.parquet"):
        logits.read(path)
    with pytest.raises(CorpusError, match=r"x\.parquet"):
        next(logits.pieces(path))


@pytest.mark.parametrize(("k", "level"), [(32, 15), (33, 9)])
def test_wide_shards_are_packed_faster(tmp_path, k, level):
    """The file is compressed at the level `level`: pyarrow writes the same bytes at this level, and other bytes at
    other levels.
    """
    from synthgen import corpus, durable

    random = np.random.default_rng(0)
    logp = np.sort(-random.exponential(3, (200, k)), axis=-1)[:, ::-1].astype(np.float32)
    ids = np.stack([random.choice(49152, k, replace=False) for _ in range(200)]).astype(np.int32)
    target = logits.TopK(ids, logp, np.full(200, -1.0, np.float32), np.zeros(200, np.float32))
    meta = logits.meta(logits.LogitsSpec("topk", 1.0, k=k), 49152, "teacher", "tokenizer")
    table = logits.to_table(["a"], [b"\0" * 16], [target], meta)
    durable.write_json(tmp_path / "inputs.json", {})
    corpus.commit(tmp_path, "train-00000", {"logits/teacher": table})
    path = tmp_path / "logits" / "teacher" / "train-00000.parquet"
    size = {}
    for other in (1, 9, 15):
        pq.write_table(
            pq.read_table(path),
            tmp_path / "other.parquet",
            compression="zstd",
            compression_level=other,
            use_dictionary=False,
            write_page_checksum=True,
        )
        size[other] = (tmp_path / "other.parquet").stat().st_size
    assert path.stat().st_size == size[level]
    assert len(set(size.values())) == 3
