"""Separates an answer from the reasoning and the control tokens that a model or a server left in its text.

Reasoning models write their thoughts before the answer. Servers should return the thoughts in a separate field, but
often leave them in the text. In the text, the thoughts are between tags (`<think>…</think>`), or before a closing tag
alone because the chat template wrote the opening tag, or in the channels of OpenAI's harmony format. In the text,
servers also leave tokens that end a turn or name a role.

A tag is recognized only where models write it. A tag that a sentence mentions, in quotation marks, backticks or code,
is part of the answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Parts(NamedTuple):
    """The parts of a reply's text. `complete` is False when the text ends inside the reasoning, so there is no complete
    answer. `cut` tells whether control tokens were removed from the text.
    """

    answer: str
    reasoning: str | None
    complete: bool
    cut: bool = False


# Pairs of tags around reasoning, as regular expressions, with the models that write them.
_PAIRS = (
    (
        r"<(?:think|thinking|thought|thoughts|reasoning)(?:\s\w{1,40}=[^<>\n]{0,100})?>",
        r"</(?:think|thinking|thought|thoughts|reasoning)>",
    ),
    (r"<seed:think>", r"</seed:think>"),  # Seed-OSS
    (r"\[THINK\]", r"\[/THINK\]"),  # Magistral
    (r"◁think▷", r"◁/think▷"),  # Kimi
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # OpenThinker, Sky-T1
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command A
    (r"<unused94>(?:thought)?", r"<unused95>"),  # MedGemma
    (r"<\|channel>(?:thought\b)?", r"<channel\|>"),  # Gemma 4
)
_TAG = re.compile(
    rf"(?P<open>{'|'.join(opening for opening, _ in _PAIRS)})|(?P<close>{'|'.join(closing for _, closing in _PAIRS)})",
    re.IGNORECASE,
)
_SOLUTION = re.compile(
    r"\s*(?:<\|begin_of_solution\|>|<\|START_RESPONSE\|>)(.*?)(?:<\|end_of_solution\|>|<\|END_RESPONSE\|>|\Z)\s*",
    re.DOTALL,
)
# Models that announce the answer in words: Granite and Apriel.
_ANNOUNCED = re.compile(
    r"(?:\s*Here(?: is|'s) my thought process:(?P<thought>.*?)\n[ \t]{0,8}Here(?: is|'s) my response:"
    r"|(?P<steps>.*?)(?:\A|\n)\[BEGIN FINAL RESPONSE\])(?P<answer>.*?)(?:\[END FINAL RESPONSE\]|\Z)",
    re.DOTALL,
)
# Control tokens with which a model begins a tool call: Mistral, Llama, DeepSeek, Kimi, Granite, FunctionGemma.
_CALL = re.compile(
    r"^[ \t]{0,8}(?:\[TOOL_CALLS\]|<\|python_tag\|>|<｜tool▁calls?▁begin｜>|<\|tool_calls?(?:_section)?_begin\|>"
    r"|<\|tool_call\|>|<start_function_call>)",
    re.MULTILINE,
)
# Harmony, the format of gpt-oss: <|channel|>NAME<|message|>TEXT, up to the next control token.
_CHANNEL = re.compile(r"<\|channel\|>\s{0,4}(\w{1,40})\b[^<]{0,200}(?:<\|constrain\|>[^<]{0,200})?<\|message\|>")
_HARMONY_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_BARE_FINAL = re.compile(r"assistantfinal")
_BARE_OPEN = re.compile(r"\s*(?:analysis|commentary)(?=[A-Z])")
# Tokens that end a turn or begin the next one. Text after the first such token is not part of the answer.
_END = re.compile(
    r"(?P<sure><\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|return|END_OF_TURN_TOKEN|im_start|start_header_id)\|>"
    r"|<end_of_turn>|<start_of_turn>|<turn\|>|<\|turn>|<｜end▁of▁sentence｜>|<｜User｜>)"
    r"|<\|(?:end|eos|end_of_turn|eot|user|system|assistant)\|>|<eos>|</s>"
)
_ROLES = ("<|user|>", "<|system|>", "<|assistant|>")
_ROLE = re.compile(r"\s*(?:<\||<start_of_turn>|</?s>|<｜|\[INST\]|\Z)")
# The header of the assistant's turn, at the beginning of the text. The header may follow a copy of the prompt.
_HEADER = re.compile(
    r"\s*(?:(?:<s>|<bos>|<\|begin_of_text\|>|<\|startoftext\|>)\s*)*"
    r"(?:<\|im_start\|>\s*assistant\s*\n?|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>\s*"
    r"|(?:<start_of_turn>|<\|turn>)\s*(?:model|assistant)\s*\n?|<\|assistant\|>\s*|<\|start\|>\s*assistant\s*|<｜Assistant｜>"
    r"|(?:\[INST\].*?)?\[/INST\]\s*)?",
    re.DOTALL,
)
_QUOTES = "`'\"“‘«|"
_SENTENCE_ENDS = ".!?:;)]"
_FENCE = "```"
_NEAR = 1024  # number of characters before a tag that are searched
# Every pattern above needs one of these characters or words. Most texts contain none of these characters and words, so
# one search is enough for most texts.
_LIKELY = re.compile(
    r"[<◁]|\[/?(?:THINK|INST)\]|\[BEGIN FINAL|\A\s{0,9}(?:(?:analysis|commentary)[A-Z]|Here(?: is|'s) my thought)",
    re.IGNORECASE,
)


def split_reasoning(text: str) -> Parts:
    """Split the text of a reply into answer and reasoning. Control tokens are removed from both parts.

    A text without reasoning and without control tokens is returned unchanged. The time is linear in the text's length.
    """
    if not _LIKELY.search(text):
        return Parts(text, None, True)
    apart = _harmony(text) or _announced(text)
    if apart is not None:
        return apart
    header = _HEADER.match(text)
    struck = text.lstrip().startswith("<s>") and not text.rstrip().endswith("</s>") and "</s>" in text  # HTML
    body = text[header.end() :] if header and header.group().strip() and not struck else text
    cut = body is not text
    body, thoughts, complete = _without_blocks(body)
    end = _end_of_turn(body)
    if end is not None:
        body, cut = body[:end].rstrip(), True
    solution = _SOLUTION.fullmatch(body)
    if solution:
        body = solution.group(1).strip()
    reasoning = "\n\n".join(thought.strip() for thought in thoughts if thought.strip()) or None
    return Parts(body.strip() if thoughts else body, reasoning, complete, cut)


def holds_call(text: str) -> bool:
    """Whether a line of a reply, outside of code, begins with the control token of a tool call. The server did not read
    this call, and in training the token would be ordinary characters.
    """
    fences = counted = 0
    for call in _CALL.finditer(text) if "<" in text or "[TOOL" in text else ():
        fences += text.count(_FENCE, counted, call.start())
        counted = call.start()
        if fences % 2 == 0:
            return True
    return False


def _end_of_turn(text: str) -> int | None:
    """The place of the first token that ends the turn, or None. A token in a code fence or in quotation marks, or a
    token that a sentence mentions, does not end the turn.
    """
    fences = counted = 0
    for tag in _END.finditer(text):
        fences += text.count(_FENCE, counted, tag.start())
        counted = tag.start()
        if fences % 2 or not _is_control(text, tag):
            continue
        if tag.group() == "</s>" and text.find("<s>", max(0, tag.start() - _NEAR), tag.start()) >= 0:
            continue  # HTML for text that is struck through
        begins_turn = tag.group() in _ROLES and text.startswith("\n", tag.end())
        if tag["sure"] or begins_turn or _ROLE.match(text, tag.end()):
            return tag.start()
    return None


def _is_control(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag was written as a control token. A tag inside a sentence has a space or a quotation mark before it,
    and does not end its line.
    """
    before = text[tag.start() - 1 : tag.start()]
    if before and before in _QUOTES:
        return False
    if not before or not before.isspace() or before == "\n":
        return True
    return not text[tag.end() : tag.end() + 64].strip(" \t") or text[tag.end() : tag.end() + 1] in "\r\n<"


