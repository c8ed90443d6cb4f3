"""A server of chat completions for tests and benchmarks, in a separate process, with the standard library only.

    python tests/support/server.py '{"latency": 0.2}'        prints its port and serves until stdin closes

Without `answers`, the answer to a request depends only on the request's body. Faults depend on the body and on how
often the server has seen this body. `faults` maps a kind of fault to a probability. `script` is a list of [text, [kind,
kind, …]]. If the body of a request contains the text of an entry, the request gets the faults of this entry one after
the other, and then always the last fault. GET /control/stats returns counts of requests, of billed tokens and of
refusals.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import hashlib
import json
import math
import random
import sys
import time
from collections import Counter
from typing import Any

WORDS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "red",
    "blue",
    "green",
    "river",
    "stone",
    "cloud",
    "bread",
    "lamp",
]
DEFAULTS: dict[str, Any] = {
    "latency": 0.0,
    "jitter": 0.0,
    "faults": {},
    "script": [],
    "seed": 0,
    "rpm": None,
    "tpm": None,
    "burst": 1.0,  # a burst may use this many seconds of the rate limit
    "prices": [0.15, 0.60],  # dollars per million tokens of prompts and of completions
    "tokens": 8,  # number of tokens of an answer
    "vocab": None,  # [[id, text], …]: the tokens of answers and logprobs
    "vllm": False,
    "sentinel": False,
    "reasoning": None,  # name of the field that holds the reasoning
    "usage": True,
    "key": None,
    "huge": 10_000_000,
    "labels": [],
    "dead_after": None,  # number of requests after which all connections are refused
    "batch": {},
    "answers": {},  # question → its replies in turn, then always the last. A reply is a text or {"body": …}
}


class Server:
    """The state of the server, and its answers."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.c = {**DEFAULTS, **config}
        self.seen: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.pico = 0  # 1e-12 dollars
        self.tokens = 0
        self.in_flight = self.most_in_flight = self.as_ids = 0
        self.accepted: list[tuple[float, int]] = []
        self.levels: dict[str, tuple[float, float]] = {}
        self.in_price, self.out_price = (round(p * 1e6) for p in self.c["prices"])
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.uploads = 0
        self.first = self.last = 0.0
        self.times: dict[str, list[float]] = {}
        self.bodies: dict[str, Any] = {}

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                method, path, _ = first.split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self.answer(method, path.partition("?")[0], headers, body, writer):
                    break
        writer.close()

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes, writer: Any) -> bool:
        """Writes one response. Returns False to end the connection."""
        if path == "/control/stats":
            return self.send(writer, 200, self.stats())
        if path == "/control/set":
            self.c.update(json.loads(body))
            if self.c.pop("reset", False):
                self.__init__(self.c)  # type: ignore[misc]
            return self.send(writer, 200, {})
        if self.c["dead_after"] is not None and sum(self.seen.values()) > self.c["dead_after"]:
            writer.transport.abort()
            return False
        if self.c["key"] and headers.get("authorization") != f"Bearer {self.c['key']}":
            self.statuses["401"] += 1
            # Some real servers repeat the key in their error message.
            return self.send(writer, 401, error(f"Incorrect API key provided: {headers.get('authorization')}"))
        if path == "/v1/models":
            return self.send(writer, 200, {"data": [{"id": "m", "owned_by": "vllm" if self.c["vllm"] else "openai"}]})
        if path.startswith(("/v1/files", "/v1/batches")):
            return self.send(writer, *self.batch_api(method, path, headers, body))
        if path != "/v1/chat/completions":
            return self.send(writer, 404, error("no such path"))
        self.first = self.first or time.monotonic()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self.chat(body, writer)
        finally:
            self.in_flight -= 1
            self.last = time.monotonic()

    async def chat(self, body: bytes, writer: Any) -> bool:
        asked = json.loads(body)
        self.as_ids += bool(asked.pop("return_tokens_as_token_ids", False))
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        reply = self.reply(asked, key)
        refused = self.over_quota(reply["usage"]["total_tokens"])
        if refused is not None:
            self.statuses["429 quota"] += 1
            return self.send(writer, 429, error("rate limit"), {"Retry-After": str(max(1, round(refused)))})
        self.seen[key] += 1
        self.times.setdefault(key, []).append(time.monotonic())
        if len(self.bodies) < 100:
            self.bodies.setdefault(key, asked)
        if self.c["dead_after"] is not None and sum(self.seen.values()) > self.c["dead_after"]:
            writer.transport.abort()
            return False
        kind = self.fault(body.decode(), key)
        self.statuses[kind] += 1
        canned = self.canned(asked, self.seen[key])
        if canned is not None:
            return self.answer_canned(canned, reply, key, writer)
        wait = self.c["latency"] + random.random() * self.c["jitter"]
        if wait:
            await asyncio.sleep(wait)
        return await self.act(kind, reply, key, writer)

    def canned(self, asked: dict[str, Any], times: int) -> Any:
        """The prepared reply to the last message of a request, or None."""
        steps = self.c["answers"].get(str(asked["messages"][-1]["content"]).strip())
        return steps[min(times - 1, len(steps) - 1)] if steps else None

    def answer_canned(self, canned: Any, reply: dict[str, Any], key: str, writer: Any) -> bool:
        self.paid[key] += 1
        if isinstance(canned, str):
            reply["choices"][0]["message"]["content"] = canned
            canned = {"body": reply}
        body = canned["body"]
        return self.send(writer, canned.get("status", 200), body.encode() if isinstance(body, str) else body)

    async def act(  # noqa: C901
        self, kind: str, reply: dict[str, Any], key: str, writer: Any
    ) -> bool:
        name, _, value = kind.partition(":")
        if name == "429":
            after = {"Retry-After": value} if value else {}
            if value == "date":
                after = {"Retry-After": email.utils.formatdate(time.time() + 1.5, usegmt=True)}
            return self.send(writer, 429, error("slow down"), after)
        if name == "quota":
            return self.send(writer, 429, error("You exceeded your current quota", "insufficient_quota"))
        if name in ("500", "502", "503"):
            return self.send(writer, int(name), error("broken"), {"Retry-After": value} if value else {})
        if name == "400":
            return self.send(writer, 400, error("this message cannot be processed"))
        if name == "context":
            return self.send(writer, 400, error("maximum context length is 10 tokens", "context_length_exceeded"))
        if name == "filter400":
            return self.send(writer, 400, error("filtered", "content_filter"))
        # From here on the request is billed, because the model has done its work. The answer may still get lost.
        usage = reply["usage"]
        self.paid[key] += 1
        self.tokens += usage["total_tokens"]
        self.pico += usage["prompt_tokens"] * self.in_price + usage["completion_tokens"] * self.out_price
        if not self.c["usage"]:
            del reply["usage"]
        if name == "timeout":
            await asyncio.sleep(3600)
        choice = reply["choices"][0]
        if name == "length":
            choice["finish_reason"] = "length"
        elif name == "filter":
            choice["finish_reason"] = "content_filter"
            choice["message"]["content"] = ""
        elif name == "emptychoices":
            reply["choices"] = []
        elif name == "emptytext":
            choice["message"]["content"] = ""
        elif name == "wrongschema":
            reply = {"answer": "fourty-two", "usage": usage}
        elif name == "huge":
            choice["message"]["content"] = "x" * self.c["huge"]
        text = json.dumps(reply).encode()
        if name == "reset":
            writer.transport.abort()
            return False
        if name == "half":
            writer.write(head(200, len(text)) + text[: len(text) // 2])
            await writer.drain()
            return False
        if name == "badjson":
            text = text[:-7]
        writer.write(head(200, len(text)) + text)
        await writer.drain()
        return True

    def fault(self, text: str, key: str) -> str:
        for match, steps in self.c["script"]:
            if match in text:
                return str(steps[min(self.seen[key] - 1, len(steps) - 1)])
        draw = random.Random(f"{self.c['seed']} {key} {self.seen[key]}").random()
        for kind, share in self.c["faults"].items():
            draw -= share
            if draw < 0:
                return str(kind)
        return "ok"

    def over_quota(self, tokens: int) -> float | None:
        """The seconds to wait if the quota is used up. If the quota suffices, charges the request and returns None."""
        now = time.monotonic()
        needs = [(name, self.c[name], need) for name, need in (("rpm", 1), ("tpm", tokens)) if self.c[name]]
        for name, limit, need in needs:
            rate = limit / 60
            level, then = self.levels.get(name, (rate * self.c["burst"], now))
            level = min(rate * self.c["burst"], level + (now - then) * rate)
            self.levels[name] = (level, now)
            if level < need and level < rate * self.c["burst"] - 1e-9:
                return (need - level) / rate
        for name, _, need in needs:
            self.levels[name] = (self.levels[name][0] - need, now)
        self.accepted.append((now, tokens))
        return None

    def reply(self, asked: dict[str, Any], key: str) -> dict[str, Any]:
        """A chat completion that depends only on the request."""
        draw = random.Random(key)
        limit = asked.get("max_tokens") or asked.get("max_completion_tokens") or 16
        count = min(limit, self.c["tokens"])
        vocab = self.c["vocab"]
        top: list[list[tuple[int, str, float]]] = []
        if vocab:
            k = asked.get("top_logprobs") or 1
            for _ in range(count):
                chosen = draw.sample(vocab, k)
                weights = sorted((draw.random() ** 4 for _ in range(k)), reverse=True)
                rest = draw.random()  # the probability of all tokens that are not listed
                scores = [math.log(max(w, 1e-9) / sum(weights) * (1 - rest)) for w in weights]
                top.append([(i, t, s) for (i, t), s in zip(chosen, scores, strict=True)])
            text = "".join(entries[0][1] for entries in top)
        elif self.c["labels"]:
            text = draw.choice(self.c["labels"])
        else:
            text = " ".join(draw.choice(WORDS) for _ in range(count))
        if asked.get("response_format"):
            text = json.dumps({"answer": text})
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self.c["reasoning"]:
            message[self.c["reasoning"]] = "I thought about it."
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        if asked.get("logprobs") and top:
            choice["logprobs"] = {"content": [self.logprob(entries) for entries in top]}
        prompt_tokens = len(json.dumps(asked["messages"])) // 4 + 3
        return {
            "id": f"chatcmpl-{key[:12]}",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [choice],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": count,
                "total_tokens": prompt_tokens + count,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 5 if self.c["reasoning"] else 0},
            },
        }

    def logprob(self, entries: list[tuple[int, str, float]]) -> dict[str, Any]:
        def as_json(i: int, text: str, score: float) -> dict[str, Any]:
            token = f"token_id:{i}" if self.c["vllm"] else text
            return {"token": token, "logprob": score, "bytes": list(text.encode())}

        top = [as_json(*entry) for entry in entries]
        if self.c["sentinel"]:
            top[-1]["logprob"] = -9999.0
        return {**top[0], "top_logprobs": top}

    def send(self, writer: Any, status: int, value: Any, headers: dict[str, str] | None = None) -> bool:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        writer.write(head(status, len(body), headers) + body)
        return True

    def stats(self) -> dict[str, Any]:
        return {
            "requests": sum(self.seen.values()),
            "bodies": len(self.seen),
            "paid": sum(self.paid.values()),
            "paid_bodies": len(self.paid),
            "paid_twice": sum(n - 1 for n in self.paid.values()),
            "usd_pico": self.pico,
            "tokens": self.tokens,
            "most_in_flight": self.most_in_flight,
            "in_flight": self.in_flight,
            "as_ids": self.as_ids,
            "statuses": dict(self.statuses),
            "accepted": self.accepted if self.c["rpm"] or self.c["tpm"] else [],
            "seen": dict(self.seen),
            "bodies_text": list(self.bodies.values()),
            "batches": {name: b["public"]["status"] for name, b in self.batches.items()},
            "uploads": self.uploads,
            "seconds": self.last - self.first,
            "again_after": [times[1] - times[0] for times in self.times.values() if len(times) > 1],
        }

    def batch_api(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Answers /v1/files and /v1/batches.

        The configuration `batch` is {"polls": number of polls before the batch ends, "answered": share of requests that
        get an answer, "status": status at the end, "changes": [[number, values], …], "renamed": whether replies have
        other names than their requests}. Each batch takes the next entry of `changes`; when no entry is left, batches
        take the last entry again. The first `number` replies of the batch get the values of this entry.
        """
        parts = path.strip("/").split("/")[1:]
        if parts[0] == "files" and method == "POST":
            boundary = headers["content-type"].split("boundary=")[1].encode()
            name = f"file-{len(self.files)}"
            for part in body.split(b"--" + boundary):
                if b'name="file"' in part:
                    self.files[name] = part.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n", 1)[0]
            self.uploads += 1
            return 200, {"id": name, "object": "file", "bytes": 0, "created_at": 1, "filename": "f", "purpose": "batch"}
        if parts[0] == "files":
            return 200, self.files[parts[1]]
        if method == "POST" and len(parts) == 1:
            asked = json.loads(body)
            name = f"batch-{len(self.batches)}"
            public = {
                "id": name,
                "object": "batch",
                "endpoint": "/v1/chat/completions",
                "status": "validating",
                "input_file_id": asked["input_file_id"],
                "completion_window": "24h",
                "created_at": 1,
                "metadata": asked.get("metadata"),
            }
            self.batches[name] = {"public": public, "polls": 0}
            return 200, public
        if method == "GET" and len(parts) == 1:
            return 200, {"object": "list", "data": [b["public"] for b in self.batches.values()], "has_more": False}
        batch = self.batches[parts[1]]
        batch["polls"] += 1
        if batch["polls"] > self.c["batch"].get("polls", 1) and batch["public"]["status"] in (
            "validating",
            "in_progress",
        ):
            self.finish_batch(batch["public"])
        elif batch["public"]["status"] == "validating":
            batch["public"]["status"] = "in_progress"
        return 200, batch["public"]

    def finish_batch(self, public: dict[str, Any]) -> None:
        rule = self.c["batch"]
        lines = self.files[public["input_file_id"]].decode().splitlines()
        draw = random.Random(public["id"])
        good, bad = [], []
        steps = rule.get("changes") or [[0, {}]]
        count, changes = steps[min(int(public["id"].split("-")[1]), len(steps) - 1)]
        for line in lines:
            row = json.loads(line)
            key = hashlib.sha256(json.dumps(row["body"], sort_keys=True).encode()).hexdigest()
            if draw.random() >= rule.get("answered", 1.0):
                continue
            self.seen[key] += 1
            if any(match in line for match, _ in self.c["script"]):
                bad.append({"custom_id": row["custom_id"], "response": {"status_code": 400, "body": error("no")}})
                continue
            reply = self.reply(row["body"], key)
            self.paid[key] += 1
            if len(good) < count:
                reply |= changes
            canned = self.canned(row["body"], self.seen[key])
            if isinstance(canned, dict):
                good.append({"custom_id": row["custom_id"], "response": {"status_code": 200, **canned}})
                continue
            if rule.get("renamed"):
                row["custom_id"] = row["custom_id"][::-1]
            usage = self.reply(row["body"], key)["usage"]  # the true one
            self.tokens += usage["total_tokens"]
            self.pico += usage["prompt_tokens"] * self.in_price + usage["completion_tokens"] * self.out_price
            good.append({"custom_id": row["custom_id"], "response": {"status_code": 200, "body": reply}, "error": None})
        draw.shuffle(good)
        for field, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                name = f"file-{len(self.files)}"
                self.files[name] = "".join(json.dumps(row) + "\n" for row in rows).encode()
                public[field] = name
        public["status"] = rule.get("status", "completed")


def error(message: str, code: str | None = None) -> dict[str, Any]:
    """The JSON body of an error."""
    return {"error": {"message": message, "type": "error", "code": code, "param": None}}


def head(status: int, length: int, headers: dict[str, str] | None = None) -> bytes:
    """The status line and headers of a response."""
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {length}"]
    lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def main(config: dict[str, Any]) -> None:
    server = Server(config)
    listening = await asyncio.start_server(server.connection, "127.0.0.1", config.get("port", 0), limit=1 << 26)
    print(listening.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # stdin closes when the parent ends
    await ended


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}))
