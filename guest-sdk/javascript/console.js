// `console`: lines in the function's log. `warn` and `error` go to standard error, everything else to standard output.

import { getStderr } from "wasi:cli/stderr@0.2.6";
import { getStdout } from "wasi:cli/stdout@0.2.6";

import { encode } from "./text.js";

/** The most bytes that the stream takes at once. */
const BYTES_MAX = 4096;

/** A value as the log shows it. */
export function text(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return `${value.name}: ${value.message}\n${value.stack ?? ""}`.trimEnd();
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value);
  } catch {
    return String(value);
  }
}

function writer(open) {
  let stream;
  return (...values) => {
    stream ??= open();
    const bytes = encode(`${values.map(text).join(" ")}\n`);
    for (let start = 0; start < bytes.length; start += BYTES_MAX) {
      stream.blockingWriteAndFlush(bytes.subarray(start, start + BYTES_MAX));
    }
  };
}

const out = writer(getStdout);
const err = writer(getStderr);

export const console = { debug: out, error: err, info: out, log: out, trace: out, warn: err };
