// Greets people, and remembers how many it has greeted for as long as its instance lives.

import { decode, serve } from "./vendor/dormouse/dormouse.js";

// State: an instance keeps it between requests, awake or parked.
let greeted = 0;

export const { handler, initializer, preFreeze, preStop } = serve({
  // Runs for each request.
  async handler(ctx, event) {
    const name = decode(event).trim();
    if (name === "") throw new Error("whom shall I greet? Send a name.");
    greeted += 1;
    return `Hello, ${name}! You are number ${greeted}.\n`;
  },

  // Runs each time before the instance is parked. No caller waits for it: flush metrics, traces and buffers here.
  async preFreeze(ctx) {
    console.log(`greeted ${greeted} so far, going to sleep`);
  },
});
