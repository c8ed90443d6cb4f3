"""Sends the questions with Curator: its OpenAI backend answers a dataset of questions.

`max_concurrent_requests` limits the requests in flight. The limits of requests and tokens a minute are so high that
they have no effect. Curator's cache is on, as by default, and is empty at the start. The viewer and telemetry are off.
"""

from __future__ import annotations

import os

from clock import OPTIONS, questions, report, timed

# isort: split
from bespokelabs import curator
from datasets import Dataset


class Asker(curator.LLM):
    """Sends each question without changes, and makes a row of question and answer."""

    def prompt(self, row: dict[str, str]) -> str:
        """The text to send."""
        return row["question"]

    def parse(self, row: dict[str, str], response: str) -> list[dict[str, str]]:
        """The rows made from a response."""
        return [{"question": row["question"], "answer": response}]


asker = Asker(
    model_name=OPTIONS["model"],
    backend="openai",
    generation_params={"max_tokens": 16, "temperature": 1.0, "top_p": 1.0},
    backend_params={
        "base_url": OPTIONS["url"],
        "api_key": os.environ["LOOPBACK_KEY"],
        "max_concurrent_requests": OPTIONS["in_flight"],
        "max_requests_per_minute": 10**6,
        "max_tokens_per_minute": 10**10,
    },
)
dataset = Dataset.from_list([{"question": question} for question in questions()])
with timed():
    response = asker(dataset)
assert response.dataset.cache_files, "the rows must be read back from the Arrow file on disk"
report(
    f"max_concurrent_requests={OPTIONS['in_flight']}, own cache on",
    ((row["question"], row["answer"]) for row in response.dataset),
)
