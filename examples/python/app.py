"""An order desk with all four hooks: metrics that make no request slower, and a database that is closed in order.

A request files an order in the instance's own SQLite database and notes a measurement. Before the instance rests, one
request takes all measurements to a collector; before it goes, what the orders sum up to is told and the database
closed.

`curl -d '{"item": "tea", "cents": 450}' http://127.0.0.1:8080/invoke/python`, then `dormouse logs python`. Without
`COLLECTOR_URL` the metrics go to the log; with it they are posted there, to a host that must be allowed.
"""

import json
import logging
import os
import sqlite3
import time
from contextlib import closing

import dormouse
from dormouse import Context

log = logging.getLogger("orders")

database: sqlite3.Connection
measurements: list[dict] = []
MEASUREMENTS_MAX = 10_000  # A collector that stays away must not cost all memory.


async def initializer(ctx: Context) -> None:
    """Opens the database: in memory, since a function has no files, and so as long-lived as the instance."""
    global database
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE orders (request TEXT PRIMARY KEY, item TEXT NOT NULL, cents INTEGER NOT NULL)")
    log.info("instance %s is open for orders", ctx.instance_id)


async def handler(ctx: Context, event: bytes) -> str:
    """Files one order and answers what was ordered so far."""
    began = time.perf_counter()
    order = json.loads(event)
    with database:
        # An attempt that is repeated replaces the order instead of filing it twice.
        row = (ctx.request_id, order["item"], int(order["cents"]))
        database.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?)", row)
    orders, cents = totals()
    measurements.append({"name": "order", "at": time.time(), "seconds": time.perf_counter() - began})
    return json.dumps({"order": ctx.request_id, "orders": orders, "cents": cents}) + "\n"


async def pre_freeze(ctx: Context) -> None:
    """Flushes the metrics. No caller waits for this."""
    if not measurements:
        return
    batch = measurements.copy()
    measurements.clear()
    try:
        await flush(ctx, batch)
    except OSError as error:
        log.warning("%d measurements wait for the next freeze: %s", len(batch), error)
        measurements[:0] = batch[-MEASUREMENTS_MAX:]


async def pre_stop(ctx: Context) -> None:
    """Flushes what is left and closes the database."""
    await pre_freeze(ctx)
    with closing(database):
        log.info("instance %s closes with %d orders of %d cents", ctx.instance_id, *totals())


def totals() -> tuple[int, int]:
    return database.execute("SELECT count(*), coalesce(sum(cents), 0) FROM orders").fetchone()


async def flush(ctx: Context, batch: list[dict]) -> None:
    """Takes measurements to the collector; an `OSError` unless it has accepted them."""
    url = os.environ.get("COLLECTOR_URL")
    if url is None:
        slowest = max(measurement["seconds"] for measurement in batch)
        log.info("%d measurements, the slowest %.3f ms", len(batch), slowest * 1e3)
        return
    body = json.dumps({"function": ctx.function, "instance": ctx.instance_id, "metrics": batch})
    headers = {"content-type": "application/json"}
    response = await dormouse.fetch(url, method="POST", headers=headers, body=body, timeout=2)
    if not response.ok:
        raise OSError(f"the collector answered {response.status}")
