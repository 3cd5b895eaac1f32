"""Sockets that speak HTTP: what is written to one is read as a request and sent through WASI, and what can be read from
it is the response. So `urllib`, `http.client` and packages on top of them, such as `requests`, work.

The host makes the connections, and does TLS with its own certificates. Other protocols do not work.
"""

import io
import socket
import sys
import types

from componentize_py_types import Err
from wit_world.imports import outgoing_handler, wasi_http_types as http

_CHUNK_BYTES = 4096
_READ_BYTES = 65_536
_METHODS = {
    "GET": http.Method_Get,
    "HEAD": http.Method_Head,
    "POST": http.Method_Post,
    "PUT": http.Method_Put,
    "DELETE": http.Method_Delete,
    "CONNECT": http.Method_Connect,
    "OPTIONS": http.Method_Options,
    "TRACE": http.Method_Trace,
    "PATCH": http.Method_Patch,
}


class Socket:
    """One connection. Each request that is written whole gets its response."""

    def __init__(self, family=-1, type=-1, proto=-1, fileno=None) -> None:
        self._address = ("", 0)
        self._written = bytearray()
        self._response = io.BytesIO()
        self._timeout = None
        self.is_tls = False

    def connect(self, address) -> None:
        self._address = address[:2]

    def settimeout(self, timeout) -> None:
        self._timeout = timeout

    def gettimeout(self):
        return self._timeout

    def setblocking(self, blocking) -> None:
        self._timeout = None if blocking else 0.0

    def setsockopt(self, *_) -> None:
        pass

    def getpeername(self):
        return self._address

    def getsockname(self):
        return ("127.0.0.1", 0)

    def getpeercert(self, binary_form=False):
        return b"" if binary_form else {}

    def fileno(self) -> int:
        return -1

    def sendall(self, data, flags=0) -> None:
        self._written += data

    def send(self, data, flags=0) -> int:
        self._written += data
        return len(data)

    def recv(self, size, flags=0) -> bytes:
        return self._readable().read(size)

    def recv_into(self, buffer, nbytes=0, flags=0) -> int:
        return self._readable().readinto(memoryview(buffer)[: nbytes or None])

    def makefile(self, mode="r", buffering=None, **_):
        return io.BufferedReader(_Reader(self))

    def shutdown(self, how) -> None:
        pass

    def close(self) -> None:
        pass

    def detach(self) -> int:
        return -1

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _readable(self) -> io.BytesIO:
        if self._written:
            request, self._written = bytes(self._written), bytearray()
            self._response = io.BytesIO(_exchange(request, self._address, self.is_tls, self._timeout))
        return self._response


class _Reader(io.RawIOBase):
    def __init__(self, of: Socket) -> None:
        self._socket = of

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._socket.recv_into(buffer)


