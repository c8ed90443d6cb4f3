"""Converts a server's tokens to ids, and the distributions in an API reply to `logits.TopK`.

A server returns each token as text and as bytes. vLLM can also return a token as "token_id:N". For each position, the
server returns the sampled token, and the most probable tokens with their log-probabilities. The model's tokenizer maps
each token to an id. Two kinds of most probable tokens are left out: tokens that the tokenizer does not have, which are
counted, and tokens with log-probability -9999, which means "unknown". The probability of the tokens that are left out
becomes part of the tail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthgen.errors import TeacherError, missing_extra
from synthgen.logits import FLOOR, TopK
from synthgen.records import Message

_SENTINEL = -9998.0
_ID = "token_id:"
_LOST = "\ufffd"
_NO_TAIL = 1e-14  # the smallest tail probability that is stored


class UnknownToken(Exception):
    """Raised when a sampled token is not in the tokenizer's vocabulary, so that the row's token ids are unknown."""


class TokenMap:
    """Maps the texts and the bytes of tokens to ids. `hash` is a hash of the tokenizer. `size` is the tokenizer's
    largest id plus one.
    """

    def __init__(self, tokenizer: Any, digest: str) -> None:
        self.tokenizer = tokenizer
        self.hash = digest
        pieces = pieces_of(tokenizer)
        self.size = max(pieces.values()) + 1
        self.by_bytes: dict[bytes, int] = {}
        for piece, token in sorted(pieces.items(), key=lambda item: item[1]):
            self.by_bytes.setdefault(piece, token)
        self.pieces = {token: piece for piece, token in pieces.items()}
        special = (index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
        self._control = {*tokenizer.all_special_ids, *special}
        self.by_text: dict[str, int] = {}
        for piece, token in self.by_bytes.items():
            try:
                text = piece.decode()
            except UnicodeDecodeError:
                continue
            if _LOST not in text:  # servers also send this character for bytes that are not valid text
                self.by_text[text] = token

    @classmethod
    def open(cls, name: str) -> TokenMap:
        """Load the tokenizer from a hub id or folder. Raises TeacherError, or UserError that names a missing extra."""
        try:
            from transformers import AutoTokenizer

            from synthgen.lm.files import first_line, refuse_pipes
            from synthgen.lm.tokens import tokenizer_hash
        except ModuleNotFoundError as error:
            raise missing_extra(str(error.name), "train") from None
        refuse_pipes(name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except Exception as error:  # the hub client and tokenizers raise their own exceptions
            raise TeacherError(
                f"tokenizer '{name}' cannot be loaded: {first_line(error)}",
                "give a hub id or a folder in teacher.tokenizer",
            ) from None
        return cls(tokenizer, tokenizer_hash(tokenizer))

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt in the tokenizer's chat template. Empty when the tokenizer has no template."""
        if self.tokenizer.chat_template is None:
            return []
        from synthgen.lm.render import render

        return render(self.tokenizer, messages)

    def id(self, entry: Mapping[str, Any]) -> int:
        """The id of a token in an entry of the server's `logprobs`. -1 when the tokenizer does not have the token."""
        text = entry["token"]
        if text.startswith(_ID):
            number = text[len(_ID) :]
            if number.isdecimal():
                return int(number) if int(number) < self.size else -1
        if text in self.by_text:
            return self.by_text[text]
        return self.by_bytes.get(bytes(entry.get("bytes") or b""), -1)

    def topk(self, content: Sequence[Mapping[str, Any]], k: int, text: str) -> tuple[list[int], TopK, int]:
        """Convert `content`, the list `logprobs.content` of a reply. Returns (ids of the sampled tokens, the k most
        probable tokens at each position, number of probable tokens that were left out because the tokenizer does not
        have them).

        When a sampled token has no id, all ids are taken from tokenizing `text`, the reply's text. Raises UnknownToken
        when the result does not match the server's tokens.
        """
        sampled = [self.id(entry) for entry in content]
        if -1 in sampled:
            sampled = self._by_retokenizing(sampled, content, text)
        self._check_text(sampled, text)
        tops = [entry["top_logprobs"] for entry in content]
        lengths = np.array([len(top) for top in tops])
        place = np.arange(max(k, lengths.max(initial=0)))[None, :] < lengths[:, None]
        entries = [entry for top in tops for entry in top]
        find = self.by_text.get  # this dictionary has most tokens; the others are resolved one by one
        found = [find(entry["token"], -2) for entry in entries]
        if -2 in found:
            found = [self.id(entry) if i == -2 else i for i, entry in zip(found, entries, strict=True)]
        ids = np.full(place.shape, -1, np.int64)
        logprobs = np.full(place.shape, -np.inf, np.float32)
        ids[place], logprobs[place] = found, [entry["logprob"] for entry in entries]
        known = logprobs > _SENTINEL
        unmapped = int((known & (ids < 0)).sum())
        logprobs[ids < 0] = -np.inf
        logprobs[~known] = -np.inf
        order = np.argsort(-logprobs, axis=1, kind="stable")[:, :k]
        ids, logprobs = np.take_along_axis(ids, order, 1), np.take_along_axis(logprobs, order, 1)
        mass = np.exp(logprobs.astype(np.float64)).sum(1)
        tail = np.log(np.maximum(1.0 - mass, _NO_TAIL)).astype(np.float32)
        # Where a position has fewer than k tokens, the most probable id is repeated with zero probability.
        empty = ~np.isfinite(logprobs)
        ids = np.where(empty, np.maximum(ids[:, :1], 0), ids)
        logprobs = np.maximum(logprobs, np.float32(FLOOR))
        return sampled, TopK(ids.astype(np.int32), logprobs, tail, np.zeros(len(tops), np.float32)), unmapped

    def _check_text(self, sampled: Sequence[int], text: str) -> None:
        """Raise UnknownToken when the tokens do not spell the text. The last token may end the turn."""
        end = len(sampled)
        while end and sampled[end - 1] in self._control:
            end -= 1
        spelled = b"".join(self.pieces.get(token, b"") for token in sampled[:end]).decode(errors="replace")
        if spelled.rstrip(_LOST) == text.rstrip(_LOST):  # a limit of tokens may cut a character in half
            return
        if self.tokenizer.decode(list(sampled[:end]), clean_up_tokenization_spaces=False) == text:
            return
        raise UnknownToken(
            f"the tokens in logprobs spell {spelled[:60]!r}, but the answer is {text[:60]!r}: "
            "tokens are missing, or they include reasoning"
        )

    def _by_retokenizing(self, sampled: list[int], content: Sequence[Mapping[str, Any]], text: str) -> list[int]:
        from synthgen.lm.render import plain_ids

        ids = plain_ids(self.tokenizer, text)
        if len(ids) == len(sampled) and all(a in (-1, b) for a, b in zip(sampled, ids, strict=True)):
            return ids
        token = content[sampled.index(-1)]["token"]
        raise UnknownToken(f"the tokenizer has no token {token!r}")


def pieces_of(tokenizer: Any) -> dict[bytes, int]:
    """A dictionary from the bytes of every token to the token's id. Vocabularies of byte-level tokenizers write each
    byte as one character. Other vocabularies write a space as ▁.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    byte_level = '"ByteLevel"' in json.dumps([backend.get("decoder"), backend.get("pre_tokenizer")])
    letters = {letter: byte for byte, letter in _byte_letters().items()}
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    found: dict[bytes, int] = {}
    for piece, index in tokenizer.get_vocab().items():
        if piece in added:
            found[piece.encode()] = index
        elif byte_level:
            if all(letter in letters for letter in piece):
                found[bytes(letters[letter] for letter in piece)] = index
        elif len(piece) == 6 and piece.startswith("<0x"):
            found.setdefault(bytes([int(piece[3:5], 16)]), index)
        else:
            found[piece.replace("▁", " ").encode()] = index
    return found


def _byte_letters() -> dict[int, str]:
    """GPT-2's byte alphabet: the character for each byte. A printable byte is the character with the same code. The
    other bytes are the characters with codes from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for number, byte in enumerate(b for b in range(256) if b not in letters):
        letters[byte] = chr(256 + number)
    return letters
