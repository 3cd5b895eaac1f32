"""Write a Dormouse function as a Python module.

A function runs in an *instance*, which Dormouse keeps between requests: awake while there is work, parked while there
is none. In a parked instance nothing runs. The module `app` is that instance. Its globals are the state, and Dormouse
calls these functions of it, each one `async def` or plain `def`:

- `handler(ctx, event)` answers a request: the event is `bytes`, the reply `bytes` or `str`. Only this one is required.
- `initializer(ctx)` runs once, before the first request.
- `pre_freeze(ctx)` runs before each freeze, after the callers got their replies. Flush here.
- `pre_stop(ctx)` runs once before the instance is stopped. Close sessions here.

An exception's text is sent to the caller of `handler`, so it must contain no secrets. Its traceback is written to the
function's log, and so is everything that is printed or logged with `logging` (`INFO` and above, unless the module
configures it).

`asyncio` works: `asyncio.sleep`, `timeout`, `gather`, `Lock`, `Queue`. `asyncio.create_task` starts work that
continues after its request was answered; it stops while the instance is parked and continues at the next thaw. If the
function's `concurrency` is above 1, a second `handler` may be called while the first one waits in an `await`.

The module is imported when the component is built, and every instance starts from a copy of that state. Read what
differs between instances or deployments, such as `os.environ` or a `random.Random()`, in `initializer` or `handler`.
The generator behind `random.random()` is seeded anew in each instance. `hash` of a text cannot be: it is the same in all
instances of a build, so do not rely on it against texts that an attacker chooses.
Import all modules at the top, because there are no files to import from later. Threads, sockets, `ssl` and
`subprocess` do not work in a component; `fetch` sends requests.
"""

from .context import Context
from .http import FetchError, Response, fetch

__all__ = ["Context", "FetchError", "Response", "fetch"]
