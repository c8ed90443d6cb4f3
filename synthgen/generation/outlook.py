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
from synthgen.durable import digest
from synthgen.errors import UserError
from synthgen.files import LARGEST, is_regular, parse_json
from synthgen.generation import casting, ledger
from synthgen.generation.claim import SEEDS
from synthgen.generation.cluster import is_shared, refuse_mixed
from synthgen.generation.inputs import read_inputs
from synthgen.generation.plan import Plan
from synthgen.manifest import Manifest
from synthgen.prompts import load_prompt
from synthgen.recipe import Recipe, digest_of_rows, load_recipe
from synthgen.tables.curation import TASK_ROWS

_STAGES = {"generate": "generated", "curate": "curated"}
_SAME = ("task", "strategy", "teacher", "teachers", "mixture", "steps", "logits")
_MAY_DIFFER = ("num_generations", "seed", "shard_size", "budget", "max_failures")
"""Keys of `generate` that affect neither the time nor the size of a row."""
_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))


@dataclass(frozen=True)
class Measured:
    """What a finished run measured. `rates` maps each stage to its rows a second on one machine, and `shortest` is the
    time in seconds of the shortest of these stages, or None when there is no rate. `unknown` says for each other stage
    why its rate is not known. `rows_per_job` is the mean number of rows that a job of the recipe made. For each kind of
    file, such as `generated/logits`, `row_bytes` has the bytes for each generated row. `entry_bytes` is the mean size
    of a file's entry in the manifest. `files` is the number of files of each shard.
    """

    run: str
    rates: dict[str, float]
    shortest: float | None
    unknown: dict[str, str]
    rows_per_job: float
    row_bytes: dict[str, float]
    entry_bytes: float
    files: float


@dataclass(frozen=True)
class Outlook:
    """The outlook for `rows` generated rows on `nodes` nodes.

    `paced_seconds` is the shortest time in which the providers of API teachers accept the requests, at the recipe's
    `rpm`; None when no teacher has a limit. `shard_size` is the recipe's `generate.shard_size`. `working` is the number
    of nodes that work on each stage. `shared` says that one process sends the requests of all nodes. Costs are None
    when a price is unknown.
    """

    rows: int
    nodes: int
    requests: int
    shards: int
    shard_size: int
    working: dict[str, int]
    shared: bool
    cost_usd: float | None
    most_usd: float | None
    paced_seconds: float | None
    measured: Measured | None

    def to_dict(self) -> dict[str, object]:
        """The object that `--json` prints. `seconds` and `bytes` have the predictions."""
        return {**asdict(self), "seconds": self.seconds(), "bytes": self.sizes()}

    def seconds(self) -> dict[str, float]:
        """The predicted seconds of each stage whose rate was measured."""
        rates = self.measured.rates if self.measured else {}
        found = {stage: self.rows / (rate * self.working[stage]) for stage, rate in rates.items()}
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
            f"  requests: about {self.requests:,}; shards: {self.shards:,} of {self.shard_size:,} jobs",
            f"  cost: {self._cost()}",
        ]
        if self.paced_seconds:
            lines.append(f"  the provider accepts the requests in {_time(self.paced_seconds)} or more (rpm)")
        lines += [f"  time to {stage}: {self._time_to(stage)}" for stage in _STAGES]
        if self.measured and self.measured.shortest is not None and self.measured.shortest < _LONG_ENOUGH:
            lines.append(f"  the run took only {self.measured.shortest:,.1f} s, so these times are mostly its start")
        sizes = self.sizes()
        parts = ", ".join(f"{name} {_size(size)}" for name, size in sizes.items())
        lines.append(f"  storage: {f'{_size(sum(sizes.values()))}: {parts}' if sizes else _UNKNOWN}")
        if self.measured and not any(name.startswith("curated/") for name in sizes):
            lines.append(f"  storage of curated rows: not known: {self.measured.unknown['curate']}")
        if sizes and sizes["manifest.json"] > LARGEST:
            lines.append("  so large a manifest.json cannot be read: raise generate.shard_size")
        return "\n".join(lines)

    def _time_to(self, stage: str) -> str:
        if self.measured is None:
            return _UNKNOWN
        if stage not in self.measured.rates:
            return f"not known: {self.measured.unknown[stage]}"
        rate, working = self.measured.rates[stage], self.working[stage]
        known = f"about {_time(self.seconds()[stage])} ({rate:,.1f} rows a second, measured in {self.measured.run})"
        if self.nodes == working:
            return known
        if stage == "generate" and self.shared:
            return f"{known}; as on one node, because all nodes share the limits of the teacher"
        return f"{known}; only {working:,} nodes have work"

    def _cost(self) -> str:
        if self.cost_usd is None or self.most_usd is None:
            return "unknown; set teacher.prices"
        return f"about ${self.cost_usd:,.2f}, at most ${self.most_usd:,.2f} (not counting retries)"


