"""The run's page: one self-contained HTML file with plots inline, readable without a server or a network.

    write_report("runs/demo")             # → runs/demo/report.html

It shows what the run's files say, at whatever stage the run is.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from synthgen import corpus, durable
from synthgen.errors import CorpusError
from synthgen.records import Record

_ROWS = 6  # rows to read, kept and rejected each
_KINDS = 20  # kinds of seeds in the table


def write_report(run: str | Path) -> Path:
    """Write RUN/report.html from what the run holds; returns its path.

    Raises CorpusError when there is no corpus, UserError when matplotlib is not installed.
    """
    from synthgen.reporting import plots

    folder = Path(run)
    page = _gather(folder)
    page["plots"] = {name: plots.svg(figure) for name, figure in plots.figures(page).items()}
    environment = Environment(
        loader=PackageLoader("synthgen", "templates"), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    environment.filters.update(pct=_pct, num=_num, spread=_spread)
    durable.write_text(folder / "report.html", environment.get_template("report.html.j2").render(**page))
    return folder / "report.html"


def _gather(folder: Path) -> dict[str, Any]:
    """Everything the template and the plots need, from the run's files."""
    if not (folder / "generated" / "manifest.json").exists():
        raise CorpusError(
            f"{folder} has no finished corpus to report on" if folder.exists() else f"'{folder}' does not exist",
            "make one: `synthgen run RECIPE -o RUN`",
        )
    generated = corpus.manifest(folder / "generated")
    curated = corpus.manifest(folder / "curated") if (folder / "curated" / "manifest.json").exists() else None
    evaluation = _json(folder / "student" / "evaluation.json")
    source, made = (folder / "curated", curated) if curated else (folder / "generated", generated)
    kept = _look(source, "data", made, generated["labels"])
    rejected = _look(source, "rejected", made, generated["labels"])
    return {
        "task": generated["task"],
        "description": generated["description"],
        "generated": generated,
        "curated": curated,
        "audit": _json(folder / "audit" / "report.json"),
        "training": _json(folder / "student" / "training.json"),
        "evaluation": evaluation,
        "curve": _json(folder / "student" / "curve.json"),
        "exports": [_json(path) for path in sorted((folder / "student").glob("export-*.json"))],
        "figures": _figures(generated, curated, evaluation),
        "headline": _headline(evaluation),
        "kept": kept.few,
        "rejected": rejected.few,
        "lengths": {"kept": kept.lengths, "rejected": rejected.lengths},
        "kinds": _kinds(kept, rejected),
        "splits": Counter(
            {(split, "kept"): count for split, count in kept.splits.items()}
            | {(split, "rejected"): count for split, count in rejected.splits.items()}
        ),
        "disk": _disk(folder, generated),
        "stages": _stages(folder),
        "recipe": (folder / "recipe.yaml").read_text(encoding="utf-8") if (folder / "recipe.yaml").exists() else "",
    }


def _json(path: Path) -> Any:
    return corpus.load_json(path) if path.exists() else None


@dataclass
class _Seen:
    """What one pass over a part of a corpus leaves: a few rows, and counts. It does not grow with the corpus."""

    few: list[Record] = field(default_factory=list)
    lengths: Counter[int] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)


