// The guest that the integration tests script, as a web application: `script.js` behind the framework Hono, as componentize-js
// and jco make a component of `wasi:http` 0.2 of it. Its hooks are requests.

import { Hono } from "hono";
import { fire } from "@bytecodealliance/jco-std/wasi/0.2.12/http/adapters/hono/server";
import { getEnvironment } from "wasi:cli/environment@0.2.12";
import { exit } from "wasi:cli/exit@0.2.12";

import { instance } from "../javascript/script.js";

const guest = instance({ env: () => Object.fromEntries(getEnvironment()), exit: () => exit({ tag: "err" }) });

const app = new Hono();
app.post("/initialize", (c) => answer(c, guest.initializer(context(c))));
app.post("/invoke", async (c) => answer(c, guest.handler(context(c), await c.req.text())));
app.get("/pre-freeze", (c) => answer(c, guest.preFreeze(context(c))));
app.get("/pre-stop", (c) => answer(c, guest.preStop(context(c))));

async function answer(c, reply) {
  try {
    // The adapter needs a body in every answer.
    return c.text((await reply) ?? "ok");
  } catch (error) {
    return c.text(error.message, 500);
  }
}

function context(c) {
  const field = (name) => c.req.header(`x-fc-${name}`);
  return {
    requestId: field("request-id"),
    function: field("function-name"),
    version: field("version-id"),
    instanceId: field("instance-id"),
    memoryMb: Number(field("function-memory")),
    deadlineMs: Number(field("function-deadline")),
    attempt: Number(field("retry-count")) + 1,
    traceparent: c.req.header("traceparent") ?? null,
  };
}

fire(app);

export { incomingHandler } from "@bytecodealliance/jco-std/wasi/0.2.12/http/adapters/hono/server";
