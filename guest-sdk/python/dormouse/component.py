"""The entry point for componentize-py: the exports of the contract, which call the author's module `app`."""

import asyncio
import inspect
import logging
import random
import sys

import wit_world
from componentize_py_types import Err

from . import http, loop, wasi
from .context import Context

loop.install()
http.send = wasi.send
# Line-buffered, instead of componentize-py's unbuffered streams, which lose the rest of a text when the host takes only
# a part of it.
sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)

import app

# No effect if the module has configured logging itself. Without the time, because the host records it for each line.
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
_log = logging.getLogger("dormouse")

if not callable(getattr(app, "handler", None)):
    raise TypeError("app.py has no function `handler(ctx, event)`")


class WitWorld(wit_world.WitWorld):
    """The exports. A hook that the module does not define does nothing."""

    async def initializer(self, ctx) -> None:
        await _call("initializer", ctx)

    async def handler(self, ctx, event: bytes) -> bytes:
        reply = await _call("handler", ctx, event)
        if isinstance(reply, str):
            return reply.encode()
        if isinstance(reply, (bytes, bytearray)):
            return bytes(reply)
        raise Err(f"`handler` returned {type(reply).__name__}, neither bytes nor str")

    async def pre_freeze(self, ctx) -> None:
        await _call_unheard("pre_freeze", ctx)

    async def pre_stop(self, ctx) -> None:
        await _call_unheard("pre_stop", ctx)


_awake = False


def _wake() -> None:
    """At an instance's first call: the generator that the build has seeded would draw the same in all of them."""
    global _awake
    if not _awake:
        _awake = True
        random.seed()


async def _call(name: str, ctx, *event: bytes):
    """Calls a function of the module. Logs its exception, and returns the exception's text to the caller."""
    _wake()
    function = getattr(app, name, None)
    if function is None:
        return None
    try:
        result = function(_context(ctx), *event)
        return await result if inspect.isawaitable(result) else result
    except (Exception, asyncio.CancelledError) as error:
        trace = error.__traceback__.tb_next  # Without this function.
        _log.error("%s failed", name, exc_info=(type(error), error, trace))
        raise Err(_text(error)) from None


def _text(error: BaseException) -> str:
    """The text for the caller. Some exceptions have no text, and that of a `KeyError` is only the key."""
    name, text = type(error).__name__, str(error)
    return f"{name}: {text}" if isinstance(error, KeyError) else text or name


async def _call_unheard(name: str, ctx) -> None:
    """Calls a hook that has no caller to report to. Its failure is already logged."""
    try:
        await _call(name, ctx)
    except Err:
        pass


def _context(ctx) -> Context:
    return Context(
        request_id=ctx.request_id,
        function=ctx.function,
        version=ctx.version,
        instance_id=ctx.instance_id,
        memory_mb=ctx.memory_mb,
        deadline=ctx.deadline_ms / 1000,
        attempt=ctx.attempt,
        traceparent=ctx.traceparent,
    )
