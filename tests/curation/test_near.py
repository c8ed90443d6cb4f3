"""Near duplicates: the compiled functions give the same hashes, sketches and twins as the reference, and the estimate
has the error that theory predicts. `curate` drops exactly the rows whose similarity to an earlier kept row reaches the
threshold.
"""

from __future__ import annotations

import json
import math
import random
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from support.corpora import contents, corpus_of, curating, parts, row

import synthgen
from synthgen.curation import job
from synthgen.curation.near import components, kernels, limits, search, sketch, twins
from synthgen.curation.near.shingles import ALONE, BREAK, KINDS, LOWER, WORD, shingles, words
from synthgen.datasets import source_of
from synthgen.errors import RecipeError, UserError
from synthgen.executor.exchange import write_table
from synthgen.recipe import curate as curate_section
from synthgen.records import Record

TEXTS = [
    "",
    " ",
    "...",
    "!?",
    "one",
    "one two three four",
    "one two three four five",
    "one two three four five six",
    "a_b 12 c-d e.f",
    "la la la la la la la la la la",
    "straße café naïve résumé über",
    "Привет мир, как твои дела сегодня",
    "这是一个简单的句子。它有几个词",
    "これはペンです 한국어 문장 은 띄어 쓴다",
    "ภาษาไทย ไม่มีช่องว่าง",
    "one 😀 two 😀😀 three",
    "x² + y² = z² — “quoted” … end",
    "\U0002a6d6 \u200b zero",
    "ÄÖÜ ΣΑΣ İstanbul ẞ ЖУК Ⅷ Ⓐ \uff21\uff22 \U0001d400",
]
PINNED_SHINGLES = [4593538302991581238, 5252906956324709271]
PINNED_SKETCH = [847293123, 3885764063, 3311959655, 2915468845]
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # a factor that spreads small keys over all 64 bits
VOCABULARY = [f"w{number}" for number in range(5000)]


