"""Measures the time and the peak memory of `plan` with many seeds, and compares both with the figures of an earlier
revision.

    python benchmarks/seeds.py                  # 1,000,000 seeds now; 100,000 seeds now and at 199c186
    python benchmarks/seeds.py --seeds 200000 --kind csv
    python benchmarks/seeds.py --seeds 2000 --few 1000      # 1,000 seeds at 199c186

Each measurement runs in a separate process. The time is that of `plan` alone, which reads, groups and splits the seeds,
and renders the first request of each job. CPU time depends little on other programs. Memory is the peak of the process.
The earlier revision is read with git. The last line of the output says whether both versions assign the same ids to
the seeds that both versions planned, and for how many seeds they choose the same split. Splits differ, because the
groups of similar seeds are now formed in another way.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

REVISION = "199c186"
HERE = Path(__file__).resolve().parent.parent
COLUMNS = ("id", "question", "answer")
# The code that a measuring process runs. The code works with both source trees: its `except` branch has the module
# names of 199c186.
CHILD = """
import hashlib, json, sys, time
from synthgen.prompts import load_prompt
from synthgen.recipe import load_recipe
try:
    from synthgen.generation.plan import plan
except ImportError:
    from synthgen.generate.plan import plan
from synthgen.seeds import load_seeds
recipe = load_recipe(sys.argv[1])
began, began_cpu = time.perf_counter(), time.process_time()
planned = plan(recipe)
result = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - began_cpu, "requests": planned.requests}
with open("/proc/self/status") as status:  # the peak of `resource` would include the memory of the parent
    result["peak_mb"] = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
if len(sys.argv) > 2:
    hashed, splits = hashlib.sha256(), []
    for seed in load_seeds(recipe.seeds, recipe.split, load_prompt(recipe.prompts, recipe.task).question):
        hashed.update(f"{seed.id}\\n".encode())
        splits.append(seed.split)
    result |= {"ids": hashed.hexdigest(), "splits": splits}
print(json.dumps(result))
"""


def main() -> None:
    """Measures both versions and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1_000_000, help="number of seeds to plan with this version")
    parser.add_argument("--few", type=int, default=100_000, help="number of seeds to plan with both versions")
    parser.add_argument("--kind", choices=["jsonl", "csv", "parquet"], default="jsonl", help="kind of seed file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        before = archived(root / "before")
        few = task(root / "few", asked.few, asked.kind)
        many = task(root / "many", asked.seeds, asked.kind)
        rows = [
            (REVISION, asked.few, measure(before, few / "before.yaml", ids=True)),
            ("now", asked.few, measure(HERE, few / "recipe.yaml", ids=True)),
            ("now", asked.seeds, measure(HERE, many / "recipe.yaml")),
        ]
    print(f"{'plan':>8}  {'seeds':>9}  {'seconds':>7}  {'CPU s':>6}  {'CPU µs a seed':>13}  {'peak MB':>7}  requests")
    for name, count, found in rows:
        each = found["cpu"] / count * 1e6
        requests = ", ".join(f"{split} {number:,}" for split, number in sorted(found["requests"].items()))
        times = f"{found['seconds']:>7.1f}  {found['cpu']:>6.1f}  {each:>13.1f}"
        print(f"{name:>8}  {count:>9,}  {times}  {found['peak_mb']:>7.0f}  {requests}")
    (_, _, old), (_, _, new), _ = rows
    same = sum(a == b for a, b in zip(old["splits"], new["splits"], strict=True)) / asked.few
    ids = "the same" if old["ids"] == new["ids"] else "DIFFERENT"
    print(f"ids of {asked.few:,} seeds are {ids} at {REVISION} and now; {same:.1%} of the seeds have the same split")


def archived(folder: Path) -> Path:
    """The source tree of the earlier revision."""
    done = subprocess.run(["git", "archive", REVISION], cwd=HERE, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def task(folder: Path, count: int, kind: str) -> Path:
    """A folder with seeds, a template, and two recipes: one for this version and one for the earlier revision."""
    folder.mkdir()
    random.seed(0)
    words = [f"{a}{b}{c}" for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", "n", "rt", "l", "sh")]
    names = ["Ann", "Bob", "Chloe", "Dmitri", "Eve", "Fay", "Gil", "Hana"]

    def row(number: int) -> dict[str, str]:
        said = " ".join(random.choices(words, k=random.randint(6, 20)))
        question = f"{random.choice(names)} has {number} of them: {said}. How many are {random.randint(1, 99)} more?"
        return {"id": f"q{number}", "question": question, "answer": str(number % 97)}

    rows = (row(number) for number in range(count))
    path = folder / f"seeds.{kind}"
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            if kind == "csv":
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(one) + "\n" for one in rows)
    (folder / "user.j2").write_text("Think step by step.\n\n{{ question }}\n")
    for name, license in (("recipe", "license"), ("before", "licence")):
        source = {"path": path.name, "source": "benchmark", license: "CC0-1.0", "id": "id", "reference": "answer"}
        recipe = {"task": "sums", "seeds": [source], "teacher": {"model": "org/model", license: "Apache-2.0"}}
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))
    return folder


def measure(tree: Path, recipe: Path, *, ids: bool = False) -> dict:
    """The measurements of a separate process that runs the code of `tree`."""
    command = [sys.executable, "-c", CHILD, str(recipe), *(["ids"] if ids else [])]
    done = subprocess.run(command, cwd=tree, env={"PYTHONPATH": str(tree), "PATH": ""}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
