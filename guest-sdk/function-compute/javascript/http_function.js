// Calls an HTTP function of Function Compute 2.0, `(req, resp, context)`, with a request that came as an event, and makes
// the reply of its response.

import { Readable } from "stream";

import { Buffer } from "./globals.js";

/** True if an event is an HTTP request. */
export function isRequest(event) {
  if (event[0] !== 0x7b) return false;
  try {
    const told = JSON.parse(Buffer.from(event).toString());
    return told.version === "v1" && told.requestContext?.http !== undefined;
  } catch {
    return false;
  }
}

/** Answers a request. The function has answered when it called `resp.send`. */
export function serveHttp(handler, event, context) {
  const told = JSON.parse(Buffer.from(event).toString());
  return new Promise((resolve, reject) => {
    const returned = handler(request(told), response(resolve, reject), context);
    // An asynchronous function may fail before it sends.
    if (typeof returned?.then === "function") returned.then(undefined, reject);
  });
}

function request(told) {
  const { http } = told.requestContext;
  const body = Buffer.from(told.body, told.isBase64Encoded ? "base64" : "utf8");
  const query = told.rawQueryString === "" ? "" : `?${told.rawQueryString}`;
  const queries = {};
  for (const [name, value] of new URLSearchParams(told.rawQueryString)) {
    queries[name] = name in queries ? [].concat(queries[name], value) : value;
  }
  return Object.assign(Readable.from(body.length > 0 ? [body] : []), {
    body,
    clientIP: http.sourceIp,
    headers: told.headers,
    httpVersion: "1.1",
    method: http.method,
    path: told.rawPath,
    queries,
    url: told.rawPath + query,
  });
}

function response(resolve, reject) {
  const headers = {};
  const reply = { statusCode: 200, headers, isBase64Encoded: true };
  const named = (name) => Object.keys(headers).find((own) => own.toLowerCase() === name.toLowerCase()) ?? name;
  const send = (body) => {
    headers[named("content-type")] ??= "application/octet-stream";
    resolve(JSON.stringify({ ...reply, body: Buffer.from(body ?? "").toString("base64") }));
  };
  return {
    deleteHeader: (name) => delete headers[named(name)],
    getHeader: (name) => headers[named(name)],
    hasHeader: (name) => named(name) in headers,
    send(body) {
      if (typeof body?.pipe !== "function") return send(typeof body === "number" ? String(body) : body);
      const chunks = [];
      body.on("data", (chunk) => chunks.push(Buffer.from(chunk)));
      body.on("end", () => send(Buffer.concat(chunks)));
      body.on("error", reject);
    },
    setHeader(name, value) {
      headers[named(name)] = value;
    },
    setStatusCode(status) {
      reply.statusCode = status;
    },
  };
}
