// Timers on the clock of WASI. A timer that is due while its instance is parked fires at the next thaw.

import { waitFor } from "wasi:clocks/monotonic-clock@0.3.0";

import { console, text } from "./console.js";

const active = new Set();
let last = 0;

function start(callback, ms, args, again) {
  if (typeof callback !== "function") throw new TypeError("a timer needs a function");
  const id = ++last;
  active.add(id);
  run(id, callback, Math.max(0, Number(ms) || 0), args, again);
  return id;
}

async function run(id, callback, ms, args, again) {
  do {
    await waitFor(Math.round(ms * 1e6));
    if (!active.has(id)) return;
    try {
      callback(...args);
    } catch (error) {
      console.error(`a timer failed: ${text(error)}`);
    }
  } while (again && active.has(id));
  active.delete(id);
}

export function setTimeout(callback, ms = 0, ...args) {
  return start(callback, ms, args, false);
}

export function setInterval(callback, ms = 0, ...args) {
  return start(callback, ms, args, true);
}

/** Stops a timeout or an interval. The wait continues in the host and ends without a call. */
export function clearTimeout(id) {
  active.delete(id);
}