def compiled(texts: list[str], length: int = 5, slots: int = sketch.SLOTS):
    """Returns (all sets in one array, the start of each set, sizes, sketches) from the compiled functions."""
    array = pa.array(texts, pa.large_string())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[: len(texts) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)
    lists, sizes = np.zeros(len(data) // 2 + len(texts), np.uint64), np.zeros(len(texts), np.int64)
    kernels.shingle_lists(data, offsets, length, (KINDS, LOWER), lists, sizes)
    matrix = np.zeros((len(texts), slots), np.uint32)
    kernels.sketches(lists, sizes, matrix)
    starts = np.cumsum(sizes) - sizes
    settled = np.zeros(len(texts), np.bool_)
    for number in range(len(texts)):
        kernels.settle((lists, starts, sizes), number, settled)
    return lists, starts, sizes, matrix


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_compiled_shingles_are_those_of_the_reference(length):
    draw = random.Random(length)
    texts = [*TEXTS, *(" ".join(draw.choices(VOCABULARY[:9], k=draw.randrange(40))) for _ in range(50))]
    texts += ["".join(chr(draw.choice([draw.randrange(0x250), draw.randrange(0x3000, 0xD7FF)])) for _ in range(80))]
    lists, starts, sizes, _ = compiled(texts, length)
    for number, text in enumerate(texts):
        got = lists[starts[number] : starts[number] + sizes[number]]
        assert got.tolist() == shingles(text, length).tolist(), text


def test_the_words_of_a_text():
    assert words("Well-known: a_b, 12.5!") == ["well", "known", "a_b", "12", "5"]
    assert words("“naïve” café… x²") == ["naïve", "café", "x²"]
    assert words("我爱Python。 ok") == ["我", "爱", "python", "ok"]
    assert words("ก็ดี 😀!") == ["ก", "็", "ด", "ี", "😀"]
    ascii_text = "".join(map(chr, range(128))) + " end_of 9"
    assert words(ascii_text) == re.findall(r"\w+", ascii_text.lower())


SCRIPTS = ("THAI ", "LAO ", "TIBETAN ", "MYANMAR ", "KHMER ", "HIRAGANA ", "KATAKANA ", "HALFWIDTH KATAKANA ", "CJK ")
ODD = {0x3005, 0x3006, 0x3007, 0x3099, 0x309A, 0x30FC, 0xFF70, 0xFF9E, 0xFF9F}  # marks that these scripts share


def test_the_kind_of_every_character():
    """The script of every character is compared with Unicode's names. Characters that are in none of SCRIPTS are
    treated as in Python's regular expressions, but a mark belongs to the word before it.
    """
    for code in range(0x10000):
        character = chr(code)
        inside = bool(re.match(r"\w", character)) or unicodedata.category(character)[0] == "M"
        alone = unicodedata.name(character, "").startswith(SCRIPTS) or code in ODD
        wanted = (ALONE if alone else WORD) if inside else BREAK
        assert KINDS[code] == wanted, (hex(code), unicodedata.name(character, ""))
    assert words("सलाम، हिन्दी। שלום") == ["सलाम", "हिन्दी", "שלום"]


def test_the_hashes_are_those_of_every_version():
    """Stored signatures are compared with new signatures, so the pinned hashes may change only together with the
    version in `_made_with`.
    """
    assert shingles("one two three four five six", 5).tolist() == PINNED_SHINGLES
    assert sketch.sketch(shingles("one two three four five six", 5)).tolist()[:4] == PINNED_SKETCH


def test_short_and_empty_texts():
    assert len(shingles("", 5)) == 0
    assert len(shingles("?", 5)) == len(shingles("one", 5)) == len(shingles("one two", 5)) == 1
    assert shingles("?", 5).tolist() != shingles("!", 5).tolist()
    assert shingles("one, two", 5).tolist() == shingles("one two!", 5).tolist() != shingles("two one", 5).tolist()


def test_compiled_sketches_are_those_of_the_reference():
    draw = random.Random(3)
    texts = [*TEXTS, *(" ".join(draw.choices(VOCABULARY, k=size)) for size in (1, 30, 200, 600))]
    for slots in (64, 128):
        matrix = compiled(texts, slots=slots)[3]
        for number, text in enumerate(texts):
            assert matrix[number].tolist() == sketch.sketch(shingles(text, 5), slots).tolist(), text


@pytest.mark.parametrize("slots", [128, 256])
def test_the_estimate_is_unbiased_and_as_exact_as_minhash(slots):
    """Each pair of sets has a known similarity. The variance of MinHash with the same number of permutations is J(1 −
    J)/slots.
    """
    draw = np.random.default_rng(slots)
    errors, theory = [], []
    for size in (40, 150, 700):
        for similarity in np.linspace(0.05, 0.95, 19):
            shared = round(2 * size * similarity / (1 + similarity))
            true = shared / (2 * size - shared)
            count = 60
            elements = draw.integers(0, 2**63, (count, 2 * size - shared), np.uint64)
            pairs = np.concatenate([elements[:, :size], elements[:, size - shared :]], axis=1).reshape(2 * count, size)
            matrix = np.zeros((2 * count, slots), np.uint32)
            kernels.sketches(np.ascontiguousarray(pairs).ravel(), np.full(2 * count, size), matrix)
            errors += ((matrix[::2] == matrix[1::2]).mean(axis=1) - true).tolist()
            theory += [true * (1 - true) / slots] * count
    assert abs(np.mean(errors)) < 0.002
    assert np.sqrt(np.mean(np.square(errors))) <= np.sqrt(np.mean(theory))


def keys_of(matrix: np.ndarray, threshold: float) -> np.ndarray:
    """The key of each band of each sketch."""
    keys = np.empty((sketch.bands(threshold)[0], len(matrix)), np.uint64)
    kernels.band_keys(matrix, keys)
    return keys


def edited(text: str, kind: str, draw: random.Random) -> str:
    """The text after a small edit of one kind."""
    pieces = text.split()
    few = max(1, len(pieces) // 60)
    if kind == "substitution":
        for _ in range(few):
            pieces[draw.randrange(len(pieces))] = draw.choice(VOCABULARY)
    elif kind == "prefix":
        pieces = [*draw.choices(VOCABULARY, k=len(pieces) // 12), *pieces]
    elif kind == "deletion":
        at = draw.randrange(len(pieces))
        pieces = pieces[:at] + pieces[at + len(pieces) // 12 :]
    else:
        at = draw.randrange(10, len(pieces) - 10)
        pieces = pieces[at:] + pieces[:at]
    return " ".join(pieces)


@pytest.mark.parametrize("kind", ["substitution", "prefix", "deletion", "reorder"])
def test_pairs_at_the_threshold_are_found(kind):
    """At least 99% of the pairs must be found. In theory, the bands for the threshold 0.8 miss one in a million pairs
    of similarity 0.8.
    """
    draw = random.Random(kind)
    first = [" ".join(draw.choices(VOCABULARY, k=draw.randrange(100, 300))) for _ in range(600)]
    texts = [*first, *(edited(text, kind, draw) for text in first)]
    lists, starts, sizes, matrix = compiled(texts)
    sets = [lists[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    near = [number for number in range(600) if twins.jaccard(sets[number], sets[number + 600]) >= 0.8]
    twin, score = np.full(1200, -1), np.full(1200, -1.0)
    slots, least = matrix.astype(np.uint8), sketch.least_agreement(0.8)
    kernels.twins((lists, starts, sizes), (slots, keys_of(matrix, 0.8)), np.arange(1200), 0.8, least, (twin, score))
    assert len(near) > 300
    assert [number for number in near if twin[number + 600] != number] == []
    for number in np.flatnonzero(twin >= 0).tolist():
        assert score[number] == twins.jaccard(sets[number], sets[twin[number]]) >= 0.8


def clusters(seed: int, count: int) -> list[str]:
    """Texts, many of which form chains of near duplicates."""
    draw = random.Random(seed)
    texts = [""] * 3
    while len(texts) < count:
        text = " ".join(draw.choices(VOCABULARY, k=draw.choice([3, 8, 40, 90])))
        for _ in range(draw.randrange(1, 6)):
            texts.append(text)
            if len(text.split()) > 30:
                text = edited(text, draw.choice(["substitution", "prefix", "deletion"]), draw)
    draw.shuffle(texts)
    return texts[:count]


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_the_compiled_search_drops_the_rows_that_the_reference_drops(threshold):
    texts = clusters(int(threshold * 10), 400)
    draw = random.Random(1)
    units = np.sort([draw.randrange(300) for _ in texts])
    lists, starts, sizes, matrix = compiled(texts)
    sets = [lists[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    bands = sketch.bands(threshold)
    slots, keys, least = matrix.astype(np.uint8), keys_of(matrix, threshold), sketch.least_agreement(threshold)
    for wanted, function, more, settings in (
        (twins.twins(sets, list(matrix), units.tolist(), threshold, bands), kernels.twins, ((slots, keys),), (least,)),
        (twins.exact_twins(sets, units.tolist(), threshold), kernels.exact_twins, (), ()),
    ):
        twin, score = np.full(400, -1), np.full(400, -1.0)
        function((lists.copy(), starts, sizes.copy()), *more, units, threshold, *settings, (twin, score))
        assert (twin >= 0).tolist() == (wanted[0] >= 0).tolist()
        assert (twin >= 0).sum() > 60
        for number in np.flatnonzero(twin >= 0).tolist():
            assert units[twin[number]] < units[number]
            assert twin[twin[number]] < 0
            assert score[number] == twins.jaccard(sets[number], sets[twin[number]]) >= threshold


def test_the_bands_miss_one_pair_in_a_million_at_most():
    for threshold in np.linspace(0.5, 1, 51):
        count, size = sketch.bands(float(threshold))
        assert count * size <= sketch.SLOTS
        assert (1 - threshold**size) ** count <= 1e-6
        slots, least = sketch.SLOTS, sketch.least_agreement(float(threshold))
        fewer = sum(math.comb(slots, n) * threshold**n * (1 - threshold) ** (slots - n) for n in range(least))
        assert fewer < 1e-6
    assert [sketch.least_agreement(t) for t in (0.5, 0.8, 1.0)] == [30, 75, 128]


def reference_drops(texts: list[str], threshold: float) -> dict[int, float]:
    """For each row that is nearly the same as an earlier kept row: the highest similarity to such a row. The reference
    uses sets of strings.
    """
    found: dict[int, float] = {}
    kept: list[tuple[int, set]] = []
    for number, text in enumerate(texts):
        pieces = re.findall(r"\w+", text.lower())
        grams = {tuple(pieces[at : at + 5]) for at in range(max(len(pieces) - 4, 1))}
        best = max((len(grams & other) / len(grams | other) for _, other in kept), default=0)
        if best >= threshold:
            found[number] = best
        else:
            kept.append((number, grams))
    return found


@pytest.mark.parametrize("exact", [False, True])
def test_curate_drops_the_rows_that_have_a_kept_twin(tmp_path, exact):
    texts = [text for text in clusters(7, 300) if len(text.split()) > 4]
    run = corpus_of(tmp_path, [row(text, number) for number, text in enumerate(texts)], size=40)
    section = {"threshold": 0.8, "exact": exact, "of": "completion"}
    done = synthgen.curate(curating(near_duplicates=section, duplicates=False, length=False), run)
    kept, rejected = parts(run)
    wanted = reference_drops(texts, 0.8)
    assert {int(i[1:]) for i in rejected} == set(wanted)
    assert done.rejected_by == {"near_duplicates": len(wanted)}
    for record in rejected.values():
        (verdict,) = record.verdicts
        assert verdict["matched_id"] in kept
        assert verdict["threshold"] == 0.8 <= verdict["score"] <= wanted[int(record.id[1:])]
        assert verdict["reason"] == f"similarity {verdict['score']:.2f} to {verdict['matched_id']}, at least 0.8"


def test_what_is_compared(tmp_path):
    """Two rows have the same long prompt and different answers. With `of: row` or `of: completion`, both rows are kept;
    with `of: prompt`, only the first row is kept.
    """
    question = " ".join(VOCABULARY[:60])
    prompts = [[{"role": "user", "content": question}]] * 2
    answers = [" ".join(VOCABULARY[100:160]), " ".join(VOCABULARY[200:260])]
    rows = [row(answer, number, prompt=prompts[number]) for number, answer in enumerate(answers)]
    for of, left in (("row", 2), ("completion", 2), ("prompt", 1)):
        run = corpus_of(tmp_path / of, rows)
        assert synthgen.curate(curating(near_duplicates={"of": of}), run).counts["kept"] == left


def test_composed_letters_and_invisible_characters_make_no_other_text(tmp_path):
    text = " ".join(["café", "naïve", *VOCABULARY[:6]])
    twin = text.replace("é", "e\u0301").replace("na", "n\u200ba\u00ad")
    run = corpus_of(tmp_path, [row(text, 0), row(twin, 1)])
    assert synthgen.curate(curating(near_duplicates=1.0, duplicates=False), run).rejected_by == {"near_duplicates": 1}


def test_tool_calls_and_reasoning_make_another_row(tmp_path):
    def calling(city: str, number: int) -> Record:
        calls = json.dumps([{"type": "function", "function": {"name": "weather", "arguments": city}}])
        return row("", number, completion=[{"role": "assistant", "content": None, "tool_calls": calls}], answer=None)

    def thinking(words: list[str], number: int) -> Record:
        message = {"role": "assistant", "content": "nine", "reasoning_content": " ".join(words)}
        return row("", number, completion=[message])

    rows = [calling("Rome", 0), calling("Oslo", 1), thinking(VOCABULARY[:40], 2), thinking(VOCABULARY[50:90], 3)]
    run = corpus_of(tmp_path, [*rows, calling("Rome", 4), thinking(VOCABULARY[:39], 5)])
    synthgen.curate(curating(near_duplicates=True, duplicates=False, length=False), run)
    assert set(parts(run)[1]) == {"r4", "r5"}


def test_a_batch_without_rows_and_a_corpus_without_kept_rows(tmp_path):
    cut = [row("a b c d e f", n, finish_reason="length") for n in range(4)]
    run = corpus_of(tmp_path, [*cut, row("g h i j k l", 4)], size=2)
    assert synthgen.curate(curating(near_duplicates=True), run).counts["kept"] == 1
    run = corpus_of(tmp_path / "none", cut, size=2)
    assert synthgen.curate(curating(near_duplicates={"exact": True}), run).counts["kept"] == 0


def test_rows_of_a_group_stay_together(tmp_path):
    """The chosen and the rejected answer of a pair may be alike. The whole pair is rejected if one of its rows has a
    twin.
    """
    base = VOCABULARY[:80]
    one, other = " ".join(base), " ".join([*base[:79], "changed"])
    rows = [
        row(one, 0, group_id="pair"),
        row(other, 1, group_id="pair"),
        row(one, 2, group_id="late"),
        row("something else altogether", 3, group_id="late"),
    ]
    run = corpus_of(tmp_path, rows)
    synthgen.curate(curating(near_duplicates={"of": "completion"}, duplicates=False), run)
    kept, rejected = parts(run)
    assert set(kept) == {"r0", "r1"}
    assert [rejected[i].verdicts[0]["check"] for i in ("r2", "r3")] == ["near_duplicates", "group"]


def test_a_row_that_an_earlier_step_rejected_is_no_twin(tmp_path):
    text = " ".join(VOCABULARY[:60])
    other = " ".join(VOCABULARY[100:160])
    rows = [row(text, 0, finish_reason="length"), row(text, 1), row(text, 2), row(f"{text} end", 3)]
    rows += [row(other, 4, group_id="g"), row("cut", 5, group_id="g", finish_reason="length"), row(f"{other} end", 6)]
    run = corpus_of(tmp_path, rows, size=2)
    synthgen.curate(curating(near_duplicates={"of": "completion"}), run)
    kept, rejected = parts(run)
    assert set(kept) == {"r1", "r6"}
    assert {i: rejected[i].verdicts[0]["check"] for i in ("r0", "r2", "r3", "r4")} == {
        "r0": "truncated",
        "r2": "duplicates",
        "r3": "near_duplicates",
        "r4": "group",
    }
    assert rejected["r3"].verdicts[0]["matched_id"] == "r1"


def test_components_are_those_of_equal_keys_and_units():
    """The reference compares all pairs of rows, and finds the components by following the pairs with equal values. Rows
    that are not alive do not connect other rows.
    """
    draw = random.Random(5)
    for alive_share in (1.0, 0.7):
        keys = np.array([[draw.randrange(150) for _ in range(100)] for _ in range(2)], np.uint64)
        keys[1] += np.uint64(1 << 40)
        keys *= SPREAD
        alive = np.array([draw.random() < alive_share for _ in range(100)])
        parents, marks = np.arange(100, dtype=np.int32), np.empty((100, 0), np.uint8)
        for values in keys:
            components.connect(values, alive, marks, 0, parents)
        components.roots(parents)
        for number in range(100):
            reached, todo = {number}, [number]
            while todo and alive[number]:
                here = todo.pop()
                near = [n for n in range(100) if alive[n] and (keys[:, n] == keys[:, here]).any() and n not in reached]
                reached.update(near)
                todo += near
            assert parents[number] == min(reached)
        assert len(set(parents)) < 100


def test_similar_components_are_those_of_all_pairs_that_agree_or_have_a_crowded_key():
    """Rows with the same key are connected if their marks agree in enough slots, or if the key has too many rows."""
    draw = np.random.default_rng(7)
    crowded = 0
    for trial in range(30):
        count = int(draw.integers(2, 200)) if trial % 5 else 900
        keys = draw.integers(0, max(2, count // int(draw.integers(1, 400))), count).astype(np.uint64)
        marks, alive = draw.integers(0, 2, (count, 64)).astype(np.uint8), draw.random(count) < 0.8
        least = int(draw.integers(25, 45))
        parents = np.arange(count, dtype=np.int32)
        components.connect(keys * SPREAD, alive, marks, least, parents)
        components.roots(parents)
        same = (keys[:, None] == keys) & alive & alive[:, None]
        many = np.where(alive, same.sum(axis=1), 0) > components.LONGEST
        crowded += bool(many.any())
        near = same & (((marks[:, None] == marks).sum(axis=2) >= least) | many) | np.eye(count, dtype=bool)
        before, expected = np.zeros(count), np.arange(count)
        while (before != expected).any():
            before, expected = expected, np.where(near, expected, count).min(axis=1)
        assert parents.tolist() == expected.tolist()
    assert 0 < crowded < 30


@pytest.mark.parametrize("count", [components.LONGEST, components.LONGEST + 1])
def test_a_key_is_crowded_from_a_certain_number_of_rows(count):
    """No two rows are alike, so they are connected only because their key is crowded."""
    parents, marks = np.arange(count, dtype=np.int32), np.zeros((count, 2), np.uint8)
    components.connect(np.zeros(count, np.uint64), np.ones(count, bool), marks, 3, parents)
    components.roots(parents)
    assert len(set(parents)) == (1 if count > components.LONGEST else count)


def test_one_common_band_is_enough():
    """Every key of a band finds the earlier row with that key, wherever the key lies in the hash table."""
    draw = np.random.default_rng(3)
    pairs, count = 64, 4
    keys = draw.integers(0, 1 << 63, (count, 2 * pairs)).astype(np.uint64)
    for pair in range(pairs):
        keys[pair % count, 2 * pair + 1] = keys[pair % count, 2 * pair]
    shingles = np.repeat(np.arange(pairs, dtype=np.uint64), 2)  # both rows of a pair have the same shingle
    sets = (shingles, np.arange(2 * pairs), np.ones(2 * pairs, np.int64))
    twin, score = np.full(2 * pairs, -1), np.full(2 * pairs, -1.0)
    slots = np.zeros((2 * pairs, sketch.SLOTS), np.uint8)
    kernels.twins(sets, (slots, keys), np.arange(2 * pairs), 0.8, 0, (twin, score))
    assert twin.tolist() == [row - 1 if row % 2 else -1 for row in range(2 * pairs)]


def test_bands_for_low_thresholds():
    """For thresholds below 0.44, single slots are compared, because 64 bands of two slots would miss more than one pair
    in a million.
    """
    assert sketch.bands(0.45) == (64, 2)
    assert sketch.bands(0.43) == (128, 1)


@pytest.mark.parametrize("exact", [False, True])
def test_workers_and_shards_do_not_change_the_result(tmp_path, monkeypatch, exact):
    monkeypatch.setattr(job, "TASK_ROWS", 50)
    texts = clusters(11, 300)
    results = []
    rows = [row(text, n, group_id=f"g{n // 2}" if n % 3 else None) for n, text in enumerate(texts)]
    for size, workers, chunk, keys in ((300, 1, 1 << 22, 1), (37, 1, 400, 2500), (60, 1 if exact else 2, 1, 1 << 23)):
        monkeypatch.setattr(search, "_CHUNK", chunk)
        monkeypatch.setattr(search, "_KEYS", keys)  # one band at a time, several, all
        run = corpus_of(tmp_path / str(size), rows, size)
        synthgen.curate(curating(near_duplicates={"exact": exact}), run, workers=workers)
        kept, rejected = parts(run)
        results.append((sorted(kept), {i: r.verdicts for i, r in sorted(rejected.items())}))
    assert results[0] == results[1] == results[2]


def test_very_many_rows_make_larger_chunks_and_not_more_of_them(monkeypatch):
    """Each chunk opens one file for each task, so more chunks for more tasks would take quadratic time."""
    roots = np.repeat(np.arange(0, 800, 2), 2)  # 400 components of two rows with 10 shingles each
    alive, sizes = np.ones(800, bool), np.full(800, 10)
    for small, most, count in ((100, 1024, 80), (100, 16, 16), (1 << 22, 16, 1)):
        monkeypatch.setattr(search, "_CHUNK", small)
        monkeypatch.setattr(search, "_CHUNKS", most)
        chunks = search._chunks(roots, alive, sizes)
        assert 0 <= chunks.max() + 1 - count <= 1
        assert (chunks[::2] == chunks[1::2]).all(), "a component is never divided"
        assert (np.diff(chunks) >= 0).all()


@pytest.mark.parametrize("rule", ["near_duplicates", "split_twins"])
def test_more_rows_than_the_search_can_number_are_refused(tmp_path, monkeypatch, rule):
    """The search numbers rows with 32 bits. Without this error, later rows would get the numbers of other rows."""
    run = corpus_of(tmp_path, [row(f"fish number {n}", n) for n in range(8)])
    assert np.iinfo(np.int32).max == limits.MOST_ROWS
    monkeypatch.setattr(limits, "MOST_ROWS", 7)
    with pytest.raises(UserError, match="searched among at most 7 rows, and there are 8"):
        synthgen.curate(curating(**{rule: {}}), run)


@pytest.mark.parametrize("together", [1, 20, 47, 1000])
def test_the_keys_of_all_bands_are_read(tmp_path, monkeypatch, together):
    monkeypatch.setattr(search, "_KEYS", together)
    expected = np.arange(70, dtype=np.uint64).reshape(7, 10)
    names = [f"band-{band}" for band in range(7)]
    for number, (first, last) in enumerate(((0, 4), (4, 4), (4, 10))):
        part = pa.table({name: keys[first:last] for name, keys in zip(names, expected, strict=True)})
        write_table(tmp_path / f"{number}.arrow", part)
    found = search.band_keys([tmp_path / f"{number}.arrow" for number in range(3)], names, 10)
    assert np.array_equal(list(found), expected)


def test_without_numba_the_recipe_is_refused_before_anything_is_spent(tmp_path, monkeypatch):
    run = corpus_of(tmp_path, [row("text", 0)])
    before = contents(tmp_path)
    real = curate_section.importlib.util.find_spec
    monkeypatch.setattr(
        curate_section.importlib.util, "find_spec", lambda name: None if name == "numba" else real(name)
    )
    recipe = curating(near_duplicates=True)
    for act in (
        lambda: synthgen.curate(recipe, run),
        lambda: synthgen.plan(recipe),
        lambda: synthgen.run(recipe, tmp_path / "new"),
        lambda: synthgen.curate_dataset(source_of(tmp_path / "rows.jsonl"), tmp_path / "new", recipe),
    ):
        with pytest.raises(RecipeError, match=r"curate\.near_duplicates needs numba, which is not installed"):
            act()
    assert contents(tmp_path) == before
    assert synthgen.curate(curating(), run).counts["kept"] == 1
