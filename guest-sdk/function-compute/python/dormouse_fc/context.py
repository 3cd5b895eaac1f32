"""What handlers and hooks are told, in the words of Function Compute's Python runtime."""

import logging
import os
from dataclasses import dataclass, field


@dataclass(slots=True)
class Credentials:
    """Functions get none here."""

    access_key_id: str = ""
    access_key_secret: str = ""
    security_token: str = ""


@dataclass(slots=True)
class Function:
    """The function."""

    name: str
    handler: str
    memory: int
    timeout: int
    initializer: str
    initialization_timeout: int


@dataclass(slots=True)
class Service:
    """The service, for functions that have one."""

    name: str
    qualifier: str
    version_id: str
    log_project: str = ""
    log_store: str = ""


@dataclass(slots=True)
class Tracing:
    """The caller's trace."""

    openTracingSpanContext: str | None = None
    openTracingSpanBaggages: dict = field(default_factory=dict)
    jaeger_endpoint: str = ""


class Context:
    """The context of a call."""

    def __init__(self, ctx) -> None:
        self.request_id = self.requestId = ctx.request_id
        self.credentials = Credentials()
        self.function = Function(
            name=os.environ.get("FC_FUNCTION_NAME", ctx.function),
            handler=os.environ.get("FC_FUNCTION_HANDLER", ""),
            memory=ctx.memory_mb,
            timeout=int(os.environ.get("FC_FUNCTION_TIMEOUT", "0")),
            initializer=os.environ.get("FC_FUNCTION_INITIALIZER", ""),
            initialization_timeout=int(os.environ.get("FC_INITIALIZATION_TIMEOUT", "0")),
        )
        self.service = Service(os.environ.get("FC_SERVICE_NAME", ""), ctx.version, ctx.version)
        self.region = os.environ.get("FC_REGION", "")
        self.account_id = self.accountId = os.environ.get("FC_ACCOUNT_ID", "")
        self.instance_id = ctx.instance_id
        self.retry_count = ctx.attempt - 1
        self.tracing = Tracing(ctx.traceparent)
        self.logger = logging.getLogger()
