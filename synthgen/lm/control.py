"""Keeps control tokens out of texts: when a text contains `<|im_end|>`, its characters are tokenized as ordinary text.

Wherever the text of a special token occurs, a tokenizer converts it to this token. In a prompt, only the chat template
may write special tokens. If messages could write control tokens too, a seed could end its own turn and begin another
turn, and a student would learn an end token in the middle of an answer.

A text without the characters of a special token is tokenized as usual. A text with such characters is tokenized by a
copy of the tokenizer, in which every special token has a random name that occurs in no text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.records import Message


@dataclass(frozen=True)
class Control:
    """The special tokens of one tokenizer. `ids` are the ids of these tokens. `names` maps the text of each special
    token to a random name. `marks` maps the same text to a random word, which replaces the text in a message while the
    chat template is rendered. All marks begin with `word`. `backend` is the tokenizer without transformers, or None
    when there is none.
    """

    backend: Tokenizer | None
    ids: frozenset[int]
    names: dict[str, str]
    marks: dict[str, str]
    word: str

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _any_of(self.names)

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        return frozenset(text[:2] for text in self.names)

    @cached_property
    def _copy(self) -> Tokenizer | None:
        return None if self.backend is None else _renamed(self.backend, self.names)

    def has(self, text: str) -> bool:
        """Whether a text holds the characters of a special token."""
        return any(start in text for start in self._beginnings) and self._pattern.search(text) is not None

    def in_messages(self, messages: Sequence[Message]) -> bool:
        """Whether a part of one of the messages holds the characters of a special token."""
        return any(isinstance(part, str) and self.has(part) for message in messages for part in message.values())

    def in_conversation(self, messages: Sequence[Message], tools: str | None) -> bool:
        """Whether a part of one of the messages, or the JSON text `tools`, holds the characters of a special token."""
        return self.in_messages(messages) or (tools is not None and self.has(tools))

    def hidden_text(self, text: str | None) -> str | None:
        """A copy of `text` in which the characters of each special token are replaced by the token's mark."""
        return None if text is None else str(self._marked(text))

    def hidden(self, messages: Sequence[Message]) -> list[Message]:
        """A copy of the messages in which the characters of each special token are replaced by the token's mark."""
        return [{key: self._marked(part) for key, part in message.items()} for message in messages]  # type: ignore[misc]

    def _marked(self, part: object) -> object:
        return self._pattern.sub(lambda found: self.marks[found[0]], part) if isinstance(part, str) else part

    def rendered_ids(self, text: str) -> list[int]:
        """Token ids of a rendered chat template. The marks in the rendered text become the characters of special
        tokens.
        """
        named = self._pattern.sub(lambda found: self.names[found[0]], text)
        back = {mark: token for token, mark in self.marks.items()}
        whole = _any_of(back).sub(lambda found: back[found[0]], named)
        if self.word in whole.lower():
            raise TeacherError("the chat template changes the characters of a message", "name another model")
        return self._encoded(whole, specials=False)

    def text_ids(self, text: str, *, specials: bool = False, most: int | None = None) -> list[int]:
        """Token ids of a text in which the characters of special tokens are ordinary characters. With `specials`, the
        tokenizer's own special tokens are put around the text. `most` is the maximum number of ids.
        """
        return self._encoded(text, specials, most)

    def _encoded(self, text: str, specials: bool, most: int | None = None) -> list[int]:
        if self._copy is None:
            raise TeacherError(
                "a text holds the characters of a control token, and this tokenizer cannot read them as characters",
                "use a model with a fast tokenizer (tokenizer.json), or leave out such texts",
            )
        encoding = self._copy.encode(text, add_special_tokens=False)
        if specials:
            if most is not None:
                encoding.truncate(most - self._copy.num_special_tokens_to_add(is_pair=False))
            encoding = self._copy.post_process(encoding, None, True)
        return list(encoding.ids)


_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, Control] = WeakKeyDictionary()


def control_of(tokenizer: PreTrainedTokenizerBase) -> Control:
    """The special tokens of a tokenizer. The id of the unknown token is left out, because any text may become this
    token.
    """
    known = _KNOWN.get(tokenizer)
    if known is None:
        added = {place: token for place, token in tokenizer.added_tokens_decoder.items() if token.special}
        texts = {token.content for token in added.values()} | set(tokenizer.all_special_tokens)
        ids = frozenset([*added, *tokenizer.all_special_ids]) - {tokenizer.unk_token_id}
        secret, word = secrets.token_hex(8), f"m{secrets.token_hex(8)}"
        ordered = sorted(texts - {""})
        names = {text: f"\U000f0000{secret}n{n}\U000f0001" for n, text in enumerate(ordered)}
        marks = {text: f"{word}x{n}m" for n, text in enumerate(ordered)}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        known = _KNOWN[tokenizer] = Control(backend, ids, names, marks, word)
    return known


def _renamed(backend: Tokenizer, names: dict[str, str]) -> Tokenizer | None:
    """A copy of the tokenizer whose special tokens have other names. None when the copy does not read these names
    correctly.
    """
    body = json.loads(backend.to_str())
    for token in body["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    _rename_pieces(body["model"], lambda piece: names.get(piece, piece))
    copy = Tokenizer.from_str(json.dumps(body))
    copy.no_truncation()
    copy.no_padding()
    for text, name in names.items():
        if list(copy.encode(name, add_special_tokens=False).ids) != [backend.token_to_id(text)]:
            return None
    return copy


def _rename_pieces(model: dict[str, Any], rename: Callable[[str], str]) -> None:
    """Rename the special tokens among the pieces of a vocabulary, so that no text is split into such a piece."""
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        model["vocab"] = {rename(piece): place for piece, place in vocab.items()}
    elif isinstance(vocab, list):
        model["vocab"] = [[rename(piece), score] for piece, score in vocab]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = rename(model["unk_token"])


def _any_of(texts: dict[str, str]) -> re.Pattern[str]:
    """A pattern that finds each of the texts, the longest first. The pattern finds nothing when there are no texts."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
