"""Calls a WSGI application (PEP 3333) with a request that came as an event, and makes the reply of its response."""

import base64
import io
import json
import sys
from urllib.parse import unquote_to_bytes


def is_request(event: bytes) -> bool:
    """True if an event is an HTTP request."""
    if not event.startswith(b"{"):
        return False
    try:
        told = json.loads(event)
    except ValueError:
        return False
    return told.get("version") == "v1" and "http" in told.get("requestContext", {})


def call(application, event: bytes, context) -> bytes:
    """Answers a request."""
    told = json.loads(event)
    status, headers, chunks = "", [], []

    def start_response(line, fields, exc_info=None):
        nonlocal status, headers
        if exc_info is not None and chunks:
            raise exc_info[1].with_traceback(exc_info[2])
        status, headers = line, list(fields)
        return chunks.append

    body = application(_environ(told, context), start_response)
    try:
        chunks.extend([body.encode()] if isinstance(body, str) else [body] if isinstance(body, bytes) else body)
    finally:
        if hasattr(body, "close"):
            body.close()
    if not status:
        raise RuntimeError("the handler did not call start_response(status, headers)")
    joined: dict[str, list[str]] = {}
    for name, value in headers:
        joined.setdefault(name, []).append(str(value))
    content = b"".join(chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks)
    reply = {
        "statusCode": int(status.split(" ", 1)[0]),
        "headers": joined,
        "body": base64.b64encode(content).decode(),
        "isBase64Encoded": True,
    }
    return json.dumps(reply).encode()


def _environ(told: dict, context) -> dict:
    http = told["requestContext"]["http"]
    body = base64.b64decode(told["body"]) if told["isBase64Encoded"] else told["body"].encode()
    host, _, port = told["headers"].get("host", told["requestContext"]["domainName"]).partition(":")
    query = told["rawQueryString"]
    environ = {
        "REQUEST_METHOD": http["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(told["rawPath"].replace("%", "%25")).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": http["protocol"],
        "REMOTE_ADDR": http["sourceIp"],
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": told["headers"].get("content-type", ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": told["headers"].get("x-forwarded-proto", "http"),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "fc.context": context,
        "fc.request_uri": told["rawPath"] + (f"?{query}" if query else ""),
    }
    for name, value in told["headers"].items():
        if name not in ("content-type", "content-length"):
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ
