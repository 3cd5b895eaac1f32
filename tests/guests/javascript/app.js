// The guest that the integration tests script, as an event function: `script.js` on top of the JavaScript SDK.

import { decode, serve } from "../../../guest-sdk/javascript/dormouse.js";
import { instance } from "./script.js";

const guest = instance({ env: () => process.env, exit: () => process.exit(1) });

export const { handler, initializer, preFreeze, preStop } = serve({
  ...guest,
  handler: (ctx, event) => guest.handler(ctx, decode(event, true)),
});
