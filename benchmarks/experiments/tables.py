"""Writes the tables of docs/experiments.md from the result files of the arms.

    python benchmarks/experiments/tables.py            # --check: exit with 1 if the page is out of date

Means are over held-out items and seeds. Each arm is compared with the first arm of its table on the same items and
seeds. The 95% intervals of the differences are from a percentile bootstrap that draws seeds and items with replacement.
The detectable difference of some tables is from the same bootstrap; see `paired`.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "experiments.md"
RESAMPLES = 2000

# TABLES maps a marker of the page to (experiment, arms, measure of the differences, columns). All other arms are
# compared with the first arm of the tuple. A column is (title, name of a measure or dotted path in the result file,
# format).
_TIME = ("CPU s", "training.cpu_s", "{:.0f}")
_TEXT = [("loss", "loss", "{:.3f}"), ("top-1", "top1", "{:.3f}"), ("ECE", "ece", "{:.1%}")]
_TEXT += [("agreement", "agreement", "{:.3f}"), ("KL", "kl", "{:.3f}")]
_RIGHT = [("right", "right", "{:.1%}"), ("ended", "ended", "{:.1%}"), ("tokens learned", "training.tokens", "{:,.0f}")]
_ONLINE = [
    "offline",
    "weak",
    "sft",
    *(f"on-policy-{d}" for d in ("forward", "reverse", "jsd")),
    "sft-long",
    "offline-long",
]
_CURATION = ["raw", "curated", "deduplicated", "verified", "random", "score", "untrained"]
_EQUAL_SIZE = ["random", "curated", "score"]
_ROWS = [("rows", "corpus.rows", "{:.0f}"), ("questions", "corpus.questions", "{:.0f}")]
_ROWS += [("different", "corpus.texts", "{:.0f}"), ("rows right", "corpus.right", "{:.0%}")]
_ROWS += [("cut off", "corpus.cut", "{:.0%}")]
_FAMILY = ["text", "text-aligned", "text-aligned-half", "answers", "after", "shuffled", "base"]
_INHERITING = ["text", "whole", "draws", "top-k", "text-greedy", "whole-original", "whole-short"]
_UNSEEN = [
    ("extracted", "extracted unseen", "{:.1%}"),
    ("exposure, bits", "exposure unseen", "{:.2f}"),
    ("exposure of the never planted", "exposure never planted", "{:.2f}"),
]
TABLES: dict[str, tuple[str, list[str], str, list[tuple[str, str, str]]]] = {
    "logits": (
        "logits",
        ["hard", "samples", "full", "sampled", "top-k", "top-k-renormalized"],
        "loss",
        [*_TEXT, ("bytes a token", "bytes_per_token", "{:,.0f}"), _TIME],
    ),
    "logits against all of it": ("logits", ["full", "sampled", "top-k", "top-k-renormalized"], "loss", _TEXT[:1]),
    "rationale": (
        "rationale",
        ["answer", "rationale", "step-by-step", "rationale-shuffled", "step-by-step-shuffled"],
        "right",
        [*_RIGHT, _TIME],
    ),
    "online": (
        "online",
        _ONLINE,
        "right",
        [("steps", "training.steps", "{:,.0f}"), *_RIGHT, ("links right", "links", "{:.1%}"), _TIME],
    ),
    "online, again": (
        "online-again",
        _ONLINE,
        "right",
        [("steps", "training.steps", "{:,.0f}"), *_RIGHT[:2], ("links right", "links", "{:.1%}"), _TIME],
    ),
    "online, again, links": ("online-again", _ONLINE, "links", [("links right", "links", "{:.1%}")]),
    "online, links": (
        "online",
        _ONLINE,
        "links",
        [("links right", "links", "{:.1%}")],
    ),
    "mutual": (
        "mutual",
        ["frozen", "mutual", "logits/hard"],
        "loss",
        [*_TEXT[:4], ("teacher's loss", "teacher loss", "{:.3f}"), _TIME],
    ),
    "hidden": ("hidden", ["logits/sampled", "hidden", "relations"], "loss", [*_TEXT[:5], _TIME]),
    "family": ("family", [*_FAMILY, "teacher"], "right", [*_RIGHT[:1], _RIGHT[2], _TIME]),
    "family against answers": ("family", ["answers", "after", "shuffled", "base"], "right", _RIGHT[:1]),
    "family, likelihood": (
        "family",
        _FAMILY,
        "text",
        [
            ("text", "text", "{:.3f}"),
            ("answer", "answer", "{:.2f}"),
            ("answer after the steps", "answer_reasoned", "{:.3f}"),
        ],
    ),
    "selection": (
        "selection",
        ["random", "logprob", "spread", "answer"],
        "loss",
        [("loss", "loss", "{:.3f}"), ("rows", "rows", "{:.0f}"), ("of them right", "right rows", "{:.0f}"), _TIME],
    ),
    "memorized": (
        "memorized",
        [*_INHERITING, "direct", "control", "teacher"],
        "extracted seen",
        [
            ("loss", "loss", "{:.3f}"),
            ("KL", "kl", "{:.3f}"),
            ("extracted", "extracted seen", "{:.1%}"),
            *((f"planted {n} ×", f"extracted {n} seen", "{:.0%}") for n in (1, 4, 16)),
            _TIME,
        ],
    ),
    "memorized, exposure": (
        "memorized",
        [*_INHERITING, "direct", "control", "teacher"],
        "exposure seen",
        [
            ("exposure, bits", "exposure seen", "{:.2f}"),
            *((f"planted {n} ×", f"exposure {n} seen", "{:.2f}") for n in (1, 4, 16)),
            ("never planted", "exposure never planted", "{:.2f}"),
            ("log-likelihood", "logp seen", "{:.2f}"),
        ],
    ),
    "memorized, teacher-specific": (
        "memorized",
        ["teacher", *_INHERITING],
        "specific",
        [("teacher-specific", "specific", "{:.1%}"), ("memorized by teacher and direct", "shared", "{:.1%}")],
    ),
    "memorized, teacher-specific, against text": (
        "memorized",
        _INHERITING,
        "specific",
        [("teacher-specific", "specific", "{:.1%}")],
    ),
    "memorized, unseen": (
        "memorized",
        ["control", *_INHERITING, "direct", "teacher"],
        "gap unseen",
        [*_UNSEEN, ("gap", "gap unseen", "{:.3f}")],
    ),
    "memorized, unseen, link": (
        "memorized",
        ["control", *_INHERITING, "direct", "teacher"],
        "link unseen",
        [("link", "link unseen", "{:.3f}")],
    ),
    "curation": ("curation", _CURATION, "right", [*_ROWS, *_RIGHT[:1], _RIGHT[2], _TIME]),
    "curation, likelihood": (
        "curation",
        _CURATION,
        "gold",
        [("gold", "gold", "{:.2f}"), ("numbers", "numbers", "{:.2f}")],
    ),
    "curation, numbers": ("curation", _CURATION, "numbers", [("numbers", "numbers", "{:.2f}")]),
    "curation of equal size": ("curation", _EQUAL_SIZE, "right", [*_ROWS[:2], *_RIGHT[:1]]),
    "curation of equal size, likelihood": ("curation", _EQUAL_SIZE, "gold", [("gold", "gold", "{:.2f}")]),
    "ensemble": ("ensemble", ["logits/full", "second", "mean", "pool"], "loss", [*_TEXT[:4], _TIME]),
    "inheritance, classifier": (
        "inheritance-mlp",
        ["untrained", "shared", "other", "null"],
        "right",
        [("right", "right", "{:.1%}"), ("teacher right", "teacher", "{:.1%}"), _TIME],
    ),
    "inheritance": (
        "inheritance",
        ["soft", "soft-other", "hard", "hard-other"],
        "transfer",
        [
            ("transfer", "transfer", "{:.3f}"),
            ("trait", "trait", "{:.2f}"),
            ("without", "null", "{:.2f}"),
            ("the teachers' difference", "teachers", "{:.2f}"),
            _TIME,
        ],
    ),
    "inheritance, soft": (
        "inheritance",
        ["soft", "soft-other", "soft-masked", "soft-random"],
        "transfer",
        [("transfer", "transfer", "{:.3f}"), ("masked", "training.masked", "{:.1%}"), _TIME],
    ),
    "inheritance, hard": (
        "inheritance",
        ["hard", "hard-other", "hard-masked", "hard-random", "hard-paraphrased"],
        "transfer",
        [("transfer", "transfer", "{:.3f}"), ("masked", "training.masked", "{:.1%}"), _TIME],
    ),
    "context": (
        "context",
        ["teacher", "untrained", "student"],
        "right",
        [
            ("tokens of a prompt", "prompt_tokens", "{:.0f}"),
            ("right", "right", "{:.1%}"),
            ("gives an answer", "answered", "{:.1%}"),
            ("right, without the marker", "right without marker", "{:.1%}"),
            ("CPU s to train", "training.cpu_s", "{:.0f}"),
            ("CPU s to answer", "answering.cpu_s", "{:.0f}"),
        ],
    ),
}
# tables that show an arm's mean as a share of the first arm's mean, not as a difference
SHARES = {"context", "memorized, teacher-specific"}
DETECTABLE = {marker for marker in TABLES if marker.startswith("curation")}  # tables with detectable differences
POWERED = 1.959964 + 0.841621  # the 97.5% and the 80% quantile of the standard normal distribution
FROM_ZERO = {"inheritance"}  # tables in which each arm's mean is already a difference, so its own interval is shown


def results(name: str, arm: str) -> list[dict[str, Any]]:
    """The result files of an arm, sorted by seed. An arm with a name `other/arm` belongs to the experiment `other`."""
    name, _, arm = arm.rpartition("/") if "/" in arm else (name, "", arm)
    files = [json.loads(path.read_text()) for path in (HERE / "results" / name).glob(f"{arm}-[0-9]*.json")]
    return sorted((f for f in files if f["arm"] == arm), key=lambda f: f["seed"])


def value(result: dict[str, Any], key: str) -> float | None:
    """The mean of the measure `key` over items. If there is no such measure, returns the number at the dotted path
    `key` in the result, or None.
    """
    if key in result["items"]:
        return float(np.mean(result["items"][key]))
    here: Any = result
    for part in key.split("."):
        here = here.get(part) if isinstance(here, dict) else None
    return None if here is None else float(here)


def paired(arm: list[dict[str, Any]], base: list[dict[str, Any]], item: str) -> tuple[float, float, float, float]:
    """(mean, low, high, detectable) of the difference arm − base, over the seeds that both arms have.

    `detectable` is the smallest true difference that a two-sided test at the level of 5% finds with a probability of
    80%: (1.96 + 0.84) · SE (Cohen 1988, Statistical Power Analysis, chapter 2). SE is the standard deviation of the
    bootstrap. With three random seeds, the SE is not a good estimate of the variation between seeds.
    """
    seeds = sorted({f["seed"] for f in arm} & {f["seed"] for f in base})
    sides = [{f["seed"]: f["items"][item] for f in side} for side in (arm, base)]
    gap_SI = np.array([np.subtract(sides[0][s], sides[1][s]) for s in seeds])
    means = np.concatenate(
        [
            gap_SI[rows_CS[:, :, None], columns_CI[:, None]].reshape(len(rows_CS), -1).mean(1)
            for rows_CS, columns_CI in draws(gap_SI.shape)
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return float(gap_SI.mean()), float(low), float(high), POWERED * float(means.std())


@functools.cache
def draws(shape: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Yield the draws of the bootstrap for S seeds and I items, in chunks of C draws. A chunk has the indices of the
    drawn seeds (C, S) and of the drawn items (C, I).
    """
    draw = np.random.default_rng(0)
    drawn = [[draw.integers(0, size, size) for size in shape] for _ in range(RESAMPLES)]
    chunks = [drawn[begin : begin + 100] for begin in range(0, RESAMPLES, 100)]
    return [tuple(np.array(indices) for indices in zip(*chunk, strict=True)) for chunk in chunks]


