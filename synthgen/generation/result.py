"""The result of `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Generation:
    """The result of `generate`: the corpus in `folder`.

    `finished` is true when the corpus is complete. If the corpus is not complete, `shards_left` shards remain for other
    machines, and `counts` is empty. `cost_usd` is the cost of the corpus's rows, for teachers behind an API. `seconds`
    is the duration of this call. `worked` is true when this call made shards.
    """

    folder: Path
    finished: bool
    worked: bool
    seconds: float
    shards_left: int = 0
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of rows, tokens, rows of each split, and failures."""
        return dict(self.manifest.get("counts", {}))

    @property
    def cost_usd(self) -> float | None:
        """The cost of all rows in US dollars. None when all teachers are local, or before the corpus is complete."""
        return self.manifest.get("cost_usd")

    @property
    def hint(self) -> str:
        """The next command or action for the user."""
        if self.finished:
            return f"synthgen curate {self.folder.parent}"
        return (
            f"copy data/, logits/ and failures/ of all parts into one {self.folder}, then run generate without --shard"
        )

    def text(self) -> str:
        """The result as text for the user."""
        if not self.finished:
            return f"{self.folder}: this part is finished; {self.shards_left:,} shards belong to the other parts"
        counts = self.counts
        splits = ", ".join(
            f"{name.removeprefix('rows_')} {count:,}" for name, count in counts.items() if name.startswith("rows_")
        )
        text = f"{self.folder}: {counts['rows']:,} rows" + (f" ({splits})" if splits else "")
        text += f", {counts['tokens']:,} tokens, {counts['failures']:,} failures"
        if "cost_usd" not in self.manifest:
            return text
        return f"{text}, cost unknown" if self.cost_usd is None else f"{text}, ${self.cost_usd:.4f}"

    def to_dict(self) -> dict[str, Any]:
        """The object that `--json` prints: the manifest, and the facts about this call."""
        return {
            "folder": str(self.folder),
            "finished": self.finished,
            "worked": self.worked,
            "seconds": self.seconds,
            "shards_left": self.shards_left,
            **self.manifest,
        }
