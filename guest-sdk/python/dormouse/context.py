"""What the host tells a function about the call it is in."""

import time
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Context:
    """The call that a function is in. Handlers and hooks get one each; the defaults are for tests."""

    request_id: str = "test-request"
    """The request's identifier, unique on this host unless the caller chose it. A hook has one of its own."""
    function: str = "test"
    """The function's name."""
    version: str = "LATEST"
    """The deployed version that runs: `LATEST`, or a number."""
    instance_id: str = "test-instance"
    """The instance's identifier: the same in every call into this instance, in logs and in the bill."""
    memory_mb: int = 128
    """The memory this instance may use, in MB (1 MB is 1,048,576 bytes)."""
    deadline: float = float("inf")
    """When the host gives up on this call, as `time.time()` counts: seconds since 1970. Time in which the instance is
    suspended moves the real deadline further away, not this figure."""
    attempt: int = 1
    """Which attempt at this request this is, starting with 1."""
    traceparent: str | None = None
    """The W3C trace context of the caller, when it sent one."""

    def remaining(self) -> float:
        """The seconds left until the deadline; zero once it has passed."""
        return max(0.0, self.deadline - time.time())
