// A parser of visits with all four hooks: spans that make no request slower, and a session that is closed in order.
//
// A request measures itself and notes a span. Before the instance rests, one request takes all spans to a collector;
// before it goes, the rest is flushed and the session closed.
//
// `curl -d '{"page": "/tea"}' http://127.0.0.1:8080/invoke/javascript`, then `dormouse logs javascript`. Without
// `COLLECTOR_URL` the spans go to the log; with it they are posted there, to a host that must be allowed.

import { decode, serve } from "../../guest-sdk/javascript/dormouse.js";

// A collector that stays away must not cost all memory.
const SPANS_MAX = 10_000;

const visits = new Map();
let spans = [];
let session;

export const { handler, initializer, preFreeze, preStop } = serve({
  async initializer(ctx) {
    session = crypto.randomUUID();
    console.log(`instance ${ctx.instanceId} opened session ${session}`);
  },

  async handler(ctx, event) {
    const began = performance.now();
    const { page } = JSON.parse(decode(event));
    if (typeof page !== "string") throw new Error('expected an event such as {"page": "/tea"}');
    visits.set(page, (visits.get(page) ?? 0) + 1);
    spans.push({ name: "visit", request: ctx.requestId, at: Date.now(), ms: performance.now() - began });
    return JSON.stringify({ page, visits: visits.get(page), session }) + "\n";
  },

  async preFreeze(ctx) {
    if (spans.length === 0) return;
    const batch = spans;
    spans = [];
    try {
      await flush(ctx, batch);
    } catch (error) {
      console.warn(`${batch.length} spans wait for the next freeze: ${error.message}`);
      spans = batch.slice(-SPANS_MAX).concat(spans);
    }
  },

  async preStop(ctx) {
    await flush(ctx, spans);
    console.log(`instance ${ctx.instanceId} closed session ${session} after ${visits.size} pages`);
  },
});

async function flush(ctx, batch) {
  if (batch.length === 0) return;
  const url = process.env.COLLECTOR_URL;
  if (url === undefined) {
    console.log(`${batch.length} spans, the slowest ${Math.max(...batch.map((span) => span.ms)).toFixed(3)} ms`);
    return;
  }
  const body = JSON.stringify({ function: ctx.function, instance: ctx.instanceId, spans: batch });
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
    timeoutMs: 2000,
  });
  if (!response.ok) throw new Error(`the collector answered ${response.status}`);
}
