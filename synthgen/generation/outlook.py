"""Time, cost and storage of a recipe for another number of rows, on several nodes.

    outlook(recipe, plan(recipe), rows=1_000_000_000, nodes=64, measured=Path("runs/first"))

The cost follows from the plan. Times and sizes come from a finished run of the same recipe. Without such a run they are
not known, and the text says so.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from synthgen import corpus
from synthgen.errors import UserError
from synthgen.files import is_regular, parse_json
from synthgen.generation import casting, ledger
from synthgen.generation.cluster import is_shared
from synthgen.generation.plan import Plan
from synthgen.recipe import Recipe, digest_of_rows, load_recipe

_STAGES = {"generate": "generated", "curate": "curated"}
_SAME = ("strategy", "teacher", "teachers", "mixture", "steps", "logits")
_MAY_DIFFER = ("num_generations", "seed", "shard_size", "budget", "max_failures")
"""Keys of `generate` that affect neither the time nor the size of a row."""
_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))


@dataclass(frozen=True)
class Measured:
    """What a finished run measured. `rates` has the rows for each second of each stage on one node; a stage that did
    not run from its beginning to its end in one `synthgen run` on one machine is missing. Generation is also missing if
    replies came from the cache, and curation if its rules were not the recipe's. For each kind of file, such as
    `generated/logits`, `row_bytes` has the bytes for each generated row. `entry_bytes` is the mean size of a file's
    entry in the manifest. `files` is the number of files for each shard.
    """

    run: str
    rates: dict[str, float]
    row_bytes: dict[str, float]
    entry_bytes: float
    files: float


@dataclass(frozen=True)
class Outlook:
    """The outlook for `rows` generated rows on `nodes` nodes.

    `paced_seconds` is the shortest time in which the providers of API teachers accept the requests, at the recipe's
    `rpm`; None when no teacher has a limit. `shard_size` is the recipe's `generate.shard_size`. Costs are None when a
    price is unknown. `one_pace` says that the limits of the teachers (`max_in_flight`, `rpm`, `tpm`) hold for all nodes
    together. More nodes then send no more requests at the same time, so rows are generated at the rate of one node.
    """

    rows: int
    nodes: int
    requests: int
    shards: int
    shard_size: int
    cost_usd: float | None
    most_usd: float | None
    paced_seconds: float | None
    one_pace: bool
    measured: Measured | None

    def to_dict(self) -> dict[str, object]:
        """The object that `--json` prints. `seconds` and `bytes` have the predictions."""
        return {**asdict(self), "seconds": self.seconds(), "bytes": self.sizes()}

    def seconds(self) -> dict[str, float]:
        """The predicted seconds of each stage whose rate was measured."""
        rates = self.measured.rates if self.measured else {}
        found = {stage: self.rows / (rate * self.nodes) for stage, rate in rates.items()}
        if "generate" in found and self.one_pace:
            found["generate"] = self.rows / rates["generate"]
        if "generate" in found and self.paced_seconds:
            found["generate"] = max(found["generate"], self.paced_seconds)
        return found

    def sizes(self) -> dict[str, float]:
        """The predicted bytes of each kind of file, and of one manifest."""
        if self.measured is None:
            return {}
        sizes = {name: size * self.rows for name, size in self.measured.row_bytes.items()}
        return {**sizes, "manifest.json": self.measured.entry_bytes * self.measured.files * self.shards}

    def text(self) -> str:
        """The outlook as text for the user."""
        lines = [
            f"at {self.rows:,} rows on {self.nodes:,} node{'s' if self.nodes > 1 else ''}:",
            f"  requests: about {self.requests:,}; shards: {self.shards:,} of {self.shard_size:,} rows",
            f"  cost: {self._cost()}",
        ]
        if self.paced_seconds:
            lines.append(f"  the provider accepts the requests in {_time(self.paced_seconds)} or more (rpm)")
        if self.one_pace and self.nodes > 1:
            lines.append("  all nodes share the teacher's limits (max_in_flight, rpm, tpm), and generate like one node")
        run = self.measured.run if self.measured else ""
        seconds = self.seconds()
        for stage in _STAGES:
            rate = f"{self.measured.rates[stage]:,.1f} rows a second on one node" if stage in seconds else ""  # type: ignore[union-attr]
            known = f"about {_time(seconds[stage])} ({rate}, measured in {run})" if stage in seconds else _UNKNOWN
            lines.append(f"  time to {stage}: {known}")
        sizes = self.sizes()
        parts = ", ".join(f"{name} {_size(size)}" for name, size in sizes.items())
        lines.append(f"  storage: {f'{_size(sum(sizes.values()))}: {parts}' if sizes else _UNKNOWN}")
        if sizes and not any(name.startswith("curated/") for name in sizes):
            lines.append(f"  storage of curated rows: {_UNKNOWN}")
        return "\n".join(lines)

    def _cost(self) -> str:
        if self.cost_usd is None or self.most_usd is None:
            return "unknown; set teacher.prices"
        return f"about ${self.cost_usd:,.2f}, at most ${self.most_usd:,.2f} (not counting retries)"


_UNKNOWN = "not known; name a finished run of this recipe with --measured"


def outlook(recipe: Recipe, plan: Plan, rows: int | None, nodes: int = 1, measured: Path | None = None) -> Outlook:
    """The outlook for `rows` rows, by default those of the plan. `measured` is the folder of a finished run.

    Every row is assumed to need as many requests and tokens as the plan's rows do on average. Raises UserError when the
    run was made with other settings that decide the time or size of a row, and CorpusError when the run is not
    finished.
    """
    planned = plan.rows
    count = planned if rows is None else rows
    requests = math.ceil(count * sum(plan.requests.values()) / planned)
    return Outlook(
        rows=count,
        nodes=nodes,
        requests=requests,
        shards=math.ceil(count / recipe.generate.shard_size),
        shard_size=recipe.generate.shard_size,
        cost_usd=None if plan.cost_usd is None else plan.cost_usd / planned * count,
        most_usd=None if plan.most_usd is None else plan.most_usd / planned * count,
        paced_seconds=_paced(recipe, requests),
        one_pace=is_shared(recipe),
        measured=None if measured is None else measure(recipe, measured),
    )


def _paced(recipe: Recipe, requests: int) -> float | None:
    """The least time in seconds that all requests together can take at the `rpm` of the recipe's only teacher. None
    without `rpm`, and None for several teachers, because it is not known which teacher gets which request.
    """
    sections = list(casting.cast(recipe).values())
    rpm = getattr(sections[0], "rpm", None) if len(sections) == 1 else None
    return None if rpm is None else 60 * requests / rpm


def measure(recipe: Recipe, run: Path) -> Measured:
    """What `run` measured. See `outlook` for its errors."""
    if not (run / "recipe.yaml").exists():
        raise UserError(f"'{run}' is not the folder of a run", "give the folder of a finished run of this recipe")
    made = load_recipe(run / "recipe.yaml")
    mine, theirs = (one.model_dump(mode="json") for one in (recipe, made))
    changed = [key for key in _SAME if mine[key] != theirs[key]]
    asked = mine["generate"].keys() - set(_MAY_DIFFER)
    changed += [f"generate.{key}" for key in sorted(asked) if mine["generate"][key] != theirs["generate"][key]]
    if changed:
        raise UserError(
            f"{run} was made with another '{changed[0]}', so its rates say nothing about this recipe",
            "name a run of this recipe with --measured, or leave --measured out",
        )
    generated = corpus.manifest(run / "generated")
    rows = generated["counts"]["rows"]
    if not rows:
        raise UserError(f"{run} has no rows, so it measured nothing", "name another run with --measured")
    known = [stage for stage in _STAGES if stage == "generate" or _same_rules(recipe, run)]
    row_bytes: dict[str, float] = {}
    for name in (_STAGES[stage] for stage in known):
        if (run / name / "manifest.json").exists():
            for path, entry in corpus.manifest(run / name)["files"].items():
                part = f"{name}/{path.partition('/')[0]}"
                row_bytes[part] = row_bytes.get(part, 0.0) + entry["bytes"] / rows
    files = generated["files"]
    shards = sum(path.startswith("data/") for path in files)
    entry_bytes = len(json.dumps(files, indent=2)) / len(files)
    rates = {stage: rate for stage, rate in _rates(run, digest_of_rows(made)).items() if stage in known}
    if "generate" in rates and _from_cache(made, run):
        del rates["generate"]
    return Measured(str(run), rates, row_bytes, entry_bytes, len(files) / shards)


def _same_rules(recipe: Recipe, run: Path) -> bool:
    """Whether the curated corpus of `run` was made with the recipe's rules."""
    path = run / "curated" / "inputs.json"
    rules = json.loads(json.dumps(recipe.curate.values()))
    return is_regular(path) and corpus.load_json(path).get("curate") == rules


