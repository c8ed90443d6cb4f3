"""Maps the finish reasons of all servers to the closed set `records.FINISH_REASONS`."""

from __future__ import annotations

ERROR = "error"
"""The result of `finish_reason` for a reply that the server broke off. Another attempt may succeed."""

# Finish reasons in lower case, and what they mean.
_ENDS = {
    **dict.fromkeys(
        (
            "stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "end", "done", "finish",
            "finished", "endoftext", "end_of_text", "normal",
        ),
        "stop",
    ),
    **dict.fromkeys(
        (
            "length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "model_length", "token_limit",
            "model_context_window_exceeded", "context_length_exceeded", "incomplete", "pause_turn", "repetition",
            "not_finished",
        ),
        "length",
    ),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(
        (
            "content_filter", "content_filtered", "contentfilter", "filtered", "safety", "recitation", "language",
            "blocklist", "prohibited_content", "spii", "image_safety", "guardrail_intervened", "guardrails",
            "error_toxic", "sensitive", "moderation", "blacklist",
        ),
        "content_filter",
    ),
    **dict.fromkeys(("refusal", "refused"), "refusal"),
    **dict.fromkeys(
        (
            "error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource", "time_limit",
            "timeout", "network_error", "server_error", "internal_error", "overloaded", "malformed_function_call",
            "unexpected_tool_call", "load", "unload",
        ),
        ERROR,
    ),
}  # fmt: skip
_SEVERITY = ("stop", "tool_calls", "unknown", "length", "refusal", "content_filter", ERROR)


def finish_reason(value: object, native: object = None) -> str:
    """One of `records.FINISH_REASONS`, or `ERROR`. `value` is the server's finish reason.

    `native` is the reason of the provider behind a gateway, if the gateway reports it. Some gateways map the provider's
    reason wrongly to "stop", above all a reason that they do not know. Therefore the worse of the two reasons is
    returned, and an unknown native reason is worse than "stop".
    """
    reason = _mapped(value)
    return reason if native is None or native == "" else max(reason, _mapped(native), key=_SEVERITY.index)


def _mapped(value: object) -> str:
    if isinstance(value, dict):  # SGLang: {"type": "length", "length": 16}
        value = value.get("type")
    if not isinstance(value, str):
        return "unknown"
    if value in _ENDS:  # the usual case
        return _ENDS[value]
    # Some servers add details: "content_filter: RECITATION". The details may be worse than the reason itself.
    name, _, details = value.partition(":")
    parts = [_ENDS.get(_plain(part), "unknown") for part in (name, details) if part.strip()]
    return max(parts, key=_SEVERITY.index, default="unknown")


def _plain(name: str) -> str:
    name = name.strip().lower().replace("-", "_").replace(" ", "_")
    return name.removeprefix("finish_reason_").removeprefix("finishreason.").removeprefix("stop_reason_")
