"""Reads the output of a batch: its answers, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from synthgen.errors import TeacherError
from synthgen.generation.account import Account
from synthgen.generation.cache import Entry
from synthgen.generation.ledger import Spent
from synthgen.teachers.base import Reply
from synthgen.teachers.completion import completion, parsed
from synthgen.teachers.openai import INVALID, ApiModel, as_batched
from synthgen.teachers.refusals import refusal
from synthgen.teachers.server_errors import error_in
from synthgen.teachers.usage import BadReply, Bill, bill_of


class Output:
    """The answers and costs in the output of a batch.

    `answers` are the answers for the cache, as (key, entry). `spent` is the cost of all replies. `problem` is the
    reason to stop the run, or None.

    `entry` is the batch's entry in the journal. `expected` holds the maximum cost of each known request, by the
    request's key. This maximum assumes that the server counts tokens correctly.
    """

    def __init__(
        self, teacher: ApiModel, account: Account, entry: Mapping[str, Any], expected: Mapping[bytes, Spent]
    ) -> None:
        self.teacher, self.account, self.expected = teacher, account, expected
        self.reserved, self.requests = Spent(*entry["reserved"]), int(entry["requests"])
        self.excess = float(entry.get("excess", 1.0))
        self.answers: list[tuple[bytes, Entry]] = []
        self.spent = Spent()
        self.problem: TeacherError | None = None
        self._lines = 0

    def add(self, line: bytes) -> None:
        """Add the answer and the cost in one line of the output."""
        self._lines += 1
        key, response = _result(line)
        kept, paid = self._read(response)
        if paid is not None:
            self._pay(Reply(usage=paid.usage, bill=paid, batched=True), key)
        if kept is not None and key is not None:
            self.answers.append((key, kept))

    def end(self, status: str) -> None:
        """Finish the output of a batch that ended with `status`, after all its lines were added. In a completed
        batch, the provider may bill a request although the output has no line for it.
        """
        if status == "completed":
            self.spent += self._shares(max(0, self.requests - self._lines))
        problem = self.account.overspent(self.spent, self._shares(self.requests), self.excess)
        if problem is not None:
            self.problem = self.problem or self.account.uncounted(problem)

    def _pay(self, reply: Reply, key: bytes | None) -> None:
        known = self.expected.get(key or b"")
        most = self._shares(1) if known is None else known.times(self.excess)
        spent = self.account.spent(reply, most)
        self.spent += spent
        # A request without a known maximum may cost more than its equal share of the batch's maximum, so `end` checks
        # the cost of all requests together.
        unbounded = self.account.unbounded(reply, spent, spent if known is None else most, self.excess)
        self.problem = self.problem or unbounded

    def _shares(self, count: int) -> Spent:
        """The maximum cost of `count` unknown requests: each has an equal share of the batch's maximum cost."""
        usd, tokens = (-(-total // self.requests) for total in (self.reserved.usd, self.reserved.tokens))
        return Spent(count * usd, count * tokens)

    def _read(self, response: Mapping[str, Any]) -> tuple[Entry | None, Bill | None]:
        """Return (entry for the cache, bill) of a response. For an error that may be gone when the request is repeated,
        the entry is None, so that nothing is cached. The bill is None when nothing is billed.
        """
        status = response.get("status_code")
        if isinstance(status, str) and status.isdecimal():
            status = int(status)
        body = json.dumps(response.get("body") or {}, ensure_ascii=False).encode(errors="replace")
        if status == 200:
            return self._answer(response.get("body"), as_batched(body))
        if isinstance(status, int):
            problem = refusal(status, {}, body, self.teacher.clean)
            if not (problem.retry or problem.fatal):
                return Entry(None, (problem.kind, problem.reason)), None
        return None, None

    def _answer(self, value: object, body: bytes) -> tuple[Entry | None, Bill]:
        """The entry and the bill of a response with status 200. The answer itself is checked later, when it is read
        from the cache. An answer that proves to be a failure is therefore cached too.
        """
        paid: Bill | None = None
        try:
            if not isinstance(value, dict):
                raise BadReply("schema", "the body is not an object")
            paid = bill_of(value, self.teacher.section.extra.get("service_tier"), batched=True)
            paid = completion(value, paid).bill
        except BadReply as problem:
            known = Bill(None, None, None) if paid is None else paid
            return (None if problem.kind in INVALID else Entry(body)), known
        return (None if error_in(value) else Entry(body)), paid


def _result(line: bytes) -> tuple[bytes | None, Mapping[str, Any]]:
    """Return (key of the request, response) from a line of a batch's output. The key is None when the line is not
    valid. For a line that is not valid, the response has status 200, because the request may have been billed.
    """
    try:
        row = parsed(line)
        if isinstance(row, dict):
            response = row.get("response")
            return bytes.fromhex(row["custom_id"]), response if isinstance(response, dict) else {}
    except (ValueError, KeyError, TypeError):
        pass
    return None, {"status_code": 200}
