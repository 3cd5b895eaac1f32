// Requests to others, as `http` and `https` make them, through the SDK's `fetch`. Bodies are not streamed.

const { EventEmitter } = require("events");
const { Readable } = require("stream");

class Request extends EventEmitter {
  #options;
  #chunks = [];
  #headers = {};
  #over = false;

  constructor(options) {
    super();
    this.#options = options;
    this.method = options.method ?? "GET";
    this.path = options.path ?? "/";
    for (const [name, value] of Object.entries(options.headers ?? {})) this.setHeader(name, value);
  }

  setHeader(name, value) {
    this.#headers[name.toLowerCase()] = value;
  }

  getHeader(name) {
    return this.#headers[name.toLowerCase()];
  }

  removeHeader(name) {
    delete this.#headers[name.toLowerCase()];
  }

  flushHeaders() {}
  setNoDelay() {}
  setSocketKeepAlive() {}

  setTimeout(ms, callback) {
    this.#options.timeout = ms;
    if (callback !== undefined) this.once("timeout", callback);
    return this;
  }

  write(chunk, encoding, callback) {
    this.#chunks.push(Buffer.from(chunk, typeof encoding === "string" ? encoding : undefined));
    (typeof encoding === "function" ? encoding : callback)?.();
    return true;
  }

  end(chunk, encoding, callback) {
    if (typeof chunk === "function") [chunk, callback] = [undefined, chunk];
    if (chunk !== undefined && chunk !== null) this.write(chunk, encoding);
    callback?.();
    this.#send().catch((error) => this.#over || this.emit("error", Object.assign(error, { code: "ECONNREFUSED" })));
    return this;
  }

  destroy(error) {
    this.#over = true;
    if (error !== undefined) queueMicrotask(() => this.emit("error", error));
    return this;
  }

  abort() {
    this.destroy();
  }

  async #send() {
    const { protocol, hostname, host, port, auth, timeout } = this.#options;
    const name = hostname ?? host ?? "localhost";
    const at = port === undefined || port === null || port === "" || name.includes(":") ? name : `${name}:${port}`;
    const headers = { ...this.#headers };
    for (const own of ["host", "connection", "transfer-encoding", "content-length"]) delete headers[own];
    if (auth) headers.authorization ??= `Basic ${Buffer.from(auth).toString("base64")}`;
    const body = this.#chunks.length > 0 ? Buffer.concat(this.#chunks) : undefined;
    if (body !== undefined) headers["content-length"] = String(body.length);
    const asked = { method: this.method, headers, body, timeoutMs: timeout };
    const response = await fetch(`${protocol}//${at}${this.path}`, asked);
    if (this.#over) return;
    const bytes = Buffer.from(await response.bytes());
    const message = Object.assign(Readable.from(bytes.length > 0 ? [bytes] : []), {
      headers: Object.fromEntries(response.headers),
      httpVersion: "1.1",
      rawHeaders: [...response.headers].flat(),
      statusCode: response.status,
      statusMessage: "",
    });
    this.emit("response", message);
  }
}

function of(protocol) {
  const request = (target, options, callback) => {
    if (typeof options === "function") [options, callback] = [{}, options];
    let own = target;
    if (typeof target === "string" || target instanceof URL) {
      const url = new URL(target);
      const { hostname, port, pathname, search, username, password } = url;
      own = { protocol: url.protocol, hostname, port, path: pathname + search };
      if (username !== "") own.auth = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    }
    const made = new Request({ protocol, ...own, ...options });
    if (callback !== undefined) made.once("response", callback);
    return made;
  };
  class Agent {}
  return {
    Agent,
    ClientRequest: Request,
    METHODS: ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"],
    STATUS_CODES: {},
    createServer() {
      throw new Error("a function has no server of its own: requests come to its handler");
    },
    get: (...args) => request(...args).end(),
    globalAgent: new Agent(),
    request,
  };
}

module.exports = { ...of("http:"), of };