def _from_cache(recipe: Recipe, run: Path) -> bool:
    """Whether replies of paid teachers came from the cache, so that the run spent fewer tokens than its rows state."""
    if any(casting.in_process(section) for section in casting.cast(recipe).values()):
        return False
    shards = sorted((run / "generated" / "data").glob("*.parquet"))
    return ledger.spent(run / ledger.FOLDER).tokens < ledger.cost_of_rows(shards).tokens


def _rates(run: Path, made_with: str) -> dict[str, float]:
    """The rows a second of each stage, from the lines of log.jsonl that say how many rows the stage made. Lines of
    another recipe than `made_with` do not count.
    """
    path, rates = run / "log.jsonl", dict[str, float]()
    for line in path.read_bytes().decode(errors="replace").splitlines() if is_regular(path) else []:
        try:
            entry = parse_json(line)
        except ValueError:
            continue  # the machine crashed while this line was written, so the line is incomplete
        if not isinstance(entry, dict) or entry.get("stage") not in _STAGES or entry.get("recipe") != made_with:
            continue
        rows, seconds = entry.get("rows"), entry.get("seconds")
        if isinstance(rows, int) and isinstance(seconds, int | float) and rows > 0 and seconds > 0:
            rates[entry["stage"]] = rows / seconds
    return rates


def _time(seconds: float) -> str:
    return _in_units(seconds, _UNITS)


def _size(size: float) -> str:
    return _in_units(size, _SIZES)


def _in_units(value: float, units: tuple[tuple[float, str], ...]) -> str:
    size, name = next((unit for unit in units if value >= unit[0]), units[-1])
    return f"{value / size:,.1f} {name}"
