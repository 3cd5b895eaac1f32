// The guest that the integration tests script, as an event function: `script.js` on top of the JavaScript SDK.

import { decode, serve } from "../../../guest-sdk/javascript/dormouse.js";
import { instance } from "./script.js";

// What a module reads while it is evaluated, at the build, must not stay in its instances.
const { env } = process;
const loadedAt = performance.now();
Math.random();

const guest = instance({
  env: () => {
    if (performance.now() < 0 || loadedAt < 0) throw new Error("the clock of the build goes on");
    return env;
  },
  exit: () => process.exit(1),
});

export const { handler, initializer, preFreeze, preStop } = serve({
  ...guest,
  handler: (ctx, event) => guest.handler(ctx, decode(event, true)),
});