def _exchange(request: bytes, address, is_tls: bool, timeout) -> bytes:
    """Sends a request as HTTP/1.1 has it, and returns its response like that."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, _ = line.split(" ")
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    except ValueError:
        raise OSError("only HTTP can be spoken through a socket here") from None
    told = dict(fields)
    if told.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunked(body)
    port = "" if address[1] == (443 if is_tls else 80) else f":{address[1]}"
    authority = told.get("host") or f"{address[0]}{port}"
    not_sent = ("host", "connection", "transfer-encoding", "content-length", "keep-alive", "proxy-connection")
    kept = [(name, value.encode("latin-1")) for name, value in fields if name not in not_sent]
    if body or method in ("POST", "PUT", "PATCH"):
        kept.append(("content-length", str(len(body)).encode()))
    try:
        return _received(_sent(method, is_tls, authority, target, kept, body, timeout), method)
    except Err as error:
        raise _refused(error.value, authority) from None


def _unchunked(body: bytes) -> bytes:
    whole, rest = bytearray(), body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.split(b";")[0] or b"0", 16)
        if length == 0:
            return bytes(whole)
        whole += rest[:length]
        rest = rest[length + 2 :]


def _sent(method, is_tls, authority, target, fields, body, timeout):
    outgoing = http.OutgoingRequest(http.Fields.from_list(fields))
    outgoing.set_method(_METHODS[method]() if method in _METHODS else http.Method_Other(method))
    outgoing.set_scheme(http.Scheme_Https() if is_tls else http.Scheme_Http())
    outgoing.set_authority(authority)
    outgoing.set_path_with_query(target)
    options = http.RequestOptions()
    if timeout:
        for set_timeout in (
            options.set_connect_timeout,
            options.set_first_byte_timeout,
            options.set_between_bytes_timeout,
        ):
            set_timeout(int(timeout * 1e9))
    contents = outgoing.body()
    answer = outgoing_handler.handle(outgoing, options)
    stream = contents.write()
    with stream:
        for start in range(0, len(body), _CHUNK_BYTES):
            stream.blocking_write_and_flush(body[start : start + _CHUNK_BYTES])
    http.OutgoingBody.finish(contents, None)
    return answer


def _received(answer, method: str) -> bytes:
    with answer.subscribe() as ready:
        ready.block()
    got = answer.get()
    result = got.value  # It is there, and it is asked for once.
    if isinstance(result, Err):
        raise result
    response = result.value
    status = response.status()
    fields = response.headers().entries()
    body = bytearray()
    incoming = response.consume()
    with incoming.stream() as stream:
        while True:
            try:
                body += stream.blocking_read(_READ_BYTES)
            except Err:
                break  # The end; what is missing shows in the length.
    lines = [f"HTTP/1.1 {status} ".encode()]
    kept = [(name, value) for name, value in fields if name.lower() not in ("transfer-encoding", "content-length", "connection")]
    lines += [name.encode() + b": " + value for name, value in kept]
    announced = next((value for name, value in fields if name.lower() == "content-length"), None)
    length = announced if announced is not None else str(len(body)).encode()
    if method == "HEAD" or status not in (204, 304):
        lines.append(b"content-length: " + length)
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(body)


def _refused(error, authority: str) -> OSError:
    match error:
        case http.ErrorCode_HttpRequestDenied():
            return PermissionError(f"{authority} is not a host that this function may call (internetAccess)")
        case http.ErrorCode_DnsError() | http.ErrorCode_DnsTimeout():
            return socket.gaierror(-2, f"the name {authority} could not be resolved")
        case http.ErrorCode_ConnectionRefused():
            return ConnectionRefusedError(f"{authority} refused the connection")
        case http.ErrorCode_ConnectionTimeout() | http.ErrorCode_ConnectionReadTimeout() | http.ErrorCode_HttpResponseTimeout():
            return TimeoutError(f"{authority} did not answer in time")
        case _:
            return ConnectionError(f"{authority}: {type(error).__name__.removeprefix('ErrorCode_')}")


def _create_connection(address, timeout=None, source_address=None, **_) -> Socket:
    made = Socket()
    made.settimeout(timeout if isinstance(timeout, (int, float)) else None)
    made.connect(address)
    return made


def _getaddrinfo(host, port, *_, **__):
    """The name itself, because the host looks it up."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, int(port or 0)))]


class SSLContext:
    """TLS is the host's; nothing that is set here has an effect."""

    def __init__(self, protocol=0) -> None:
        self.verify_mode = CERT_REQUIRED
        self.check_hostname = True
        self.options = self.verify_flags = 0
        self.minimum_version = self.maximum_version = 0
        self.post_handshake_auth = None

    def __getattr__(self, name):
        return lambda *_, **__: None

    def wrap_socket(self, sock: Socket, *_, **__) -> Socket:
        sock.is_tls = True
        return sock


CERT_REQUIRED = 2


def _ssl() -> types.ModuleType:
    """A module `ssl`: CPython for WASI has none."""
    module = types.ModuleType("ssl", "TLS, which the host does.")
    module.SSLContext, module.SSLSocket, module.CERT_REQUIRED = SSLContext, Socket, CERT_REQUIRED
    module.create_default_context = module._create_default_https_context = lambda *_, **__: SSLContext()
    module.OPENSSL_VERSION, module.OPENSSL_VERSION_INFO, module.HAS_SNI = "OpenSSL 3.0.0", (3, 0, 0, 0, 0), True
    module.TLSVersion = types.SimpleNamespace(
        MINIMUM_SUPPORTED=0, SSLv3=768, TLSv1=769, TLSv1_1=770, TLSv1_2=771, TLSv1_3=772, MAXIMUM_SUPPORTED=-1
    )
    module.VerifyMode = types.SimpleNamespace(CERT_NONE=0, CERT_OPTIONAL=1, CERT_REQUIRED=2)

    def other(name: str):
        """Packages name many constants, whose values do not matter, and errors, which never come."""
        if name.endswith("Error"):
            setattr(module, name, type(name, (OSError,), {}))
            return getattr(module, name)
        if name.isupper():
            return 0
        raise AttributeError(f"module 'ssl' has no attribute {name!r} in a component")

    module.__getattr__ = other
    return module


def install() -> None:
    """Puts the sockets in the place of Python's."""
    socket.socket, socket.create_connection, socket.getaddrinfo = Socket, _create_connection, _getaddrinfo
    sys.modules["ssl"] = _ssl()