def _look(source: Path, part: str, made: dict[str, Any], labels: list[str]) -> _Seen:
    """Read a part once. A row's kind is its right label, or the part of its seed's id before the number."""
    seen = _Seen()
    total = sum(entry["rows"] for name, entry in made["files"].items() if name.startswith(f"{part}/"))
    wanted = {total * i // _ROWS for i in range(_ROWS)}  # from all over the corpus
    records = (record for _, records in corpus.records(source, part) for record in records)
    for place, record in enumerate(records):
        if place in wanted:
            seen.few.append(record)
        seen.lengths[len(record.token_ids or ())] += 1
        seen.splits[record.split] += 1
        score = next((s["value"] for s in record.scores if s["name"] == "answer"), None)
        kind = (record.reference or [None])[0] if labels else record.seed_id.rpartition("-")[0]
        if score is not None and kind and (kind in seen.checked or len(seen.checked) <= _KINDS):
            seen.checked[kind] += 1
            seen.right[kind] += int(score)
    return seen


def _kinds(*sides: _Seen) -> list[tuple[str, int, int]]:
    """(kind, rows verified right, rows checked), unless there are too many kinds to be any."""
    checked = sum((side.checked for side in sides), Counter[str]())
    right = sum((side.right for side in sides), Counter[str]())
    return [(kind, right[kind], checked[kind]) for kind in sorted(checked)] if len(checked) <= _KINDS else []


def _figures(generated: Any, curated: Any, evaluation: Any) -> list[tuple[str, str]]:
    """(label, value) of the row of key figures under the title."""
    found = [("rows generated", _num(generated["counts"]["rows"]))]
    if curated:
        counts = curated["counts"]
        found += [("rows kept", _num(counts.get("kept", 0))), ("tokens kept", _num(counts.get("tokens_kept", 0)))]
        if counts.get("answers_checked"):
            found.append(("answers right", _pct(counts.get("answers_correct", 0) / counts["answers_checked"])))
    if evaluation and evaluation["kind"] in ("decoder", "seq2seq") and "distilled" in evaluation["table"]:
        found.append(("KL to the teacher, nats a token", f"{evaluation['table']['distilled']['kl']['mean']:.2f}"))
    if evaluation and evaluation["kind"] == "sentence":
        found.append(("Spearman's ρ with the teacher", f"{evaluation['table']['distilled']['spearman']['mean']:.3f}"))
        found.append(("times the teacher's speed", _num(evaluation["speed-up"])))
    if evaluation and evaluation["kind"] in ("classifier", "encoder"):
        found.append(("agrees with the teacher", _pct(evaluation["table"]["distilled"]["agreement"]["mean"])))
        found.append(("times the teacher's speed", _num(evaluation["speed-up"])))
    return found


def _headline(evaluation: Any) -> str:
    """The result in one sentence."""
    if not evaluation:
        return ""
    if evaluation["kind"] in ("classifier", "encoder"):
        above = evaluation["agreement above majority"]
        return (
            f"On {evaluation['rows']} held-out texts the student agrees with the teacher "
            f"{100 * above['mean']:.1f} points [{100 * above['low']:.1f}, {100 * above['high']:.1f}] more often than "
            f"the majority class does, at {_num(evaluation['speed-up'])} times the teacher's speed."
        )
    if evaluation["kind"] == "sentence":
        rho = evaluation["table"]["distilled"]["spearman"]
        return (
            f"On {evaluation['rows']} held-out texts the student orders pairs as the teacher does with Spearman's ρ "
            f"{_spread(rho)}, at {_num(evaluation['speed-up'])} times the teacher's speed."
        )
    difference = evaluation["kl differences"].get("distilled − cross-entropy")
    if difference is None:
        return ""
    word = "nearer to" if difference["mean"] < 0 else "farther from"
    sure = "" if difference["low"] * difference["high"] > 0 else " (the interval includes zero)"
    return (
        f"On {evaluation['rows']} held-out completions the distilled student is {abs(difference['mean']):.3f} nats a "
        f"token {word} the teacher than the student of the same tokens without logits: paired difference "
        f"{_spread(difference)}{sure}."
    )


def _disk(folder: Path, generated: Any) -> list[tuple[str, int, str]]:
    """(part, bytes, remark) of the run."""
    parts: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            inner = path.relative_to(folder).parts
            parts["/".join(inner[:2]) if inner[0] in ("generated", "curated") and len(inner) > 2 else inner[0]] += (
                path.stat().st_size
            )
    tokens = generated["counts"].get("tokens", 0)
    return [
        (name, size, f"{size / tokens:.1f} bytes a token" if name == "generated/logits" and tokens else "")
        for name, size in sorted(parts.items())
    ]


def _stages(folder: Path) -> list[tuple[str, float]]:
    """Seconds of the last time each stage did work."""
    path = folder / "log.jsonl"
    last: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # half a line: the machine went down while it was written
        if entry["worked"]:
            last[entry["stage"]] = entry["seconds"]
    return list(last.items())


def _pct(value: float) -> str:
    return f"{100 * value:.1f}%"


def _num(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"


def _spread(interval: dict[str, float] | None, digits: int = 3) -> str:
    """'mean [low, high]', or '–'."""
    if not interval:
        return "–"
    return f"{interval['mean']:.{digits}f} [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"
