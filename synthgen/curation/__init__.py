"""Curation: RUN/generated → RUN/curated. Every row gets verdicts; none is lost: kept + rejected = input.

Two shapes: a check sees a batch of records, a sweep sees the whole corpus. To add one, write the function and
name it here. The result depends on the generated rows and the recipe alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from synthgen import corpus, durable
from synthgen.curation import duplicates, text
from synthgen.errors import CorpusError
from synthgen.recipe import CurateSection, Recipe
from synthgen.records import Record, Verdict, to_table, with_verdicts
from synthgen.ui import UI

Check = Callable[[Sequence[Record], CurateSection], list[Verdict]]

CHECKS: dict[str, Check] = {
    "answer": text.answer,
    "length": text.length,
    "repetition": text.repetition,
    "refusal": text.refusal,
    "truncated": text.truncated,
}


def curate(
    recipe: Recipe,
    run: str | Path,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    repair: bool = False,
    ui: UI | None = None,
) -> Path:
    """Judge every row of `run`/generated; kept rows go to data/, the others with their reasons to rejected/.

    `out` is `run`/curated by default. Raises CorpusError for damaged or unfinished input, RunChanged when the
    output was made from other rows or with other thresholds.
    """
    ui = ui or UI(quiet=True)
    source = corpus.resolve(Path(run), prefer=("generated",))
    folder = Path(out) if out else source.parent / "curated"
    if folder.resolve() == source.resolve():
        raise CorpusError(f"{folder} is the corpus itself", "give another folder with -o")
    made = corpus.verify(source)
    inputs = {
        "curate": recipe.curate.model_dump(mode="json"),
        "generated_sha256": durable.digest(made["files"]),
    }
    if fresh:
        durable.remove(folder)
    durable.sweep(folder)
    corpus.claim(folder, inputs, "curate")
    if repair:
        for name in corpus.discard_damaged(folder):
            ui.note(f"{folder}: shard {name} was damaged and is made again")
    if (folder / "manifest.json").exists():
        corpus.verify(folder)
        ui.note(f"{folder} is complete; nothing to do")
        return folder
    copies = duplicates.duplicates(_all(source)) if recipe.curate.duplicates else {}
    done = corpus.committed(folder, ["rejected"])
    names = []
    with ui.progress("curate", made["counts"]["rows"], "rows") as bar:
        for name, records in corpus.records(source):
            names.append(name)
            if name not in done:
                kept, rejected = _judge(records, copies, recipe.curate)
                corpus.commit(folder, name, {"rejected": to_table(rejected), "data": to_table(kept)})
            bar.advance(len(records), resumed=name in done)
    corpus.finish(folder, "curated", _facts(folder, made, recipe), names)
    return folder


def _all(source: Path) -> Iterator[Record]:
    for _, records in corpus.records(source):
        yield from records


def _judge(
    records: Sequence[Record], copies: dict[str, Verdict], section: CurateSection
) -> tuple[list[Record], list[Record]]:
    """(kept, rejected) with verdicts and scores written in."""
    columns = [check(records, section) for name, check in CHECKS.items() if _on(section, name)]
    kept: list[Record] = []
    rejected: list[Record] = []
    for row, record in enumerate(records):
        verdicts = [column[row] for column in columns]
        verdicts += [copies[record.id]] if record.id in copies else []
        side = kept if all(v.keep for v in verdicts) else rejected
        side.append(with_verdicts(record, verdicts))
    return kept, rejected


def _on(section: CurateSection, name: str) -> bool:
    if name == "length":
        return section.min_words is not None or section.max_words is not None
    return getattr(section, name) not in (False, None)


def _facts(folder: Path, made: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Counts by verdict; kept + rejected must be what was generated."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    verified: Counter[str] = Counter()
    for part in ("data", "rejected"):
        for _, records in corpus.records(folder, part):
            for r in records:
                counts["kept" if part == "data" else "rejected"] += 1
                counts["tokens kept" if part == "data" else "tokens rejected"] += len(r.token_ids or ())
                reasons.update(v["check"] for v in r.verdicts)
                for score in r.scores:
                    if score["name"] == "answer":
                        verified["correct" if score["value"] else "wrong"] += 1
    if counts["kept"] + counts["rejected"] != made["counts"]["rows"]:
        raise CorpusError(
            f"{folder}: {counts['kept']} kept and {counts['rejected']} rejected are not the "
            f"{made['counts']['rows']} rows generated",
            "a bug of ours: please report it",
        )
    if verified:
        counts["answers checked"] = verified["correct"] + verified["wrong"]
        counts["answers correct"] = verified["correct"]
    carried = ("description", "task", "strategy", "prompt_version", "labels", "teachers", "sources")
    return {
        **{name: made[name] for name in carried},
        "counts": dict(sorted(counts.items())),
        "rejected_by": dict(sorted(reasons.items())),
        "thresholds": recipe.curate.model_dump(mode="json"),
    }
