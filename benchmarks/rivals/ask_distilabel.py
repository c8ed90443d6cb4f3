"""Sends the questions with distilabel: a pipeline of a loader and one `TextGeneration` step with `OpenAILLM`.

Each replica of the step is a process with one batch in flight. So the number of requests in flight is
`input_batch_size` × `replicas`. A replica sends its next batch only after the last answer of a batch. With two
replicas, one replica keeps the server busy while the other waits for the last answer of its batch. Runs with 1, 2 and 5
replicas were tried: 2 was fastest with 50 and 200 requests in flight, and 5 with 500. distilabel's cache is off
(`use_cache=False`).
"""

from __future__ import annotations

import os

from clock import FOLDER, OPTIONS, questions, report, timed

# isort: split
import pyarrow.parquet as pq
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepResources
from distilabel.steps.tasks import TextGeneration


def main() -> None:
    """Runs the pipeline. The steps are processes that import this file, so the import must not start a pipeline."""
    replicas = 2 if OPTIONS["in_flight"] <= 200 else 5
    size = OPTIONS["in_flight"] // replicas
    with Pipeline(name="questions", cache_dir=FOLDER / "distilabel") as pipeline:
        loader = LoadDataFromDicts(data=[{"instruction": question} for question in questions()], batch_size=1000)
        llm = OpenAILLM(
            model=OPTIONS["model"],
            base_url=OPTIONS["url"],
            api_key=os.environ["LOOPBACK_KEY"],
            generation_kwargs={"max_new_tokens": 16, "temperature": 1.0, "top_p": 1.0},
        )
        asker = TextGeneration(llm=llm, input_batch_size=size, resources=StepResources(replicas=replicas))
        loader >> asker
    with timed():
        pipeline.run(use_cache=False)
    tables = [pq.read_table(path) for path in sorted((FOLDER / "distilabel").rglob("data/**/*.parquet"))]
    rows = [row for table in tables for row in table.select(["instruction", "generation"]).to_pylist()]
    report(
        f"input_batch_size={size}, replicas={replicas}, use_cache=False",
        ((row["instruction"], row["generation"]) for row in rows),
    )


if __name__ == "__main__":
    main()
