"""Greets people, and remembers how many it has greeted for as long as its instance lives."""

import logging

from dormouse import Context

log = logging.getLogger("{{name}}")

# State: an instance keeps it between requests, awake or parked.
greeted = 0


async def handler(ctx: Context, event: bytes) -> str:
    """Runs for each request."""
    global greeted
    name = event.decode().strip()
    if not name:
        raise ValueError("whom shall I greet? Send a name.")
    greeted += 1
    return f"Hello, {name}! You are number {greeted}.\n"


async def pre_freeze(ctx: Context) -> None:
    """Runs each time before the instance is parked. No caller waits for it: flush metrics, traces and buffers here."""
    log.info("greeted %d so far, going to sleep", greeted)
