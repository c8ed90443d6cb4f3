"""Log-probabilities of many given texts that begin alike, such as the answers to one question.

The rows of a batch form a tree. Tokens with which several rows begin are in the tree only once, and each token attends
to the earlier tokens on its own branch. A question with three answers is therefore computed once instead of three
times. The tree needs full softmax attention and an output layer whose logits are not scaled or capped (see
`forward.packs`). For other models, rows are padded instead, which gives the same values up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from synthgen.lm.forward import GivesLogits, batches, completion_logits, packs

Sums = npt.NDArray[np.float64]
Row = tuple[Sequence[int], Sequence[int]]
"""The token ids of a prompt, and of a text that follows it. Neither is empty."""

_TOKENS = 384  # maximum number of tokens in a tree, for cheap attention over their pairs and efficient matrix products
_LOGITS = 128  # number of tokens whose logits are in memory together
_PADDED = 16  # maximum number of rows in a padded batch


@torch.inference_mode()
def log_likelihoods(model: GivesLogits, rows: Sequence[Row], *, most_tokens: int = _TOKENS) -> Sums:
    """(R,): the log-probability of each row's text after its prompt, in nats, summed over the text's tokens.

    `most_tokens` is the maximum number of tokens in a forward pass. A row with more tokens gets a pass of its own.
    Raises ValueError when a prompt or a text has no tokens.
    """
    if not all(len(prompt) and len(text) for prompt, text in rows):
        raise ValueError("a prompt or a text has no tokens")
    sums = np.zeros(len(rows))
    for places, found in (_trees if packs(model) else _padded)(model, rows, most_tokens):
        sums[places] = found
    return sums


@dataclass
class _Tree:
    """The tokens of some rows, without each row's last token, which predicts nothing. For each token, `before` holds
    its own place and the places of the earlier tokens on its branch. `branch` is the branch of the row that was added
    last.
    """

    ids: list[int] = field(default_factory=list)
    before: list[list[int]] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)

    def new(self, row: Sequence[int]) -> int:
        """The number of tokens that `row` would add."""
        return len(row) - self._known(row)

    def add(self, row: Sequence[int]) -> list[int]:
        """Add a row. Returns the places of the row's tokens."""
        self.branch = self.branch[: self._known(row)]
        for token in row[len(self.branch) :]:
            self.branch.append(len(self.ids))
            self.ids.append(token)
            self.before.append(list(self.branch))
        return list(self.branch)

    def _known(self, row: Sequence[int]) -> int:
        pairs = zip(row, self.branch, strict=False)
        return next(
            (n for n, (token, place) in enumerate(pairs) if self.ids[place] != token), min(len(row), len(self.branch))
        )


def _trees(model: GivesLogits, rows: Sequence[Row], most_tokens: int) -> Iterator[tuple[list[int], Sums]]:
    """For each tree, yield the places of its rows in `rows`, and the sums of these rows. The rows are added in the
    lexicographic order of their token ids, so that each row follows the rows with which it shares the longest
    beginning.
    """
    whole = [[*prompt, *text] for prompt, text in rows]
    tree, branches = _Tree(), dict[int, list[int]]()
    for place in sorted(range(len(rows)), key=lambda i: whole[i]):
        inputs = whole[place][:-1]
        if branches and len(tree.ids) + tree.new(inputs) > most_tokens:
            yield list(branches), _sums(model, tree, branches, rows)
            tree, branches = _Tree(), {}
        branches[place] = tree.add(inputs)
    if branches:
        yield list(branches), _sums(model, tree, branches, rows)


def _sums(model: GivesLogits, tree: _Tree, branches: dict[int, list[int]], rows: Sequence[Row]) -> Sums:
    """The sums of the rows of one tree, in the order of `branches`."""
    size = len(tree.ids)
    mask = torch.zeros(size, size, dtype=torch.bool)
    for token, before in enumerate(tree.before):
        mask[token, before] = True
    depth = torch.tensor([len(before) - 1 for before in tree.before])
    hidden_SD = model.get_decoder()(
        torch.tensor([tree.ids], device=model.device),
        attention_mask=mask[None, None].to(model.device),
        position_ids=depth[None].to(model.device),
        use_cache=False,
    ).last_hidden_state[0]
    asked = [
        (number, place, token)
        for number, (row, branch) in enumerate(branches.items())
        for place, token in zip(branch[len(rows[row][0]) - 1 :], rows[row][1], strict=True)
    ]
    owners, places, tokens = (np.array(column) for column in zip(*asked, strict=True))
    distinct, which = np.unique(places, return_inverse=True)
    found = np.zeros(len(asked))
    for begin in range(0, len(distinct), _LOGITS):
        chosen = torch.from_numpy(distinct[begin : begin + _LOGITS]).to(model.device)
        logp_NV = model.get_output_embeddings()(hidden_SD[chosen]).float().log_softmax(-1)
        here = np.flatnonzero((which >= begin) & (which < begin + _LOGITS))
        picked = logp_NV[torch.from_numpy(which[here] - begin), torch.from_numpy(tokens[here])]
        found[here] = picked.double().cpu().numpy()
    sums: Sums = np.bincount(owners, found, len(branches)).astype(float)
    return sums


def _padded(model: GivesLogits, rows: Sequence[Row], most_tokens: int) -> Iterator[tuple[list[int], Sums]]:
    lengths = [len(prompt) + len(text) for prompt, text in rows]
    for places in batches(sorted(range(len(rows)), key=lengths.__getitem__), lengths, _PADDED, most_tokens):
        logits = completion_logits(model, [rows[i][0] for i in places], [rows[i][1] for i in places])
        sums = [_picked(z_TV, rows[i][1]) for i, z_TV in zip(places, logits, strict=True)]
        yield places, np.array(sums)


def _picked(z_TV: Tensor, text: Sequence[int]) -> float:
    logp_TV = z_TV.float().log_softmax(-1)
    return float(logp_TV[range(len(text)), list(text)].double().sum())
