"""Curator: its OpenAI backend over a dataset of questions.

`max_concurrent_requests` is its setting for requests in flight; the limits a minute are set out of the way, since the
server has none. Its cache is on, as it is by default, and empty. Viewer and telemetry are off.
"""

from __future__ import annotations

import os

from clock import GIVEN, asking, questions, say

# isort: split
from bespokelabs import curator
from datasets import Dataset


class Asker(curator.LLM):
    """The question as it is, and the answer beside it."""

    def prompt(self, row: dict[str, str]) -> str:
        """What is asked."""
        return row["question"]

    def parse(self, row: dict[str, str], response: str) -> list[dict[str, str]]:
        """The row."""
        return [{"question": row["question"], "answer": response}]


asker = Asker(
    model_name=GIVEN["model"],
    backend="openai",
    generation_params={"max_tokens": 16, "temperature": 1.0, "top_p": 1.0},
    backend_params={
        "base_url": GIVEN["url"],
        "api_key": os.environ["LOOPBACK_KEY"],
        "max_concurrent_requests": GIVEN["in_flight"],
        "max_requests_per_minute": 10**6,
        "max_tokens_per_minute": 10**10,
    },
)
dataset = Dataset.from_list([{"question": question} for question in questions()])
with asking():
    made = asker(dataset)
assert made.dataset.cache_files, "the rows are read back from its Arrow file"
say(
    f"max_concurrent_requests={GIVEN['in_flight']}, own cache on",
    ((row["question"], row["answer"]) for row in made.dataset),
)