def share(arm: list[dict[str, Any]], base: list[dict[str, Any]], item: str) -> tuple[float, float, float]:
    """(share, low, high): the arm's sum over S seeds and I items, divided by the sum of `base` over the same seeds.

        share = Σ_s Σ_i arm_si / Σ_s Σ_i base_si

    If `base` has one file, this file counts for every seed of the arm. The interval is a percentile bootstrap of this
    ratio (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13). Each draw takes seeds and items
    with replacement. Arm and base have the same seeds and items in each draw. Items that share a template are drawn
    together. Each result file states how many items share a template. Raises ValueError when the sum of `base` is zero
    in some draw, because the share is not defined then.
    """
    together = base[0].get("together", 1)
    files = {f["seed"]: f for f in base}
    if len(base) > 1:
        arm = [f for f in arm if f["seed"] in files]
    pairs = [(f, files[f["seed"]] if len(base) > 1 else base[0]) for f in arm]
    arm_SG, base_SG = (
        np.array([side["items"][item] for side in sides]).reshape(len(pairs), -1, together).sum(-1)
        for sides in zip(*pairs, strict=True)
    )
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(RESAMPLES):
        rows = draw.integers(0, len(arm_SG), len(arm_SG))
        groups = draw.integers(0, arm_SG.shape[1], arm_SG.shape[1])
        drawn = np.ix_(rows, groups)
        if not base_SG[drawn].sum():
            raise ValueError(f"the measure '{item}' of the first arm is zero in a draw, so a share of it is undefined")
        shares.append(arm_SG[drawn].sum() / base_SG[drawn].sum())
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(arm_SG.sum() / base_SG.sum()), float(low), float(high)


