// What differs between instances: the environment, random numbers, the clock.

import { getEnvironment } from "wasi:cli/environment@0.2.6";
import { exit } from "wasi:cli/exit@0.2.6";
import { now } from "wasi:clocks/monotonic-clock@0.3.0";
import { getRandomBytes } from "wasi:random/random@0.2.6";

let awake = false;

/** To be called before each call: the first one in an instance forgets what the build has left in the module's state. */
export function wake() {
  if (awake) return;
  awake = true;
  for (const name of Object.keys(env)) delete env[name];
  Object.assign(env, Object.fromEntries(getEnvironment()));
  origin = undefined;
  used = pool.length;
}

// One object for ever: a module may have kept it while it was evaluated, when nothing was in it yet.
const env = {};

export const process = {
  /** The function's configured environment. Empty while the module is evaluated, which happens at the build. */
  env,
  /** Ends the instance at once: its requests fail, and no hook is called. */
  exit(code = 0) {
    exit({ tag: code === 0 ? "ok" : "err" });
  },
};

/** The most bytes per call of `crypto.getRandomValues`, as in the Web Cryptography API. */
const RANDOM_BYTES_MAX = 65_536;

export const crypto = {
  getRandomValues(array) {
    if (array.byteLength > RANDOM_BYTES_MAX) throw new RangeError(`at most ${RANDOM_BYTES_MAX} bytes at once`);
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(getRandomBytes(array.byteLength));
    return array;
  },
  randomUUID() {
    const bytes = getRandomBytes(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
  },
};

let origin;

export const performance = {
  /** Milliseconds since the first call in this instance. */
  now() {
    const time = now();
    origin ??= time;
    return (time - origin) / 1e6;
  },
};

let pool = new Uint32Array(0);
let used = 0;

/** Replaces `Math.random`, whose seed would be set at the build and so be the same in all instances. */
export function random() {
  if (used + 2 > pool.length) {
    pool = crypto.getRandomValues(new Uint32Array(64));
    used = 0;
  }
  // 53 bits, the precision of a double.
  const high = pool[used++] >>> 5;
  const low = pool[used++] >>> 6;
  return (high * 2 ** 26 + low) / 2 ** 53;
}
