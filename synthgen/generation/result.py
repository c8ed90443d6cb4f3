"""What `generate` did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Generation:
    """The result of `generate`: the corpus in `folder`.

    `finished` is true when the corpus is complete. Otherwise `shards_left` shards remain for other machines. When it is
    finished, `counts` has the numbers of rows, tokens, rows of each split, and failures. `cost_usd` is the cost of its
    rows, for teachers behind an API. `seconds` is the duration of this call. `worked` is true when the call made rows.
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
        """US dollars for all rows; None when models run in this process or a price is unknown."""
        return self.manifest.get("cost_usd")

    @property
    def hint(self) -> str:
        """What to do next."""
        if self.finished:
            return f"synthgen curate {self.folder.parent}"
        return (
            f"copy data/, logits/ and failures/ of all parts into one {self.folder}, then run generate without --shard"
        )

    def text(self) -> str:
        """For people."""
        if not self.finished:
            return f"{self.folder}: this part is finished; {self.shards_left:,} shards belong to the other parts"
        counts = self.counts
        splits = ", ".join(
            f"{name.removeprefix('rows_')} {count:,}" for name, count in counts.items() if name.startswith("rows_")
        )
        text = f"{self.folder}: {counts['rows']:,} rows" + (f" ({splits})" if splits else "")
        text += f", {counts['tokens']:,} tokens, {counts['failures']:,} failures"
        return text if self.cost_usd is None else f"{text}, ${self.cost_usd:.4f}"

    def to_dict(self) -> dict[str, Any]:
        """The manifest and what this call did, for `--json`."""
        return {
            "folder": str(self.folder),
            "finished": self.finished,
            "worked": self.worked,
            "seconds": self.seconds,
            "shards_left": self.shards_left,
            **self.manifest,
        }