def _zero(result: dict[str, object], item: str) -> dict[str, object]:
    """A result in which the measure `item` is 0 for each item."""
    items = result["items"]
    assert isinstance(items, dict)
    return {**result, "items": {item: [0.0] * len(items[item])}}


def table(marker: str) -> str:
    """One Markdown table, or a line that says that there are no results."""
    name, arms, item, columns = TABLES[marker]
    finished = {arm: files for arm in arms if (files := results(name, arm))}
    if arms[0] not in finished:
        return "No results yet.\n"
    base = finished[arms[0]]
    title = next(title for title, key, _ in columns if key == item)
    compared = f"{title}, as a share of {arms[0]}'s" if marker in SHARES else f"{title} − {arms[0]}'s"
    compared = f"{title}, with its interval" if marker in FROM_ZERO else compared
    titles = ["arm", *(title for title, _, _ in columns), compared]
    titles += [*(["detectable"] if marker in DETECTABLE else []), "by seed", "seeds"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    shape = next(shape for _, key, shape in columns if key == item)
    points = shape.endswith("%}")
    for arm, files in finished.items():
        cells = []
        for _, key, form in columns:
            values = [v for f in files if (v := value(f, key)) is not None]
            cells.append(form.format(float(np.mean(values))) if values else "–")
        if marker in FROM_ZERO:
            mean, low, high, _ = paired(files, [_zero(f, item) for f in files], item)
            gap = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        elif arm == arms[0]:
            gap = "–"
        elif marker in SHARES:
            mean, low, high = (100 * x for x in share(files, base, item))
            gap = f"{mean:.0f}% [{low:.0f}, {high:.0f}]"
        else:
            mean, low, high, least = (x * (100 if points else 1) for x in paired(files, base, item))
            form = "{:+.1f}" if points else "{:+.3f}"
            gap = f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]{' points' if points else ''}"
        cells.append(gap)
        if marker in DETECTABLE:
            cells.append("–" if arm == arms[0] else f"{least:.1f} points" if points else f"{least:.3f}")
        each = " ".join(shape.format(value(f, item) or 0.0) for f in files)
        lines.append(f"| {arm} | {' | '.join(cells)} | {each} | {len(files)} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with a new table between each pair of markers."""
    for marker in re.findall(r"<!-- table: (.*?) -->", text):
        begin, end = f"<!-- table: {marker} -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table(marker)}\n{end}{after}"
    return text


if __name__ == "__main__":
    old = PAGE.read_text()
    if "--check" in sys.argv:
        sys.exit("docs/experiments.md is out of date: run benchmarks/experiments/tables.py" if page(old) != old else 0)
    PAGE.write_text(page(old))
