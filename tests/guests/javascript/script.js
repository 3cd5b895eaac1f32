// What guests in JavaScript do when the integration tests script them: `guest-script` once more. `app.js` puts it on the
// JavaScript SDK, and `tests/guests/hono` behind a web application.
//
// An event lists steps, the reply their results. The hooks run scripts as well, from the environment variables
// `INITIALIZER`, `PRE_FREEZE` and `PRE_STOP`, and report to standard output and to `HOOK_URL` if that is set.

const MB = 1 << 20;

// What the instance remembers between its calls.
const state = { requests: 0, freezes: 0, count: 0, ticks: 0, inFlight: 0, maxInFlight: 0 };
const calls = [];
const kept = [];
let awakeSince; // When the first request since the last freeze began.

// What differs from engine to engine: `env()` gives the environment, `exit()` ends the instance.
let engine;

export function instance(givenEngine) {
  engine = givenEngine;
  return functions;
}

const functions = {
  async initializer(ctx) {
    calls.push("initializer");
    console.log(`initializer ${ctx.requestId}`);
    await report("initializer", ctx);
    await run(scriptOf("INITIALIZER"), ctx);
  },

  async handler(ctx, text) {
    const script = parsed(text);
    state.requests += 1;
    awakeSince ??= performance.now();
    state.inFlight += 1;
    state.maxInFlight = Math.max(state.maxInFlight, state.inFlight);
    calls.push(`handler:${ctx.requestId}`);
    try {
      const results = await run(script, ctx);
      const sized = script.findLast((step) => step["reply-bytes"] !== undefined);
      if (sized !== undefined) return "x".repeat(sized["reply-bytes"]);
      const keptMb = kept.reduce((sum, bytes) => sum + bytes.length, 0) / MB;
      return JSON.stringify({ results, state: { ...state, keptMb } });
    } finally {
      state.inFlight -= 1;
    }
  },

  async preFreeze(ctx) {
    state.freezes += 1;
    calls.push(`pre-freeze:${ctx.requestId}`);
    console.log(`pre-freeze ${ctx.requestId} freezes=${state.freezes}`);
    await hook("pre-freeze", "PRE_FREEZE", ctx);
    awakeSince = undefined;
  },

  async preStop(ctx) {
    calls.push(`pre-stop:${ctx.requestId}`);
    console.log(`pre-stop ${ctx.requestId} requests=${state.requests}`);
    await hook("pre-stop", "PRE_STOP", ctx);
  },
};

// Reports, then runs the hook's script. A hook has nobody to answer to, so a failure goes to standard error.
async function hook(name, variable, ctx) {
  await report(name, ctx);
  try {
    await run(scriptOf(variable), ctx);
  } catch (error) {
    console.error(`${name} failed: ${error.message}`);
  }
}

// Tells `HOOK_URL`, if set, that a hook was called. Whether anybody listens is not the hook's concern.
async function report(name, ctx) {
  const url = engine.env().HOOK_URL;
  if (url) {
    const told = JSON.stringify({ hook: name, instance: ctx.instanceId, requests: state.requests });
    const sent = await send("POST", url, told);
    if (sent.error !== undefined) console.error(`${name} could not report: ${sent.error}`);
  }
}

function scriptOf(variable) {
  return engine.env()[variable] ? parsed(engine.env()[variable]) : [];
}

// The steps of a script, all of them known.
function parsed(text) {
  const script = JSON.parse(text);
  if (!Array.isArray(script?.do) || Object.keys(script).length !== 1) {
    throw new Error('expected a script such as {"do": ["count"]}');
  }
  for (const step of script.do) {
    if (!Object.hasOwn(steps, nameOf(step))) throw new Error(`unknown step \`${nameOf(step)}\``);
  }
  return script.do;
}

function nameOf(step) {
  return typeof step === "string" ? step : Object.keys(step ?? {})[0];
}

// Takes the steps in order. The first one that fails ends the script.
async function run(script, ctx) {
  const results = [];
  for (const step of script) {
    const argument = typeof step === "string" ? [] : Object.values(step)[0];
    const given = step === "context" ? [ctx] : Array.isArray(argument) ? argument : [argument];
    results.push((await steps[nameOf(step)](...given)) ?? null);
  }
  return results;
}

function spinUntil(end) {
  while (performance.now() < end) work(100);
}

// Each iteration depends on the one before. The numbers are those of 64 bits, as text: JSON has no others.
function work(iterations) {
  let sum = 0x9e37_79b9_7f4a_7c15n;
  for (let step = 0n; step < iterations; step += 1n) {
    sum = BigInt.asUintN(64, (sum ^ step) * 0x0100_0000_01b3n);
    sum = BigInt.asUintN(64, sum << 23n) | (sum >> 41n);
  }
  return String(sum);
}

function fib(n) {
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

function grow(mb) {
  try {
    kept.push(new Uint8Array(mb * MB).fill(1));
  } catch {
    // JavaScript would go on; the tests want to see what the host makes of a guest that cannot.
    trap();
  }
}

function trap() {
  engine.exit();
}

async function send(method, url, body, timeoutMs) {
  try {
    const response = await fetch(url, { method, body: method === "GET" ? undefined : body, timeoutMs });
    return { status: response.status, body: await response.text() };
  } catch (error) {
    return { error: error.message };
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const steps = {
  // Time and computing.
  "sleep-ms": sleep,
  "spin-ms": (ms) => spinUntil(performance.now() + ms),
  "spin-until-ms": (ms) => spinUntil((awakeSince ?? performance.now()) + ms),
  "spin-forever": () => spinUntil(Infinity),
  work,
  fib,
  random: () => Math.random(),
  now: () => Date.now(),

  // Room.
  "grow-mb": grow,
  "grow-forever": () => {
    for (;;) grow(1);
  },
  // The engine bounds its own stack and throws; nothing of the host is at risk, so the test's end is a trap.
  "recurse-forever": () => {
    const recurse = (depth) => recurse(depth + 1) + 1;
    try {
      return recurse(0);
    } catch {
      return trap();
    }
  },
  "reply-bytes": () => null, // The handler looks for it when all steps are done.

  // Ends.
  fail: (text) => {
    throw new Error(text);
  },
  panic: () => {
    console.error("the script says so");
    trap();
  },
  trap,

  // The world outside.
  print: (text) => console.log(text),
  eprint: (text) => console.error(text),
  "print-forever": () => {
    // Many to a line: it takes an interpreter long to print faster than the log takes it.
    const line = "All work and no sleep makes a dull dormouse. ".repeat(100);
    for (;;) console.log(line);
  },
  "http-get": (url) => send("GET", url, ""),
  "http-post": (url, body) => send("POST", url, body),
  "http-get-within": (url, timeout) => send("GET", url, "", Number(timeout)),
  env: () => engine.env(),
  "read-file": () => "JavaScript has no files here",
  context: (ctx) => ({ ...ctx, remainingMs: Math.max(0, ctx.deadlineMs - Date.now()) }),

  // What the instance remembers.
  "spawn-ticker-ms": (ms) => {
    setInterval(() => (state.ticks += 1), ms);
  },
  "spawn-print": (ms, text) => {
    setTimeout(() => console.log(text), ms);
  },
  "spawn-work": (iterations) => {
    setTimeout(() => work(iterations), 1);
  },
  ticks: () => state.ticks,
  count: () => (state.count += 1),
  log: () => calls,
  "max-in-flight": () => state.maxInFlight,
};
