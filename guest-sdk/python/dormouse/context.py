"""What the host tells a function about a call."""

import time
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Context:
    """The context of a call. Each call of a handler or a hook gets its own; the defaults are for tests."""

    request_id: str = "test-request"
    """The request's identifier, unique on this host unless the caller chose it. Each call of a hook has its own."""
    function: str = "test"
    """The function's name."""
    version: str = "LATEST"
    """The deployed version that runs: `LATEST`, or a number."""
    instance_id: str = "test-instance"
    """The instance's identifier: the same in every call into this instance, in logs and in the bill."""
    memory_mb: int = 128
    """The memory this instance may use, in MB (1 MB is 1,048,576 bytes)."""
    deadline: float = float("inf")
    """The deadline of this call, in seconds since 1970 as in `time.time()`. While the instance is suspended, the real
    deadline moves further away; this value does not."""
    attempt: int = 1
    """Which attempt at this request this is, starting with 1."""
    traceparent: str | None = None
    """The caller's W3C trace context, if it sent one."""

    def remaining(self) -> float:
        """The seconds left until the deadline; zero once it has passed."""
        return max(0.0, self.deadline - time.time())
