// `fetch` on `wasi:http`: what is used most of it. Bodies are whole, not streams.

import { send } from "wasi:http/client@0.3.0";
import { Fields, Request, RequestOptions, Response as Incoming } from "wasi:http/types@0.3.0";

import { decode, encode } from "./text.js";

const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
const CHUNK_BYTES = 65_536;

/** The failures that authors meet, in their words. */
const WORDS = {
  "HTTP-request-denied": "the function's allowed-outbound-hosts do not name this host",
  "DNS-error": "the name could not be resolved",
  "DNS-timeout": "the name could not be resolved",
  "connection-refused": "the connection was refused",
  "connection-terminated": "the connection broke off",
  "HTTP-response-incomplete": "the connection broke off",
  "connection-timeout": "timed out while connecting",
  "connection-read-timeout": "timed out while reading",
  "HTTP-response-timeout": "timed out while reading",
};

class Response {
  #body;

  constructor(status, headers, body) {
    this.status = status;
    this.headers = headers;
    this.#body = body;
  }

  get ok() {
    return this.status >= 200 && this.status < 300;
  }

  async bytes() {
    return this.#body;
  }

  async arrayBuffer() {
    return this.#body.slice().buffer;
  }

  async text() {
    return decode(this.#body);
  }

  async json() {
    return JSON.parse(decode(this.#body));
  }
}

/** Sends a request and reads the whole response. Any status is a response; no response is a `TypeError`. */
export async function fetch(url, { method = "GET", headers = {}, body, timeoutMs } = {}) {
  const parts = /^(https?):\/\/([^/?#@]+)(\/[^?#]*)?(\?[^#]*)?/i.exec(String(url));
  if (parts === null) throw new TypeError("fetch needs a URL of http or https with a host, and without credentials");
  const [, scheme, authority, path = "/", query = ""] = parts;
  const verb = method.toUpperCase();
  try {
    const request = outgoing(headers, body, timeoutMs);
    request.setMethod(METHODS.includes(verb) ? { tag: verb.toLowerCase() } : { tag: "other", val: verb });
    request.setScheme({ tag: scheme.toUpperCase() });
    request.setAuthority(authority);
    request.setPathWithQuery(path + query);
    return await receive(await send(request));
  } catch (error) {
    // Neither path nor query: an error's text may reach a caller, and secrets travel in both.
    throw new TypeError(`${verb} ${authority}: ${explain(error)}`);
  }
}

function outgoing(headers, body, timeoutMs) {
  const entries = Object.entries(headers).map(([name, value]) => [name, encode(String(value))]);
  let contents = null;
  if (body !== undefined && body !== null) {
    const bytes = typeof body === "string" ? encode(body) : new Uint8Array(body.buffer ?? body);
    if (!entries.some(([name]) => name.toLowerCase() === "content-length")) {
      entries.push(["content-length", encode(String(bytes.length))]);
    }
    const stream = wit.Stream(wit.Stream.U8);
    contents = stream.readable;
    // It drains only while the request is being sent; what could not be written shows in the request's result.
    stream.writable.writeAll(bytes).then(
      () => stream.writable.drop(),
      () => stream.writable.drop(),
    );
  }
  const trailers = wit.Future(wit.Future.RESULT_OPTION_FIELDS_ERROR_CODE);
  trailers.writable.write({ tag: "ok", val: null });
  const [request, sent] = Request.new(Fields.fromList(entries), contents, trailers.readable, options(timeoutMs));
  sent.drop(); // The response says enough.
  return request;
}

function options(timeoutMs) {
  if (timeoutMs === undefined) return null;
  const options = new RequestOptions();
  const nanoseconds = Math.round(timeoutMs * 1e6);
  options.setConnectTimeout(nanoseconds);
  options.setFirstByteTimeout(nanoseconds);
  options.setBetweenBytesTimeout(nanoseconds);
  return options;
}

async function receive(incoming) {
  const status = incoming.getStatusCode();
  const headers = new Map();
  for (const [name, value] of incoming.getHeaders().copyAll()) {
    const key = name.toLowerCase();
    const field = decode(new Uint8Array(value));
    headers.set(key, headers.has(key) ? `${headers.get(key)}, ${field}` : field);
  }
  const consumed = wit.Future(wit.Future.RESULT_VOID_ERROR_CODE);
  const [stream, trailers] = Incoming.consumeBody(incoming, consumed.readable);
  const chunks = [];
  for (;;) {
    const chunk = await stream.read(CHUNK_BYTES);
    if (chunk === undefined || chunk.length === 0) break;
    chunks.push(new Uint8Array(chunk));
  }
  stream.drop();
  // A body that broke off ends like a whole one; only the trailers tell them apart.
  const ending = await trailers.read();
  consumed.writable.write({ tag: "ok" });
  if (ending?.tag === "err") throw ending.val;
  const body = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.length;
  }
  return new Response(status, headers, body);
}

function explain(error) {
  const code = error?.payload ?? error;
  if (code?.tag !== undefined) return WORDS[code.tag] ?? (typeof code.val === "string" ? code.val : code.tag);
  return error instanceof Error ? error.message : String(error);
}
