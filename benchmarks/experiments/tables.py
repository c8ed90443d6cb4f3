"""Writes the tables of docs/experiments.md from the result files of the arms.

    python benchmarks/experiments/tables.py            # --check: exit with 1 if the page is out of date

Means are over held-out items and seeds. Each arm is compared with the first arm of its table on the same items and
seeds. The 95% intervals of the differences are from a percentile bootstrap that draws seeds and items with replacement.
"""

from __future__ import annotations

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
_FAMILY = ["text", "text-aligned", "text-aligned-half", "answers", "after", "shuffled", "base"]
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
FROM_ZERO = {"inheritance"}  # tables in which each arm's mean is a difference already, and its interval is shown
SHARES = {"context"}  # tables in which an arm's mean is given as a share of the first arm's mean, not as a difference


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


def paired(arm: list[dict[str, Any]], base: list[dict[str, Any]], item: str) -> tuple[float, float, float]:
    """(mean, low, high) of the difference arm − base, over the seeds that both arms have."""
    seeds = sorted({f["seed"] for f in arm} & {f["seed"] for f in base})
    sides = [{f["seed"]: f["items"][item] for f in side} for side in (arm, base)]
    gap_SI = np.array([np.subtract(sides[0][s], sides[1][s]) for s in seeds])
    draw = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        rows = draw.integers(0, len(gap_SI), len(gap_SI))
        columns = draw.integers(0, gap_SI.shape[1], gap_SI.shape[1])
        means.append(gap_SI[np.ix_(rows, columns)].mean())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(gap_SI.mean()), float(low), float(high)


def share(arm: list[dict[str, Any]], base: list[dict[str, Any]], item: str) -> tuple[float, float, float]:
    """(share, low, high): the arm's mean over S seeds and I items, divided by the mean of `base`, which has one file.

        share = (Σ_s Σ_i arm_si / S) / Σ_i base_i

    The interval is a percentile bootstrap of this ratio (Efron and Tibshirani 1993, An Introduction to the Bootstrap,
    chapter 13). Each draw takes seeds and items with replacement, and the same items for arm and base. Items that share
    a template are drawn together. Each result file states how many items share a template.
    """
    together = base[0].get("together", 1)
    arm_SG = np.array([f["items"][item] for f in arm]).reshape(len(arm), -1, together).sum(-1)
    base_G = np.array(base[0]["items"][item]).reshape(-1, together).sum(-1)
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(RESAMPLES):
        rows = draw.integers(0, len(arm_SG), len(arm_SG))
        groups = draw.integers(0, len(base_G), len(base_G))
        shares.append(arm_SG[np.ix_(rows, groups)].sum() / len(rows) / base_G[groups].sum())
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(arm_SG.sum() / len(arm_SG) / base_G.sum()), float(low), float(high)


def _zero(result: dict[str, object], item: str) -> dict[str, object]:
    """A result whose measure `item` is 0 for each item."""
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
    lines = [f"| arm | {' | '.join(t for t, _, _ in columns)} | {compared} | by seed | seeds |"]
    lines.append("|---" * (len(columns) + 4) + "|")
    shape = next(shape for _, key, shape in columns if key == item)
    points = shape.endswith("%}")
    for arm, files in finished.items():
        cells = []
        for _, key, form in columns:
            values = [v for f in files if (v := value(f, key)) is not None]
            cells.append(form.format(float(np.mean(values))) if values else "–")
        if marker in FROM_ZERO:
            mean, low, high = paired(files, [_zero(f, item) for f in files], item)
            gap = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        elif arm == arms[0]:
            gap = "–"
        elif marker in SHARES:
            mean, low, high = (100 * x for x in share(files, base, item))
            gap = f"{mean:.0f}% [{low:.0f}, {high:.0f}]"
        else:
            mean, low, high = (x * (100 if points else 1) for x in paired(files, base, item))
            form = "{:+.1f}" if points else "{:+.3f}"
            gap = f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]{' points' if points else ''}"
        each = " ".join(shape.format(value(f, item) or 0.0) for f in files)
        lines.append(f"| {arm} | {' | '.join(cells)} | {gap} | {each} | {len(files)} |")
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
