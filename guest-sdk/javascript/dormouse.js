// Write a Dormouse function as a JavaScript module. Pass the function to `serve`. Importing this module also provides
// what QuickJS lacks: timers, `fetch`, `console`, `TextEncoder`, `TextDecoder`, `crypto`, `performance` and `process`.
// `dormouse.d.ts` describes all of it.
//
// The module is evaluated when the component is built, and every instance starts from a copy of that state. So nothing
// here may use the host before the first call.

import { encode, decode, TextEncoder, TextDecoder } from "./text.js";
import { console, text } from "./console.js";
import { setTimeout, setInterval, clearTimeout } from "./timers.js";
import { fetch } from "./fetch.js";
import { crypto, performance, process, random, wake } from "./system.js";

Math.random = random;
Object.assign(globalThis, {
  TextEncoder,
  TextDecoder,
  clearInterval: clearTimeout,
  clearTimeout,
  console,
  crypto,
  fetch,
  performance,
  process,
  setInterval,
  setTimeout,
});

/** The exports of the contract for a function. Hooks that it does not define do nothing. */
export function serve(functions) {
  if (typeof functions.handler !== "function") {
    throw new TypeError("serve() needs a `handler(ctx, event)`");
  }
  const call = async (name, ctx, ...event) => {
    wake();
    try {
      return await functions[name]?.(context(ctx), ...event);
    } catch (error) {
      console.error(`${name} failed: ${text(error)}`);
      // The contract's error is a text, which is sent to the caller.
      throw error instanceof Error ? error.message : String(error);
    }
  };
  // A hook has no caller to report to. Its failure is already logged.
  const hook = (name) => (ctx) => call(name, ctx).then(undefined, () => undefined);
  return {
    handler: async (ctx, event) => bytes(await call("handler", ctx, new Uint8Array(event))),
    initializer: async (ctx) => {
      await call("initializer", ctx);
    },
    preFreeze: hook("preFreeze"),
    preStop: hook("preStop"),
  };
}

function bytes(reply) {
  if (typeof reply === "string") return encode(reply);
  if (reply instanceof Uint8Array) return reply;
  if (reply instanceof ArrayBuffer) return new Uint8Array(reply);
  throw `handler returned ${reply === null ? "null" : typeof reply}, neither a string nor a Uint8Array`;
}

function context(ctx) {
  return { ...ctx, remainingMs: () => Math.max(0, ctx.deadlineMs - Date.now()) };
}

export { decode, encode };