def _begins_line(text: str, place: int, since: int) -> bool:
    """Whether only white space stands before `place` on its line, or between `since` and `place`."""
    begin = max(since, place - _NEAR)
    return not text[begin:place].rpartition("\n")[2].strip()


def _without_blocks(text: str) -> tuple[str, list[str], bool]:
    """Return (text without its blocks of reasoning, the blocks, whether every block is closed).

    A closing tag without an opening tag means that the chat template opened the block. The text before the closing tag
    is then reasoning. Tags in code fences are part of the answer.
    """
    tags = list(_TAG.finditer(text))
    next_close: list[re.Match[str] | None] = [None] * (len(tags) + 1)
    for index in range(len(tags) - 1, -1, -1):
        next_close[index] = tags[index] if tags[index]["close"] else next_close[index + 1]
    kept: list[str] = []
    thoughts: list[str] = []
    place, begun, fences, counted = 0, False, 0, 0  # `kept` and `thoughts` hold the text up to `place`
    mentioned = 0  # number of opening tags that are part of the answer; their closing tags are part of it too
    for index, tag in enumerate(tags):
        if begun:
            if tag["close"] and text[tag.start() - 1] != "`":
                thoughts.append(text[place : tag.start()])
                place, begun, counted, fences, mentioned = tag.end(), False, tag.end(), 0, 0
            continue
        fences += text.count(_FENCE, counted, tag.start())
        counted = tag.start()
        if fences % 2:
            continue
        if tag["close"]:
            if mentioned:
                mentioned -= 1
            elif _closes(text, tag):
                thoughts.append("".join([*kept, text[place : tag.start()]]))
                kept, place, counted, fences = [], tag.end(), tag.end(), 0
            continue
        if _begins_line(text, tag.start(), place) or (next_close[index] is not None and _opens(text, tag)):
            kept.append(text[place : tag.start()])
            place, begun = tag.end(), True
        else:
            mentioned += 1
    (thoughts if begun else kept).append(text[place:])
    return "".join(kept), thoughts, not begun


