// Greets people, and remembers how many it has greeted for as long as its instance lives.

#include <stdio.h>

#include "dormouse_sdk.h"

// State: an instance keeps it between requests, awake or parked.
static unsigned greeted = 0;

// Runs for each request.
bool handle(const dormouse_context_t *ctx, const char *event, size_t length, dormouse_result_t *result) {
  (void)ctx;
  if (length == 0) return fail(result, "whom shall I greet? Send a name.");
  greeted += 1;
  return reply(result, "Hello, %s! You are number %u.\n", event, greeted);
}

// Runs each time before the instance is parked. No caller waits for it: flush metrics, traces and buffers here.
void pre_freeze(const dormouse_context_t *ctx) {
  (void)ctx;
  printf("greeted %u so far, going to sleep\n", greeted);
}
