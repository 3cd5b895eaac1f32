// Greets people, and remembers how many it has greeted for as long as its instance lives.

import { Hono } from "hono";
import { fire } from "@bytecodealliance/jco-std/wasi/0.2.12/http/adapters/hono/server";

// State: an instance keeps it between requests, awake or parked.
let greeted = 0;

const app = new Hono();

// The host asks each time before the instance is parked. No caller waits for it: flush metrics, traces and buffers here.
app.get("/pre-freeze", (c) => {
  console.log(`greeted ${greeted} so far, going to sleep`);
  return c.text("ok");
});

// Runs for each request.
app.get("/:name", (c) => {
  greeted += 1;
  return c.text(`Hello, ${c.req.param("name")}! You are number ${greeted}.\n`);
});

fire(app);

export { incomingHandler } from "@bytecodealliance/jco-std/wasi/0.2.12/http/adapters/hono/server";
