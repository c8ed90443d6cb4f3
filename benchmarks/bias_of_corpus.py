"""Measures whether the audit of bias finds exactly the skews that were planted in a corpus, and how long it takes.

    python benchmarks/bias_of_corpus.py [--corpora 2000] [--skews 0,0.05,0.1,0.2]
    python benchmarks/bias_of_corpus.py --rows 1000000 [--folder FOLDER]

The first command draws corpora in which women and men differ by a known amount, writes each as Parquet, and audits it.
Seeds have between 1 and 30 rows, by a power law, and rows of a seed resemble each other. Some answers are passages that
are copied across seeds. A skew s means:

- representation: the share of women among the mentions in answers is 0.5 + s.
- association: the probability of "nurse" is 0.15 + 0.6s in a sentence about a woman, and 0.15 - 0.6s about a man.
- counterfactual, refusals: the probability of a refusal is 0.1 + s for prompts about women, and 0.1 for men.
- selection: the probability that curation drops an answer is 0.1 + 3s for prompts about women, and 0.1 for men.

The first columns are the true effect, and the share of corpora whose 95% interval contains it, with the Clopper-Pearson
interval of this share. Then follow the share of corpora with p < 0.05 before the correction, and the share in which the
test says `found`, with its interval. The last columns are the share of `found` results that the stated minimum
detectable effects predict, and the median of these effects. A line about other words says how often the scan of words
finds a word that occurs equally often with both groups.

The second command makes one corpus of many rows, from words with the frequencies of Zipf's law, and prints CPU seconds
and the peak memory of the audit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from synthgen.auditing.result import Measurement, Subject
from synthgen.auditing.statistics import benjamini_hochberg, share_interval
from synthgen.bias import audit_bias, tests_of
from synthgen.bias.association import compared
from synthgen.bias.groups import Lexicon, lexicon
from synthgen.bias.reading import read, uses_of
from synthgen.recipe import shipped
from synthgen.recipe.bias import BiasSection

SEEDS = 285  # each seed has rows that tell a story, and pairs of rows that ask a question
STORIES = 0.6  # the probability that a row tells a story
COPIED = 0.06
ICC = 0.05
WORDS = 11  # words of a sentence about a person, without the pronoun
NAMES = np.array([["Mary", "Anna", "Julia", "Laura"], ["John", "Peter", "Adam", "Carl"]])
PRONOUNS = np.array(["She", "He"])
FILLERS = [f"word{number}" for number in range(60)]
JOBS = ["teacher", "engineer", "driver", "doctor"]
REFUSAL = "I'm sorry, but I can't help with that."
SECTION = BiasSection(dimensions=("gender",))
OTHERS = "association, other words"
TESTS = ("representation", "association", "counterfactual", "refusals", "selection")


@dataclass
class Drawn:
    """The random choices from which the texts of a corpus are made. Group 0 is women, and group 1 men. Stories: the
    seed, the group in the prompt (`asked`) and in the answer, whether the answer is about a nurse, the number of the
    copied passage or -1, and whether the row was dropped. Pairs: the seed, and for each group whether the prompt was
    refused and whether its row was dropped.
    """

    seed: np.ndarray
    asked: np.ndarray
    answered: np.ndarray
    nurse: np.ndarray
    passage: np.ndarray
    dropped: np.ndarray
    pair_seed: np.ndarray
    refused: np.ndarray
    pair_dropped: np.ndarray


def sizes(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """The seed of each row. `seeds` is the number of seeds."""
    return np.repeat(np.arange(seeds), np.minimum(np.ceil(rng.pareto(1.5, seeds) + 1e-9), 30).astype(int))


def tilted(rng: np.random.Generator, share: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """True with the probability `share`. Rows of one seed resemble each other: with the probability √ICC, a row uses
    the random number of its seed instead of a random number of its own.
    """
    own, common = rng.random(share.shape), rng.random(int(seed.max()) + 1)[seed]
    common = common.reshape(-1, *[1] * (share.ndim - 1))
    return np.where(rng.random(share.shape) < np.sqrt(ICC), common, own) < share


def draw(rng: np.random.Generator, skew: float, seeds: int = SEEDS, kinds: int | None = 8) -> Drawn:
    """Draw a corpus with this skew. `kinds` is the number of different passages. The first passages are copied most
    often. With None, all passages differ. The numbers of stories and pairs are drawn too, because an interval is about
    corpora in which each seed is a random draw.
    """
    each = sizes(rng, seeds)
    told = rng.random(len(each)) < STORIES
    seed, pair_seed = each[told], each[~told]
    stories, pairs = len(seed), len(pair_seed)
    asked = (~tilted(rng, np.full(stories, 0.5), seed)).astype(int)
    answered = np.where(rng.random(stories) < 0.3, rng.integers(0, 2, stories), asked)
    answered = np.where(tilted(rng, np.full(stories, 2 * skew), seed), 0, answered)
    nurse = tilted(rng, np.where(answered == 0, 0.15 + 0.6 * skew, 0.15 - 0.6 * skew), seed)
    passage = np.arange(stories) if kinds is None else np.minimum(rng.geometric(0.3, stories) - 1, kinds - 1)
    kinds = stories if kinds is None else kinds
    passage[rng.random(stories) >= COPIED] = -1
    group = (rng.random(kinds) >= 0.5 + skew).astype(int)
    job = rng.random(kinds) < np.where(group == 0, 0.15 + 0.6 * skew, 0.15 - 0.6 * skew)
    copied = passage >= 0
    answered[copied], nurse[copied] = group[passage[copied]], job[passage[copied]]
    lost = np.array([0.1 + 3 * skew, 0.1])
    both = np.zeros((pairs, 2))
    return Drawn(
        seed=seed,
        asked=asked,
        answered=answered,
        nurse=nurse,
        passage=passage,
        dropped=tilted(rng, lost[asked], seed),
        pair_seed=pair_seed,
        refused=tilted(rng, both + np.array([0.1 + skew, 0.1]), pair_seed),
        pair_dropped=tilted(rng, both + lost, pair_seed),
    )


def truth(skew: float, seeds: int = 1_000_000) -> dict[str, float]:
    """The effects that the tests estimate. They are computed on a corpus of many seeds whose passages all differ."""
    drawn = draw(np.random.default_rng(1), skew, seeds, None)
    pairs = len(drawn.pair_seed)
    kept, pair_kept = ~drawn.dropped, ~drawn.pair_dropped
    women = (drawn.answered == 0)[kept]
    prompts = np.concatenate([drawn.asked[kept] == 0, *(np.full(pair_kept[:, n].sum(), n == 0) for n in (0, 1))])
    nurse = [drawn.nurse[kept][women == one].mean() / WORDS for one in (True, False)]
    told = (drawn.asked == 0) | (drawn.answered == 0)
    of_women = np.concatenate([kept[told], pair_kept[:, 0]]).mean()
    refused = [drawn.refused[:, n].sum() / (pairs + (drawn.asked == n).sum()) for n in (0, 1)]
    return {
        "representation": float(np.log2(women.mean() / prompts.mean())),
        "association": float(np.log2(nurse[0] / (1 - nurse[0]) / nurse[1] * (1 - nurse[1]))),
        "counterfactual": skew,
        "refusals": float(refused[0] - refused[1]),
        "selection": float(np.log2(of_women / np.concatenate([kept, pair_kept.ravel()]).mean())),
    }


def tables(rng: np.random.Generator, drawn: Drawn) -> tuple[pa.Table, pa.Table]:
    """The rows as text: (kept, rejected)."""
    stories, pairs = len(drawn.seed), len(drawn.pair_seed)
    filler = rng.choice(FILLERS, (stories, 8))
    fixed = rng.choice(FILLERS, (max(int(drawn.passage.max()) + 1, 1), 8))
    filler = np.where((drawn.passage >= 0)[:, None], fixed[drawn.passage], filler).tolist()
    other = np.where(drawn.passage >= 0, JOBS[0], rng.choice(JOBS, stories))  # copies of a passage have the same words
    jobs = np.where(drawn.nurse, "nurse", other).tolist()
    ends, names = rng.choice(FILLERS, (stories, 7)).tolist(), NAMES[drawn.asked, rng.integers(0, 4, stories)].tolist()
    rows: list[dict[str, object]] = []
    for number, seed in enumerate(drawn.seed.tolist()):
        told = f"{PRONOUNS[drawn.answered[number]]} is a {jobs[number]} {' '.join(filler[number])}."
        prompt = f"Tell story {number} of {names[number]} with {' and '.join(ends[number][:2])}"
        row = _row(f"s{number}", f"seed{seed}", prompt, f"{told} {' '.join(ends[number][2:])}.")
        rows.append({**row, "dropped": bool(drawn.dropped[number])})
    topics, ideas = rng.choice(FILLERS, (pairs, 4)).tolist(), rng.choice(FILLERS, (pairs, 2, 6)).tolist()
    for number, seed in enumerate(drawn.pair_seed.tolist()):
        for group in (0, 1):
            answer = REFUSAL if drawn.refused[number, group] else f"Here are {' '.join(ideas[number][group])}."
            prompt = f"List {number} ideas for {NAMES[group][0]} about {' '.join(topics[number])}"
            row = _row(f"p{number}-{group}", f"seed{seed}", prompt, answer)
            rows.append({**row, "dropped": bool(drawn.pair_dropped[number, group])})
    kept = [row for row in rows if not row["dropped"]]
    rejected = [{**row, "verdicts": [{"check": "planted"}]} for row in rows if row["dropped"]]
    return pa.Table.from_pylist(kept, _SCHEMA), pa.Table.from_pylist(rejected, _SCHEMA)


def _row(name: str, seed: str, prompt: str, answer: str) -> dict[str, object]:
    messages = [{"role": "user", "content": prompt}]
    return {"id": name, "seed_id": seed, "prompt": messages, "completion": [{"role": "assistant", "content": answer}]}


_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("seed_id", pa.string()),
        ("group_id", pa.string()),
        ("prompt", _MESSAGES),
        ("completion", _MESSAGES),
        ("finish_reason", pa.string()),
        ("scores", pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))),
        ("verdicts", pa.list_(pa.struct([("check", pa.string())]))),
    ]
)


def write(folder: Path, kept: pa.Table, rejected: pa.Table) -> None:
    """Write the files that the audit reads."""
    for part, table in (("data", kept), ("rejected", rejected)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / part / "train-00000.parquet")


def tested(folder: Path, book: Lexicon) -> dict[str, Measurement]:
    """The measurement of each test for women. For the association, it is the measurement of the word "nurse". The entry
    `OTHERS` is for the words that really occur equally often with both groups: it is the measurement of the word with
    the smallest p-value among them.
    """
    reading = read(folder, book)
    wanted = {"gender: female", "gender: female, refusals", "gender: female, planted"}
    found = {one.name: one for one in tests_of(reading.facts, book, SECTION) if one.subject in wanted}
    uses, spelled = uses_of(folder, book, reading)
    scan = compared(uses[0], 0)
    corrected = benjamini_hochberg(scan.p)
    for place in np.argsort(-scan.p).tolist():
        word = spelled[int(scan.word[place])]
        if word == "nurse" or word in FILLERS:
            name = "association" if word == "nurse" else OTHERS
            found[name] = scan.measured(place, corrected, "gender: female", word)
    return found


def simulate(corpora: int, skews: list[float]) -> None:
    """Print the table."""
    book = lexicon(SECTION)
    with tempfile.TemporaryDirectory() as home:
        for number, skew in enumerate(skews):
            known, found = truth(skew), defaultdict[str, list[Measurement]](list)
            for corpus in range(corpora // len(skews)):
                rng = np.random.default_rng([number, corpus])
                write(Path(home), *tables(rng, draw(rng, skew)))
                for name, one in tested(Path(home), book).items():
                    found[name].append(one)
            for name in TESTS:
                print(line(name, skew, known[name], found[name]), flush=True)
            print(f"| {skew:g} | {OTHERS} | +0.000 | | | {finds(found[OTHERS])} | | |", flush=True)


def line(name: str, skew: float, effect: float, found: list[Measurement]) -> str:
    """A line of the table."""
    count = len(found)
    held = sum((one.low or 0) <= effect <= (one.high or 0) for one in found)
    low, high = share_interval(held, count)
    small = sum((one.p or 1) < 0.05 for one in found)
    power = np.mean([predicted(one, effect) for one in found])
    detectable = np.median([np.inf if one.detectable is None else one.detectable for one in found])
    return (
        f"| {skew:g} | {name} | {effect:+.3f} | {100 * held / count:.1f}% [{100 * low:.1f}, {100 * high:.1f}] | "
        f"{100 * small / count:.1f}% | {finds(found)} | {100 * power:.1f}% | {detectable:.3f} |"
    )


def finds(found: list[Measurement]) -> str:
    """The share of findings with its interval."""
    count, number = len(found), sum(one.outcome == "found" for one in found)
    low, high = share_interval(number, count)
    return f"{100 * number / count:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def predicted(one: Measurement, effect: float) -> float:
    """The power that the minimum detectable effect implies: 80% for an effect of this size. The estimate is assumed to
    have a normal distribution around the true effect.
    """
    from scipy import special

    if one.detectable is None or one.low is None or one.high is None:
        return 0.0
    error = (one.high - one.low) / 2 / 1.96
    return float(special.ndtr((abs(effect) - one.detectable) / error + 0.8416))


def make(folder: Path, rows: int) -> None:
    """Write a curated corpus of `rows` rows in shards of 20,000 rows. One row in ten is rejected. An answer has 5 to 12
    sentences of 6 to 16 words, and one word in 40 names a group. One row in twenty is a copy of an earlier row.
    """
    rng = np.random.default_rng(rows)
    groups = yaml.safe_load((shipped("data") / "groups.yaml").read_text(encoding="utf-8"))
    named = np.array([word for lists in groups.values() for entries in lists.values() for word in entries], object)
    known = np.array([f"w{number:x}" for number in range(50_000)], object)
    chance = 1 / np.arange(1, len(known) + 1) ** 1.05
    chance /= chance.sum()
    for shard, start in enumerate(range(0, rows, 20_000)):
        size = min(20_000, rows - start)
        counts = rng.integers(5, 13, size)
        lengths = rng.integers(6, 17, counts.sum())
        tokens = rng.choice(known, int(lengths.sum()), p=chance)
        groups_at = rng.random(len(tokens)) < 1 / 40
        tokens[groups_at] = rng.choice(named, int(groups_at.sum()))
        parts = [f"{' '.join(one)}." for one in np.split(tokens, np.cumsum(lengths)[:-1])]
        answers = [" ".join(parts[stop - count : stop]) for stop, count in zip(np.cumsum(counts), counts, strict=True)]
        for place in np.flatnonzero(rng.random(size) < 0.05)[1:]:
            answers[place] = answers[rng.integers(0, place)]
        made = [
            _row(f"r{start + place}", f"s{(start + place) // 2}", f"What of {answer[:60]}?", answer)
            for place, answer in enumerate(answers)
        ]
        cut = size - size // 10
        rejected = [{**row, "verdicts": [{"check": "planted"}]} for row in made[cut:]]
        for part, some in (("data", made[:cut]), ("rejected", rejected)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(some, _SCHEMA), folder / part / f"train-{shard:05d}.parquet")


def timed(folder: Path) -> None:
    """Audit the corpus with all groups, and print the CPU seconds and the peak memory of this process."""
    began, cpu = time.perf_counter(), time.process_time()
    result = audit_bias(Subject(folder, {}), BiasSection())  # type: ignore[typeddict-item]
    figures = result.figures["bias"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{figures['rows']:,.0f} rows in {figures['units']:,.0f} units: {time.process_time() - cpu:.0f} CPU seconds, "
        f"{time.perf_counter() - began:.0f} seconds, {peak:,.0f} MB at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=int, default=2000)
    parser.add_argument("--skews", default="0,0.05,0.1,0.2")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="with --rows: where the corpus is, or is made")
    asked = parser.parse_args()
    if not asked.rows:
        print("| skew | test | true effect | interval holds | p < 0.05 | found | predicted | detectable |")
        print("|---|---|---|---|---|---|---|---|")
        return simulate(asked.corpora, [float(one) for one in asked.skews.split(",")])
    with tempfile.TemporaryDirectory() as home:
        folder = asked.folder or Path(home)
        if not (folder / "data").exists():
            making = multiprocessing.get_context("spawn").Process(target=make, args=(folder, asked.rows))
            making.start()
            making.join()
        return timed(folder)


if __name__ == "__main__":
    main()
