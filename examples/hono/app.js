// An application of the web framework Hono, as componentize-js and jco build it for any host of `wasi:http`. It has hooks
// because it answers three paths: `POST /initialize`, `GET /pre-freeze` and `GET /pre-stop`.
//
// `curl http://127.0.0.1:8080/fn/hono/tea`, then `dormouse logs hono`.

import { Hono } from "hono";
import { fire } from "@bytecodealliance/jco-std/wasi/0.2.12/http/adapters/hono/server";

const app = new Hono();
const visits = new Map();
let untold = 0;

// The adapter needs a body in every answer.
app.post("/initialize", (c) => {
  console.log(`opens as ${c.req.header("x-fc-instance-id")}`);
  return c.text("ok");
});

app.get("/pre-freeze", (c) => {
  console.log(`${untold} visits since the last rest`);
  untold = 0;
  return c.text("ok");
});

app.get("/pre-stop", (c) => {
  console.log(`closes after ${[...visits.values()].reduce((sum, count) => sum + count, 0)} visits`);
  return c.text("ok");
});

app.post("/:page", async (c) => c.json({ page: c.req.param("page"), length: (await c.req.text()).length }));

app.get("/:page", (c) => {
  const page = c.req.param("page");
  visits.set(page, (visits.get(page) ?? 0) + 1);
  untold += 1;
  return c.json({ page, visits: visits.get(page) });
});

fire(app);

export { incomingHandler } from "@bytecodealliance/jco-std/wasi/0.2.12/http/adapters/hono/server";