def _opens(text: str, tag: re.Match[str]) -> bool:
    """Whether an opening tag in the middle of a line begins a block: the sentence before it has ended."""
    before = text[max(0, tag.start() - _NEAR) : tag.start()].rstrip()
    return before[-1:] in _SENTENCE_ENDS and text[tag.start() - 1] not in _QUOTES


def _closes(text: str, tag: re.Match[str]) -> bool:
    """Whether a closing tag without an opening tag ends a block: the tag follows other text directly, without a space,
    or stands alone on its line.
    """
    before = text[tag.start() - 1 : tag.start()]
    if before and not before.isspace():
        return before not in _QUOTES
    return _begins_line(text, tag.start(), 0) and not text[tag.end() : tag.end() + 64].partition("\n")[0].strip()


def _harmony(text: str) -> Parts | None:
    """Split a text in the harmony format. The channel `final` is the answer, and all other channels are reasoning. None
    when the text is not in this format.
    """
    channels = list(_CHANNEL.finditer(text))
    if channels:
        final: list[str] = []
        thoughts: list[str] = []
        for channel in channels:
            end = _HARMONY_END.search(text, channel.end())
            content = text[channel.end() : end.start() if end else len(text)].strip()
            (final if channel.group(1) == "final" else thoughts).append(content)
        reasoning = "\n\n".join(thought for thought in thoughts if thought) or None
        return Parts("\n\n".join(final), reasoning, bool(final))
    opening = _BARE_OPEN.match(text)
    if opening is None:
        return None
    # Some servers remove the control tokens and leave the names of channels in the text.
    finals = list(_BARE_FINAL.finditer(text, opening.end()))
    if not finals:
        return Parts("", text[opening.end() :].strip() or None, False)
    first = finals[0]
    return Parts(text[first.end() :].strip(), text[opening.end() : first.start()].strip() or None, True)


def _announced(text: str) -> Parts | None:
    """Split a text that announces its answer in words. None when the text does not."""
    if "[BEGIN FINAL RESPONSE]" not in text and "my response:" not in text:
        return None
    found = _ANNOUNCED.match(text)
    if found is None or text.count(_FENCE, 0, found.start("answer")) % 2:
        return None
    thought = (found["thought"] or found["steps"] or "").strip()
    return Parts(found["answer"].strip(), thought or None, True)
