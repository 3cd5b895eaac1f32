// The most used part of `fetch`. Bodies are not streamed.

import { send } from "dormouse:function/outgoing@0.1.0";

import { decode, encode } from "./text.js";

class Response {
  #body;

  constructor({ status, headers, body }) {
    this.status = status;
    this.headers = new Map();
    for (const [name, value] of headers) {
      const field = decode(value);
      this.headers.set(name, this.headers.has(name) ? `${this.headers.get(name)}, ${field}` : field);
    }
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

/** Sends a request and reads the whole response. Any status is a response; without one, throws a `TypeError`. */
export async function fetch(url, { method = "GET", headers = {}, body, timeoutMs } = {}) {
  const parts = /^https?:\/\/([^/?#@]+)/i.exec(String(url));
  if (parts === null) throw new TypeError("fetch needs a URL of http or https with a host, and without credentials");
  const verb = method.toUpperCase();
  const answer = await send({
    method: verb,
    url: String(url).replace(/#.*/, ""),
    headers: Object.entries(headers).map(([name, value]) => [name, encode(String(value))]),
    body: bytesOf(body),
    timeoutMs: timeoutMs === undefined ? null : milliseconds(timeoutMs),
  }).read();
  // Without the path and the query: these may contain secrets, and an error's text may reach a caller.
  if (answer.tag === "err") throw new TypeError(`${verb} ${parts[1]}: ${answer.val}`);
  return new Response(answer.val);
}

function milliseconds(time) {
  if (typeof time === "number" && time >= 0 && time <= Number.MAX_SAFE_INTEGER) return Math.round(time);
  throw new RangeError(`timeoutMs is ${String(time)}; it must be a number of milliseconds from 0 to ${Number.MAX_SAFE_INTEGER}`);
}

function bytesOf(body) {
  if (body === undefined || body === null) return null;
  if (typeof body === "string") return encode(body);
  return ArrayBuffer.isView(body) ? new Uint8Array(body.buffer, body.byteOffset, body.byteLength) : new Uint8Array(body);
}
