// The exports of the contract for a folder that was written for Function Compute's Node.js runtime. `build.mjs` makes the
// entry that calls `serve`.
//
// The folder's modules run at the first call of an instance, when its environment is known. What Node.js has and QuickJS
// lacks comes from `globals.js`, and from the modules that `build.mjs` puts in the place of Node.js's own.

import { Buffer } from "./globals.js";
import { waitFor } from "wasi:clocks/monotonic-clock@0.3.0";

import { wake } from "../../javascript/system.js";
import { lines, plain } from "./console.js";
import { context } from "./context.js";
import { isRequest, serveHttp } from "./http_function.js";
import { stackOf } from "./stack.js";

const encoder = new TextEncoder();
const env = globalThis.process.env;

/** The exports. `modules` are functions that load a file of the folder, by its path without `.js`. */
export function serve(modules) {
  const find = async (entry) => {
    const end = entry.lastIndexOf(".");
    const [path, name] = [entry.slice(0, Math.max(end, 0)), entry.slice(end + 1)];
    if (path === "") throw new Error(`'${entry}' must name a file and a function in it, as \`index.handler\` does`);
    const load = modules[path];
    if (load === undefined) {
      const known = Object.keys(modules).join(", ");
      throw new Error(`'${entry}' names the file ${path}.js, which was not there when the function was built: ${known}`);
    }
    const module = await load();
    const found = module[name] ?? module.default?.[name];
    if (typeof found !== "function") throw new Error(`${path}.js exports no function \`${name}\`, which \`${entry}\` names`);
    return found;
  };

  const call = async (ctx, variable, ...event) => {
    wake();
    env.FC_INSTANCE_ID ??= ctx.instanceId;
    env.FC_FUNCTION_VERSION ??= ctx.version;
    env.FC_FUNC_CODE_PATH ??= "/code";
    const entry = env[variable] ?? (event.length > 0 ? "index.handler" : "");
    if (entry === "") return undefined;
    const end = lines.begin(ctx.requestId);
    try {
      const told = context(ctx);
      const found = await find(entry);
      // An HTTP function of a service takes a request and a response.
      if (event.length > 0 && env.FC_SERVICE_NAME && isRequest(event[0])) {
        return bytes(await awaited(serveHttp(found, event[0], told)));
      }
      const reply = await awaited(settled(found, [...event.map((whole) => Buffer.from(whole)), told]));
      return event.length > 0 ? bytes(reply) : undefined;
    } catch (error) {
      console.error(`${entry} failed: ${plain(error)}`);
      // The contract's error is a text.
      throw JSON.stringify(described(error));
    } finally {
      end();
    }
  };
  // A hook has no caller to report to. Its failure is already logged.
  const hook = (variable) => (ctx) => call(ctx, variable).then(() => undefined, () => undefined);
  return {
    handler: (ctx, event) => call(ctx, "FC_FUNCTION_HANDLER", new Uint8Array(event)),
    initializer: async (ctx) => {
      await call(ctx, "FC_FUNCTION_INITIALIZER");
    },
    preFreeze: hook("FC_PRE_FREEZE_HANDLER"),
    preStop: hook("FC_PRE_STOP_HANDLER"),
  };
}

/** How often a call that waits for nothing is looked at, in ns. */
const LOOK_EVERY = 1e9;

/**
 * The same promise, which may never be settled: without something that it waits for, the host would take the component's
 * end for a crash. It is its timeout that ends it.
 */
async function awaited(promise) {
  let isOver = false;
  promise.then(() => (isOver = true), () => (isOver = true));
  // Most are settled by now.
  for (let turn = 0; turn < 8 && !isOver; turn += 1) await null;
  const wait = async () => {
    while (!isOver) await waitFor(LOOK_EVERY);
  };
  if (!isOver) wait();
  return promise;
}

/** What a function of the folder ends with: by its promise, by its callback, or by returning if it takes no callback. */
function settled(found, args) {
  return new Promise((resolve, reject) => {
    const callback = (error, result) => {
      if (error === undefined || error === null) resolve(result);
      else reject(new Reported(error));
    };
    const returned = found(...args, callback);
    if (typeof returned?.then === "function") returned.then(resolve, reject);
    else if (found.length <= args.length) resolve(returned);
  });
}

/** An error that the function gave to its callback. */
class Reported {
  constructor(error) {
    this.error = error;
  }
}

function described(thrown) {
  const handled = thrown instanceof Reported;
  const error = handled ? thrown.error : thrown;
  const isError = error instanceof Error;
  return {
    errorMessage: isError ? String(error.message) : worded(error),
    errorType: isError ? String(error.name) : "Error",
    stackTrace: isError ? stackOf(error) : [],
    handled,
  };
}

/** What is no error, as text. */
function worded(thrown) {
  if (typeof thrown === "string") return thrown;
  try {
    return JSON.stringify(thrown) ?? String(thrown);
  } catch {
    return String(thrown);
  }
}

function bytes(reply) {
  if (reply === undefined || reply === null) return new Uint8Array();
  if (typeof reply === "string") return encoder.encode(reply);
  if (ArrayBuffer.isView(reply)) return new Uint8Array(reply.buffer, reply.byteOffset, reply.byteLength).slice();
  if (reply instanceof ArrayBuffer) return new Uint8Array(reply);
  return encoder.encode(JSON.stringify(reply));
}
