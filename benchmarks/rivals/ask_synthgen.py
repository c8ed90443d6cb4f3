"""Sends the questions with synthgen, with a recipe like that in the README. The cache of paid replies is on, as by
default, and is empty at the start.
"""

from __future__ import annotations

import json

from clock import FOLDER, OPTIONS, questions, report, timed

# isort: split
import pyarrow.parquet as pq

from synthgen import generate, load_recipe

(FOLDER / "questions.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in questions()))
(FOLDER / "user.j2").write_text("{{ question }}\n")
(FOLDER / "recipe.yaml").write_text(
    f"""
task: questions
seeds: [{{path: questions.jsonl, source: benchmark, license: CC0-1.0}}]
teacher:
  engine: openai
  model: {OPTIONS["model"]}
  base_url: {OPTIONS["url"]}
  api_key_env: LOOPBACK_KEY
  license: CC0-1.0
  max_in_flight: {OPTIONS["in_flight"]}
generate: {{max_new_tokens: 16, temperature: 1.0, top_p: 1.0}}
logits: null
"""
)
recipe = load_recipe(FOLDER / "recipe.yaml")
with timed():
    generate(recipe, FOLDER / "run")
rows = pq.read_table(FOLDER / "run" / "generated" / "data").select(["prompt", "completion"]).to_pylist()
report(
    f"max_in_flight={OPTIONS['in_flight']}, own cache on",
    ((row["prompt"][-1]["content"], row["completion"][-1]["content"]) for row in rows),
)
