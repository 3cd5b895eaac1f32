"""Sends requests through WASI 0.3. Only `component` imports this: the bindings exist only in a component."""

import asyncio

from componentize_py_types import Err, Ok
from wit_world import byte_stream
from wit_world import result_option_wasi_http_types_fields_wasi_http_types_error_code_future as trailers_future
from wit_world import result_unit_wasi_http_types_error_code_future as consumed_future
from wit_world.imports import client, wasi_http_types as types

from .http import FetchError, Request, Response

_CHUNK_BYTES = 64 << 10

_METHODS = {
    "GET": types.Method_Get(),
    "HEAD": types.Method_Head(),
    "POST": types.Method_Post(),
    "PUT": types.Method_Put(),
    "DELETE": types.Method_Delete(),
    "CONNECT": types.Method_Connect(),
    "OPTIONS": types.Method_Options(),
    "TRACE": types.Method_Trace(),
    "PATCH": types.Method_Patch(),
}


async def send(request: Request) -> Response:
    """Sends a request and reads the response.

    It continues when its caller is cancelled, because a request to the host cannot be cancelled and something must
    take its response.
    """
    return await asyncio.shield(_send(request))


async def _send(request: Request) -> Response:
    try:
        return await _receive(await client.send(_outgoing(request)))
    except Err as error:
        raise FetchError(_explain(error.value)) from None


def _outgoing(request: Request) -> types.Request:
    try:
        fields = types.Fields.from_list(request.headers)
    except Err as error:
        raise FetchError(f"the host refused the headers: {error.value}") from None
    trailers_writer, trailers = trailers_future(lambda: Ok(None))
    asyncio.create_task(trailers_writer.write(Ok(None)))
    outgoing, sent = types.Request.new(fields, _contents(request.body), trailers, _options(request.timeout))
    sent.__exit__(None, None, None)  # The response shows if it was sent.
    try:
        outgoing.set_method(_METHODS.get(request.method) or types.Method_Other(request.method))
        outgoing.set_scheme(types.Scheme_Https() if request.tls else types.Scheme_Http())
        outgoing.set_authority(request.authority)
        outgoing.set_path_with_query(request.path_with_query)
    except Err:
        raise FetchError("the method or the URL is not valid") from None
    return outgoing


def _contents(body: bytes):
    """The body as a stream. A task of its own writes it, because it is only read while the request is being sent."""
    if not body:
        return None
    writer, reader = byte_stream()

    async def feed() -> None:
        # A failed write shows in the result of the request.
        with writer:
            await writer.write_all(body)

    asyncio.create_task(feed())
    return reader


def _options(timeout: float | None) -> types.RequestOptions | None:
    if timeout is None:
        return None
    options = types.RequestOptions()
    for set_timeout in (
        options.set_connect_timeout,
        options.set_first_byte_timeout,
        options.set_between_bytes_timeout,
    ):
        set_timeout(int(timeout * 1e9))
    return options


async def _receive(incoming: types.Response) -> Response:
    status = incoming.get_status_code()
    headers: dict[str, str] = {}
    with incoming.get_headers() as fields:
        for name, value in fields.copy_all():
            name, text = name.lower(), value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
    consumed_writer, consumed = consumed_future(lambda: Ok(None))
    reader, trailers = types.Response.consume_body(incoming, consumed)
    body = bytearray()
    with reader:
        while not reader.writer_dropped:
            body += await reader.read(_CHUNK_BYTES)
    # A truncated body ends like a complete one; only the trailers tell them apart.
    ending = await trailers.read()
    asyncio.create_task(consumed_writer.write(Ok(None)))
    if isinstance(ending, Err):
        raise ending
    return Response(status, headers, bytes(body))


def _explain(error: types.ErrorCode) -> str:
    """Common failures in plain words; the rare others by their name in the standard."""
    match error:
        case types.ErrorCode_HttpRequestDenied():
            return "the host is not in allowed-outbound-hosts"
        case types.ErrorCode_DnsError() | types.ErrorCode_DnsTimeout():
            return "the name could not be resolved"
        case types.ErrorCode_ConnectionRefused():
            return "the connection was refused"
        case types.ErrorCode_ConnectionTerminated() | types.ErrorCode_HttpResponseIncomplete():
            return "the connection broke off"
        case types.ErrorCode_ConnectionTimeout():
            return "timed out while connecting"
        case types.ErrorCode_ConnectionReadTimeout() | types.ErrorCode_HttpResponseTimeout():
            return "timed out while reading"
        case types.ErrorCode_InternalError(str(text)):
            return text
        case _:
            return str(error).removeprefix("ErrorCode_")
