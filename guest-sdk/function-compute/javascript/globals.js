// Globals of Node.js that neither QuickJS nor the SDK has.

import "./browser.js";
import "core-js/actual/url/index.js";
import "core-js/actual/structured-clone.js";
import "core-js/actual/queue-microtask.js";
import "core-js/actual/atob.js";
import "core-js/actual/btoa.js";

import "../../javascript/dormouse.js";
import { Buffer } from "buffer";

import { consoleOf } from "./console.js";

const write = (stream) => ({
  isTTY: false,
  // Lines; the console ends each itself.
  write: (chunk) => (globalThis.console[stream](String(chunk).replace(/\n$/, "")), true),
});

Object.assign(globalThis, {
  Buffer,
  clearImmediate: clearTimeout,
  console: consoleOf(),
  global: globalThis,
  setImmediate: (callback, ...args) => setTimeout(callback, 0, ...args),
});
Object.assign(globalThis.process, {
  arch: "wasm32",
  argv: ["node", "/code/index.js"],
  cwd: () => "/code",
  emitWarning: (warning) => console.warn(String(warning)),
  execArgv: [],
  hrtime: Object.assign((since) => elapsed(since), { bigint: () => BigInt(Math.round(performance.now() * 1e6)) }),
  memoryUsage: () => ({ rss: 0, heapTotal: 0, heapUsed: 0, external: 0, arrayBuffers: 0 }),
  nextTick: (callback, ...args) => queueMicrotask(() => callback(...args)),
  off: () => process,
  on: () => process,
  once: () => process,
  pid: 1,
  platform: "linux",
  release: { name: "node" },
  stderr: write("error"),
  stdout: write("log"),
  uptime: () => performance.now() / 1000,
  version: "v20.0.0",
  versions: { node: "20.0.0" },
});

// Packages look at stacks as V8 has them; QuickJS lacks some of what is asked of each place.
const { captureStackTrace } = Error;
Error.captureStackTrace = (target, above) => {
  captureStackTrace(target, above);
  if (Array.isArray(target.stack)) target.stack = target.stack.map(place);
};

function place(site) {
  const ask = (name) => () => (typeof site[name] === "function" ? site[name]() : undefined);
  const names = ["getColumnNumber", "getFileName", "getFunction", "getFunctionName", "getLineNumber"];
  const no = ["isConstructor", "isEval", "isNative", "isToplevel"].map((name) => [name, () => false]);
  const none = ["getEvalOrigin", "getMethodName", "getThis", "getTypeName"].map((name) => [name, () => undefined]);
  return Object.fromEntries([...names.map((name) => [name, ask(name)]), ...no, ...none]);
}

function elapsed(since) {
  const now = Math.round(performance.now() * 1e6);
  const ns = since === undefined ? now : now - (since[0] * 1e9 + since[1]);
  return [Math.floor(ns / 1e9), ns % 1e9];
}

export { Buffer };
