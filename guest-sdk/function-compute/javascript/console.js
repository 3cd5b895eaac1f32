// `console` in the form that lines have at Function Compute: time, request and level come first.

import { console as plainConsole, text } from "../../javascript/console.js";
import { stackOf } from "./stack.js";

const running = new Set();

export const lines = {
  /** Notes a request; returns what ends it. */
  begin(requestId) {
    running.add(requestId);
    return () => running.delete(requestId);
  },
  /** The request that is running; with several at once nobody can tell whose line it is. The host knows, and notes it. */
  get request() {
    return running.size === 1 ? running.values().next().value : "-";
  },
};

/** A console. With `requestId`, one for this request alone. */
export function consoleOf(requestId) {
  const level = (write, name) => (...values) =>
    write(`${new Date().toISOString()} ${requestId ?? lines.request} [${name}] ${format(values)}`);
  return {
    debug: level(plainConsole.log, "debug"),
    error: level(plainConsole.error, "error"),
    info: level(plainConsole.log, "info"),
    log: level(plainConsole.log, "verbose"),
    trace: level(plainConsole.log, "verbose"),
    warn: level(plainConsole.error, "warn"),
  };
}

function format([first, ...values]) {
  if (typeof first !== "string") return [first, ...values].map(plain).join(" ");
  const filled = first.replace(/%([sdifjoO%])/g, (all, kind) => {
    if (kind === "%") return "%";
    if (values.length === 0) return all;
    const value = values.shift();
    return kind === "d" || kind === "i" || kind === "f" ? String(Number(value)) : plain(value);
  });
  return [filled, ...values.map(plain)].join(" ");
}

/** A value as the log shows it. */
export function plain(value) {
  const error = value?.error instanceof Error ? value.error : value;
  if (!(error instanceof Error)) return text(value);
  return [`${error.name}: ${error.message}`, ...stackOf(error).map((line) => `    ${line}`)].join("\n");
}
