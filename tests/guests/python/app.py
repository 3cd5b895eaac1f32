"""The guest that the integration tests script, in Python: `guest-script` once more, on top of the Python SDK.

An event lists steps, the reply their results. The hooks run scripts as well, from the environment variables
`INITIALIZER`, `PRE_FREEZE` and `PRE_STOP`, and report to standard output and to `HOOK_URL` if that is set.
"""

import asyncio
import datetime
import hashlib
import json
import logging
import os
import random
import sqlite3
import sys
import time

import dormouse
import wit_world

random.random()  # Drawn at the build: no instance may go on from there.

_MB = 1 << 20


class State:
    """What the instance remembers between its calls."""

    def __init__(self) -> None:
        self.requests = self.freezes = self.counted = self.ticks = self.in_flight = self.max_in_flight = 0
        self.awake_since: float | None = None  # When the first request since the last freeze began.
        self.calls: list[str] = []
        self.kept: list[bytes] = []

    def enter(self, request_id: str) -> None:
        self.requests += 1
        if self.awake_since is None:
            self.awake_since = time.monotonic()
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self.calls.append(f"handler:{request_id}")

    def summary(self) -> dict:
        """Goes with every reply."""
        return {
            "requests": self.requests,
            "freezes": self.freezes,
            "count": self.counted,
            "ticks": self.ticks,
            "inFlight": self.in_flight,
            "maxInFlight": self.max_in_flight,
            "keptMb": sum(map(len, self.kept)) // _MB,
        }


state = State()


async def initializer(ctx: dormouse.Context) -> None:
    state.calls.append("initializer")
    print(f"initializer {ctx.request_id}")
    await report("initializer", ctx)
    await run(script_of("INITIALIZER"), ctx)


async def handler(ctx: dormouse.Context, event: bytes) -> bytes:
    script = parsed(event)
    state.enter(ctx.request_id)
    try:
        results = await run(script, ctx)
        for step in reversed(script):
            if isinstance(step, dict) and "reply-bytes" in step:
                return b"x" * step["reply-bytes"]
        return json.dumps({"results": results, "state": state.summary()}).encode()
    finally:
        state.in_flight -= 1


async def pre_freeze(ctx: dormouse.Context) -> None:
    state.freezes += 1
    state.calls.append(f"pre-freeze:{ctx.request_id}")
    print(f"pre-freeze {ctx.request_id} freezes={state.freezes}")
    await hook("pre-freeze", "PRE_FREEZE", ctx)
    state.awake_since = None


async def pre_stop(ctx: dormouse.Context) -> None:
    state.calls.append(f"pre-stop:{ctx.request_id}")
    print(f"pre-stop {ctx.request_id} requests={state.requests}")
    await hook("pre-stop", "PRE_STOP", ctx)


async def hook(name: str, variable: str, ctx: dormouse.Context) -> None:
    """Reports, then runs the hook's script. A hook has nobody to answer to, so a failure goes to standard error."""
    await report(name, ctx)
    try:
        await run(script_of(variable), ctx)
    except Exception as error:
        print(f"{name} failed: {error}", file=sys.stderr)


async def report(name: str, ctx: dormouse.Context) -> None:
    """Tells `HOOK_URL`, if set, that a hook was called. Whether anybody listens is not the hook's concern."""
    if url := os.environ.get("HOOK_URL"):
        told = json.dumps({"hook": name, "instance": ctx.instance_id, "requests": state.requests})
        sent = await send("POST", url, told)
        if "error" in sent:
            print(f"{name} could not report: {sent['error']}", file=sys.stderr)


def script_of(variable: str) -> list:
    """The script in an environment variable; without one, nothing to do."""
    text = os.environ.get(variable)
    return parsed(text) if text else []


def parsed(text: bytes | str) -> list:
    """The steps of a script, all of them known."""
    script = json.loads(text)
    if not isinstance(script, dict) or script.keys() != {"do"}:
        raise ValueError('expected a script such as {"do": ["count"]}')
    for step in script["do"]:
        if not isinstance(step, str) and not (isinstance(step, dict) and len(step) == 1):
            raise ValueError(f"{step!r} is no step")
        if name_of(step) not in STEPS:
            raise ValueError(f"unknown step `{name_of(step)}`")
    return script["do"]


def name_of(step: str | dict) -> str:
    return step if isinstance(step, str) else next(iter(step))


async def run(script: list, ctx: dormouse.Context) -> list:
    """Takes the steps in order. The first one that fails ends the script."""
    results = []
    for step in script:
        argument = () if isinstance(step, str) else next(iter(step.values()))
        arguments = argument if isinstance(argument, (list, tuple)) else [argument]
        result = STEPS[name_of(step)](*arguments) if step != "context" else context(ctx)
        results.append(await result if asyncio.iscoroutine(result) else result)
    return results


# Time and computing.


def spin_until(end: float) -> None:
    while time.monotonic() < end:
        work(100)


def spin_forever() -> None:
    while True:
        work(100)


