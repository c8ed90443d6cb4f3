"""distilabel: a pipeline of a loader and one TextGeneration step with its OpenAI class.

What is in flight is one batch of each replica of the step, so `input_batch_size` × `replicas` is the setting for
requests in flight. A batch ends with its last answer; two replicas of half the size, a process each, keep the server
busy while the other's batch ends. Of one, two and five replicas, two were fastest with 50 and 200 in flight, five with
500. Its cache is off (`use_cache=False`).
"""

from __future__ import annotations

import os

from clock import FOLDER, GIVEN, asking, questions, say

# isort: split
import pyarrow.parquet as pq
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepResources
from distilabel.steps.tasks import TextGeneration


def main() -> None:
    """Run it: in a function, since the steps are processes that import this file."""
    replicas = 2 if GIVEN["in_flight"] <= 200 else 5
    size = GIVEN["in_flight"] // replicas
    with Pipeline(name="questions", cache_dir=FOLDER / "distilabel") as pipeline:
        loader = LoadDataFromDicts(data=[{"instruction": question} for question in questions()], batch_size=1000)
        llm = OpenAILLM(
            model=GIVEN["model"],
            base_url=GIVEN["url"],
            api_key=os.environ["LOOPBACK_KEY"],
            generation_kwargs={"max_new_tokens": 16, "temperature": 1.0, "top_p": 1.0},
        )
        asker = TextGeneration(llm=llm, input_batch_size=size, resources=StepResources(replicas=replicas))
        loader >> asker
    with asking():
        pipeline.run(use_cache=False)
    tables = [pq.read_table(path) for path in sorted((FOLDER / "distilabel").rglob("data/**/*.parquet"))]
    found = [row for table in tables for row in table.select(["instruction", "generation"]).to_pylist()]
    say(
        f"input_batch_size={size}, replicas={replicas}, use_cache=False",
        ((row["instruction"], row["generation"]) for row in found),
    )


if __name__ == "__main__":
    main()
