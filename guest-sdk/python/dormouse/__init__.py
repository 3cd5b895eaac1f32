"""Write a Dormouse function as a Python module.

A function lives in an *instance*, which Dormouse keeps between requests: awake while there is work, parked and
entirely still while there is none. The module `app` is that instance. Its globals are the state, and these functions
of it are called, each one `async def` or plain `def`:

- `handler(ctx, event)` answers a request: the event is `bytes`, the reply `bytes` or `str`. It is the only one needed.
- `initializer(ctx)` runs once, before the first request.
- `pre_freeze(ctx)` runs before each parking, after the callers got their replies: the place to flush.
- `pre_stop(ctx)` runs once before the end: the place to close sessions.

An exception's text reaches the caller of `handler`, so it must hold no secrets; its traceback goes to the function's
log, and so does all that is printed or given to `logging` (`INFO` and above, unless the module configures it).

`asyncio` is there: `asyncio.sleep`, `timeout`, `gather`, `Lock`, `Queue`. `asyncio.create_task` starts work that goes
on after its request was answered; while the instance is parked it stands still, and at the next thaw it goes on. A
function configured with a `concurrency` above 1 gets a second `handler` while the first one waits in an `await`.

The module is imported when the component is built, and every instance starts from a copy of that moment. What differs
from instance to instance or from deployment to deployment, such as `os.environ` or a `random.Random()`, belongs into
`initializer` or `handler`; and all modules must be imported at the top, since there are no files to import from
later. Threads, sockets, `ssl` and `subprocess` do not work in a component; `fetch` sends requests.
"""

from .context import Context
from .http import FetchError, Response, fetch

__all__ = ["Context", "FetchError", "Response", "fetch"]
