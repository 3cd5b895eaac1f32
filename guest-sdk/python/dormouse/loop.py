"""The event loop of a component: `asyncio` on top of the component model's own waiting.

The loop of componentize-py runs tasks and waits for imports. It has no timers, and wakes a request only for an answer
that this request itself waits for. This loop adds timers, tasks that outlive their request, and wake-ups from one
request to another, so that `asyncio` works as usual. It uses private names of componentize-py 0.25.1.

Each call into the component is a *component task* with its own state (`_FutureState`): its handles, and the set of
waitables it waits for. A handle runs only in its own component task, because the host attributes what it does, such
as a log line, to the request of that task.
"""

import asyncio
import heapq
import logging
import time
from contextvars import Context, copy_context

import componentize_py_async_support as support
import componentize_py_runtime as runtime
from wit_world import byte_stream
from wit_world.imports import monotonic_clock

_log = logging.getLogger("dormouse")


class Loop(support._Loop):
    """The only loop of an instance."""

    def __init__(self) -> None:
        super().__init__()
        self.running = True
        self._current = None  # The state of the component task that runs.
        self._touched: list = []  # States that got handles since the last poll.
        self._tasks: set[asyncio.Task] = set()  # Keeps background tasks alive: nothing else may hold them.
        self._timers: list[asyncio.TimerHandle] = []  # A heap.
        self._waits: list[float] = []  # The ends of the host's waits that were begun for timers.
        self._bells: list[_Bell] = []  # Bells that no component task uses.

    def poll(self, state) -> None:
        """Runs the handles of a component task until it has to wait or is done. The glue calls it for each event."""
        self._current = state
        while state.handles:
            handles, state.handles = state.handles, []
            for handle in handles:
                if not handle.cancelled():
                    handle._run()
        # An exception keeps its frames alive, this one included: a handle left here would keep its task alive.
        handles = handle = None
        if self.exception is not None:
            raise self.exception
        if state.pending_count > 0:
            self._hang_bell(state)
        else:
            self._take_bell(state)
        touched, self._touched = self._touched, []
        for other in touched:
            if other is not state:
                other.bell.ring()
        self._current = None

    def _hang_bell(self, state) -> None:
        """Makes a component task that begins to wait wakeable by others."""
        if getattr(state, "bell", None) is None:
            state.bell = self._bells.pop() if self._bells else _Bell()
        if state.bell.waitable not in state.futures:
            if state.waitable_set is None:
                state.waitable_set = runtime.waitable_set_new()
            state.futures[state.bell.waitable] = state.bell
            runtime.waitable_join(state.bell.waitable, state.waitable_set)

    def _take_bell(self, state) -> None:
        bell = getattr(state, "bell", None)
        if bell is not None:
            if state.futures.pop(bell.waitable, None) is not None:
                runtime.waitable_join(bell.waitable, 0)
            self._bells.append(bell)
            state.bell = None

    def _state_of(self, context: Context):
        """The component task of a context; if it has ended, the one that runs."""
        state = context.get(support._future_state)
        if state is None or state.pending_count == 0:
            state = self._current
        if state is None:
            raise RuntimeError("nothing can run yet: start tasks in `initializer` or `handler`")
        return state

    def call_soon(self, callback, *args, context=None):
        handle = asyncio.Handle(callback, args, self, context or copy_context())
        self._enqueue(handle)
        return handle

    def _enqueue(self, handle: asyncio.Handle) -> None:
        state = self._state_of(handle._context)
        if not state.handles:
            self._touched.append(state)
        state.handles.append(handle)

    def create_task(self, coroutine, *, name=None, context=None):
        context = context or copy_context()
        state = self._state_of(context)
        if context.get(support._future_state) is not state:
            context = context.copy()
            context.run(support._set_future_state, state)
        # The component task must not end before this task does.
        state.pending_count += 1
        task = asyncio.Task(coroutine, loop=self, name=name, context=context)
        self._tasks.add(task)

        def done(task: asyncio.Task) -> None:
            self._tasks.discard(task)
            state.pending_count -= 1

        task.add_done_callback(done, context=context)
        return task

    def time(self) -> float:
        return time.monotonic()

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        timer = asyncio.TimerHandle(when, callback, args, self, context or copy_context())
        heapq.heappush(self._timers, timer)
        self._wait_for_timers()
        return timer

    def _timer_handle_cancelled(self, _) -> None:
        """A wait of the host cannot be cancelled, so a cancelled timer stays in the heap until its time."""

    def _wait_for_timers(self) -> None:
        """Begins to wait for the first timer, unless an earlier wait ends before it."""
        while self._timers and self._timers[0].cancelled():
            heapq.heappop(self._timers)
        if self._timers and all(self._timers[0].when() < end for end in self._waits):
            end = self._timers[0].when()
            self._waits.append(end)
            self.create_task(self._wait_until(end))

    async def _wait_until(self, end: float) -> None:
        await monotonic_clock.wait_for(max(0, round((end - self.time()) * 1e9)))
        self._waits.remove(end)
        now = max(end, self.time())
        while self._timers and self._timers[0].when() <= now:
            self._enqueue(heapq.heappop(self._timers))
        self._wait_for_timers()

    def call_exception_handler(self, context) -> None:
        _log.error(context["message"], exc_info=context.get("exception"))


class _Bell:
    """Wakes a component task: a stream from the component to itself, whose reader the task waits for.

    It takes the place of a future in the table of what a task waits for, hence `set_result`.
    """

    def __init__(self) -> None:
        self._writer, self._reader = byte_stream()
        self._listen()

    def _listen(self) -> None:
        read = runtime.stream_read(self._reader.type_, self._reader.handle, 1)
        self.waitable, self._promise = read.value
        self._rung = False

    def ring(self) -> None:
        if not self._rung:
            self._rung = True
            runtime.stream_write(self._writer.type_, self._writer.handle, b"!")

    def set_result(self, event: int) -> None:
        runtime.promise_get_result(event, self._promise)
        self._listen()


def install() -> None:
    """Replaces the loop of componentize-py."""
    loop = Loop()
    support._loop = loop
    asyncio.events._set_running_loop(loop)