_LONG_ENOUGH = 30.0  # seconds; a shorter stage measures mostly the start of the command
_UNKNOWN = "not known; name a finished run of this recipe with --measured"
_NO_RATE = "no command on one machine made all these rows with this recipe"
_CACHED = "replies came from the cache of paid replies"
_OTHER_RULES = "the run was curated with other rules, or from other rows"


def outlook(recipe: Recipe, plan: Plan, rows: int | None, nodes: int = 1, measured: Path | None = None) -> Outlook:
    """The outlook for `rows` rows, by default those of the plan. `measured` is the folder of a finished run.

    Every row is assumed to need as many requests and tokens as the plan's rows do on average. Raises UserError when the
    run was made with other settings that decide the time or size of a row, or when several nodes cannot generate with
    this recipe. Raises CorpusError when the run is not finished.
    """
    if nodes > 1:
        refuse_mixed(recipe)
    found = None if measured is None else measure(recipe, measured)
    each, size = found.rows_per_job if found else 1.0, recipe.generate.shard_size
    jobs = plan.rows if rows is None else math.ceil(rows / each)
    shards, times = math.ceil(jobs / size), jobs / plan.rows
    requests = math.ceil(times * sum(plan.requests.values()))
    shared = is_shared(recipe)
    return Outlook(
        rows=round(jobs * each) if rows is None else rows,
        nodes=nodes,
        requests=requests,
        shards=shards,
        shard_size=size,
        working={
            "generate": 1 if shared else min(nodes, shards),
            "curate": min(nodes, math.ceil(shards / math.ceil(TASK_ROWS / size))),
        },
        shared=shared,
        cost_usd=None if plan.cost_usd is None else plan.cost_usd * times,
        most_usd=None if plan.most_usd is None else plan.most_usd * times,
        paced_seconds=_paced(recipe, requests),
        measured=found,
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
    generated = corpus.manifest(run / "generated")
    if changed := _changed(recipe, made, generated):
        raise UserError(
            f"{run} was made with {changed}, so its rates say nothing about this recipe",
            "name a run of this recipe with --measured, or leave --measured out",
        )
    rows = generated["counts"]["rows"]
    if not rows:
        raise UserError(f"{run} has no rows, so it measured nothing", "name another run with --measured")
    known = [stage for stage in _STAGES if stage == "generate" or _same_rules(recipe, run, generated)]
    row_bytes: dict[str, float] = {}
    for name in (_STAGES[stage] for stage in known):
        if (run / name / "manifest.json").exists():
            for path, entry in corpus.manifest(run / name)["files"].items():
                part = f"{name}/{path.partition('/')[0]}"
                row_bytes[part] = row_bytes.get(part, 0.0) + entry["bytes"] / rows
    files = generated["files"]
    shards = sum(path.startswith("data/") for path in files)
    unknown = {stage: _NO_RATE if stage in known else _OTHER_RULES for stage in _STAGES}
    rates = {stage: rate for stage, rate in _rates(run, digest_of_rows(made)).items() if stage in known}
    if "generate" in rates and _from_cache(made, run):
        del rates["generate"]
        unknown["generate"] = _CACHED
    return Measured(
        run=str(run),
        rates=rates,
        shortest=min((rows / rate for rate in rates.values()), default=None),
        unknown={stage: why for stage, why in unknown.items() if stage not in rates},
        rows_per_job=rows / _jobs(made, run),
        row_bytes=row_bytes,
        entry_bytes=len(json.dumps(files, indent=2)) / len(files),
        files=len(files) / shards,
    )


def _changed(recipe: Recipe, made: Recipe, generated: Manifest) -> str:
    """What differs between a recipe and the recipe of a run, among all that decides the time or the size of a row; ""
    when nothing does. Seeds may differ.
    """
    mine, theirs = (one.model_dump(mode="json") for one in (recipe, made))
    changed = [key for key in _SAME if mine[key] != theirs[key]]
    asked = mine["generate"].keys() - set(_MAY_DIFFER)
    changed += [f"generate.{key}" for key in sorted(asked) if mine["generate"][key] != theirs["generate"][key]]
    if changed:
        return f"another '{changed[0]}'"
    same = load_prompt(recipe.prompts, recipe.task).version == generated["prompt_version"]
    return "" if same else "other templates"


def _jobs(made: Recipe, run: Path) -> int:
    """The number of jobs of a finished run. Raises UserError when its seeds have changed since."""
    inputs = read_inputs(made)
    if corpus.load_json(run / "generated" / "inputs.json").get(SEEDS) != inputs.seeds.fingerprint:
        raise UserError(
            f"the seeds of {run} have changed, so it is not known how many rows a seed brings",
            "name another run with --measured",
        )
    return len(inputs.jobs())


def _same_rules(recipe: Recipe, run: Path, generated: Manifest) -> bool:
    """Whether the curated corpus of `run` was made with the recipe's rules from the rows that the run has now."""
    path = run / "curated" / "inputs.json"
    expected = {
        "curate": json.loads(json.dumps(recipe.curate.values())),
        "generated_sha256": digest(generated["files"]),
    }
    return is_regular(path) and corpus.load_json(path).items() >= expected.items()


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