def work(iterations: int) -> int:
    """Each iteration depends on the one before. The numbers are those of 64 bits."""
    mask = (1 << 64) - 1
    total = 0x9E37_79B9_7F4A_7C15
    for step in range(iterations):
        total = ((total ^ step) * 0x0100_0000_01B3) & mask
        total = ((total << 23) | (total >> 41)) & mask
    return total


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


# Room.


def grow(mb: int) -> None:
    try:
        state.kept.append(b"\1" * (mb * _MB))
    except MemoryError:
        # Python would go on; the tests want to see what the host makes of a guest that cannot.
        os.abort()


def grow_forever() -> None:
    while True:
        grow(1)


def recurse_forever() -> None:
    # Python's own calls take no stack of the machine. Those of C's functions that call themselves do.
    sys.setrecursionlimit(1 << 30)
    nested: list = []
    while True:
        for _ in range(1000):
            nested = [nested]
        repr(nested)


def open_handles_forever() -> None:
    kept = []
    while True:
        kept.append(wit_world.byte_stream())


# Ends.


def fail(text: str) -> None:
    raise RuntimeError(text)


def panic() -> None:
    print("the script says so", file=sys.stderr)
    os.abort()


# The world outside.


def print_forever() -> None:
    # Many to a line: else a slow host takes lines for ever, because they come slower than the log takes them.
    line = "All work and no sleep makes a dull dormouse. " * 100
    while True:
        print(line)


async def send(method: str, url: str, body: str, timeout: float | None = None) -> dict:
    try:
        response = await dormouse.fetch(url, method=method, body=body, timeout=timeout)
    except (dormouse.FetchError, ValueError) as error:
        return {"error": str(error)}
    return {"status": response.status, "body": response.body.decode(errors="replace")}


def read_file() -> str:
    try:
        with open("/etc/passwd", "rb") as file:
            return f"read {len(file.read())} bytes"
    except OSError as error:
        return str(error)


def context(ctx: dormouse.Context) -> dict:
    return {
        "requestId": ctx.request_id,
        "function": ctx.function,
        "version": ctx.version,
        "instanceId": ctx.instance_id,
        "memoryMb": ctx.memory_mb,
        "deadlineMs": round(ctx.deadline * 1000),
        "remainingMs": int(ctx.remaining() * 1000),
        "attempt": ctx.attempt,
        "traceparent": ctx.traceparent,
    }


def libraries() -> dict:
    """What comes of parts of the standard library that functions use."""
    logging.getLogger("libraries").warning("a line of logging")
    database = sqlite3.connect(":memory:")
    database.execute("create table mice (name text)")
    database.executemany("insert into mice values (?)", [("dormouse",), ("harvest mouse",)])
    return {
        "hashlib": hashlib.sha256(b"dormouse").hexdigest(),
        "datetime": datetime.datetime.fromtimestamp(0, datetime.UTC).isoformat(),
        "sqlite3": database.execute("select count(*) from mice").fetchone()[0],
    }


# What the instance remembers.


def count() -> int:
    state.counted += 1
    return state.counted


def spawn_ticker(ms: int) -> None:
    async def tick() -> None:
        while True:
            await asyncio.sleep(ms / 1e3)
            state.ticks += 1

    asyncio.create_task(tick())


def spawn_print(ms: int, text: str) -> None:
    async def speak() -> None:
        await asyncio.sleep(ms / 1e3)
        print(text)

    asyncio.create_task(speak())


def spawn_work(iterations: int) -> None:
    """Computes in a task of its own, once the request at hand has had its chance to end."""

    async def compute() -> None:
        await asyncio.sleep(0.001)
        work(iterations)

    asyncio.create_task(compute())


# A step is a function of its arguments; only `context` takes the call's instead.
STEPS = {
    "sleep-ms": lambda ms: asyncio.sleep(ms / 1e3),
    "spin-ms": lambda ms: spin_until(time.monotonic() + ms / 1e3),
    "spin-until-ms": lambda ms: spin_until((state.awake_since or time.monotonic()) + ms / 1e3),
    "spin-forever": spin_forever,
    "work": work,
    "fib": fib,
    "random": random.random,
    "now": lambda: int(time.time() * 1000),
    "grow-mb": grow,
    "grow-forever": grow_forever,
    "recurse-forever": recurse_forever,
    "open-handles-forever": open_handles_forever,
    "reply-bytes": lambda _: None,  # The handler looks for it when all steps are done.
    "fail": fail,
    "panic": panic,
    "trap": os.abort,
    "print": print,
    "eprint": lambda text: print(text, file=sys.stderr),
    "print-forever": print_forever,
    "http-get": lambda url: send("GET", url, ""),
    "http-post": lambda url, body: send("POST", url, body),
    "http-get-within": lambda url, timeout: send("GET", url, "", float(timeout)),
    "env": lambda: dict(os.environ),
    "read-file": read_file,
    "libraries": libraries,
    "context": context,
    "spawn-ticker-ms": spawn_ticker,
    "spawn-print": spawn_print,
    "spawn-work": spawn_work,
    "ticks": lambda: state.ticks,
    "count": count,
    "log": lambda: list(state.calls),
    "max-in-flight": lambda: state.max_in_flight,
}
