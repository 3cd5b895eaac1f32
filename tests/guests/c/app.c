// The guest that the integration tests script, in C: `guest-script` once more, on top of the C SDK. It has one task, so
// no step starts another.
//
// An event lists steps, the reply their results. The hooks run scripts as well, from the environment variables
// `INITIALIZER`, `PRE_FREEZE` and `PRE_STOP`, and report to standard output and to `HOOK_URL` if that is set.

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dormouse_sdk.h"
#include "json.h"

#define MB ((size_t)1 << 20)
#define SPIN 1000

// What the instance remembers between its calls.
static struct {
  uint64_t requests, freezes, count, in_flight, max_in_flight, kept_mb;
  uint64_t awake_since_ns;  // When the first request since the last freeze began; 0 if there was none.
  text_t calls;             // The inside of a list of strings.
} state;

// Why a script ended early.
static text_t failure;

static uint64_t now_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void note(const char *call, const dormouse_context_t *ctx) {
  if (state.calls.length > 0) text_add(&state.calls, ",");
  if (ctx == NULL) {
    text_add(&state.calls, "\"%s\"", call);
  } else {
    text_add(&state.calls, "\"%s:%.*s\"", call, (int)ctx->request_id.len, ctx->request_id.ptr);
  }
}

// Each iteration depends on the one before.
static uint64_t work(uint64_t iterations) {
  uint64_t sum = 0x9e3779b97f4a7c15;
  for (uint64_t step = 0; step < iterations; step += 1) {
    sum = (sum ^ step) * 0x0100000001b3;
    sum = (sum << 23) | (sum >> 41);
  }
  return sum;
}

static volatile uint64_t sink;

static void spin_until(uint64_t end_ns) {
  while (now_ns(CLOCK_MONOTONIC) < end_ns) sink = work(SPIN);
}

static uint64_t fib(uint64_t n) {
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

// A compiler leaves out memory that nobody looks at.
static char *volatile last_kept;

static void grow(size_t mb) {
  char *kept = last_kept = malloc(mb * MB);
  // C would go on; the tests want to see what the host makes of a guest that cannot.
  if (kept == NULL) abort();
  memset(kept, 1, mb * MB);
  state.kept_mb += mb;
}

static void add_string(text_t *out, dormouse_string_t string) {
  text_add_json(out, (const char *)string.ptr, string.len);
}

static void add_context(text_t *out, const dormouse_context_t *ctx) {
  text_add(out, "{\"requestId\":");
  add_string(out, ctx->request_id);
  text_add(out, ",\"function\":");
  add_string(out, ctx->function);
  text_add(out, ",\"version\":");
  add_string(out, ctx->version);
  text_add(out, ",\"instanceId\":");
  add_string(out, ctx->instance_id);
  uint64_t now_ms = now_ns(CLOCK_REALTIME) / 1000000;
  uint64_t remaining_ms = ctx->deadline_ms > now_ms ? ctx->deadline_ms - now_ms : 0;
  text_add(out, ",\"memoryMb\":%" PRIu32 ",\"deadlineMs\":%" PRIu64, ctx->memory_mb, ctx->deadline_ms);
  text_add(out, ",\"remainingMs\":%" PRIu64 ",\"attempt\":%" PRIu32 ",\"traceparent\":", remaining_ms, ctx->attempt);
  if (ctx->traceparent.is_some) {
    add_string(out, ctx->traceparent.val);
  } else {
    text_add(out, "null");
  }
  text_add(out, "}");
}

extern char **environ;

static void add_environment(text_t *out) {
  text_add(out, "{");
  for (char **variable = environ; variable != NULL && *variable != NULL; variable += 1) {
    const char *value = strchr(*variable, '=');
    if (value == NULL) continue;
    if (variable != environ) text_add(out, ",");
    text_add_json(out, *variable, (size_t)(value - *variable));
    text_add(out, ":");
    text_add_json(out, value + 1, strlen(value + 1));
  }
  text_add(out, "}");
}

static void send(text_t *out, const char *method, const char *url, const char *body) {
  dormouse_request_t request = {.method = method, .url = url, .body = body, .body_length = strlen(body)};
  dormouse_response_t response;
  if (fetch(&request, &response)) {
    text_add(out, "{\"status\":%d,\"body\":", response.status);
    text_add_json(out, response.body, response.body_length);
  } else {
    text_add(out, "{\"error\":");
    text_add_json(out, response.error, strlen(response.error));
  }
  text_add(out, "}");
  dormouse_response_free(&response);
}

// Takes one step, and adds its result; false if the script is to end, for the reason in `failure`.
static bool take(const step_t *step, const dormouse_context_t *ctx, text_t *out) {
  const char *name = step->name, *text = step->text[0];
  uint64_t number = (uint64_t)step->number;
#define IS(other) (strcmp(name, other) == 0)
  // Time and computing.
  if (IS("sleep-ms")) usleep((useconds_t)number * 1000);
  else if (IS("spin-ms")) spin_until(now_ns(CLOCK_MONOTONIC) + number * 1000000);
  else if (IS("spin-until-ms")) spin_until(state.awake_since_ns + (uint64_t)(step->number * 1e6));
  else if (IS("spin-forever")) spin_until(UINT64_MAX);
  else if (IS("work")) return text_add(out, "%" PRIu64, work(number));
  else if (IS("fib")) return text_add(out, "%" PRIu64, fib(number));
  else if (IS("now")) return text_add(out, "%" PRIu64, now_ns(CLOCK_REALTIME) / 1000000);
  // Room.
  else if (IS("grow-mb")) grow(number);
  else if (IS("grow-forever")) for (;;) grow(1);
  else if (IS("reply-bytes")) {}  // The handler looks for it when all steps are done.
  // Ends.
  else if (IS("fail")) return !text_add(&failure, "%s", text);
  else if (IS("trap")) __builtin_trap();
  // The world outside.
  else if (IS("print")) puts(text);
  else if (IS("eprint")) fprintf(stderr, "%s\n", text);
  else if (IS("print-forever")) {
    // Many to a line: else a slow host takes lines for ever, because they come slower than the log takes them.
    for (unsigned long printed = 1;; printed++) fputs(printed % 100 ? "All work and no sleep. " : "\n", stdout);
  }
  else if (IS("http-get")) return send(out, "GET", text, ""), true;
  else if (IS("http-post")) return send(out, "POST", text, step->text[1]), true;
  else if (IS("env")) return add_environment(out), true;
  else if (IS("context")) return add_context(out, ctx), true;
  // What the instance remembers.
  else if (IS("count")) return text_add(out, "%" PRIu64, state.count += 1);
  else if (IS("ticks")) return text_add(out, "0");
  else if (IS("log")) return text_add(out, "[%s]", state.calls.bytes);
  else if (IS("max-in-flight")) return text_add(out, "%" PRIu64, state.max_in_flight);
  else return !text_add(&failure, "unknown step `%s`", name);
#undef IS
  return text_add(out, "null");
}

// Takes the steps in order and adds their results, separated by commas. The first one that fails ends the script.
static bool run(const char *script, const dormouse_context_t *ctx, text_t *out, uint64_t *reply_length) {
  text_clear(&failure);
  reader_t reader;
  if (!script_begin(&reader, script)) return !text_add(&failure, "expected a script such as {\"do\": [\"count\"]}");
  step_t step;
  for (bool first = true; script_next(&reader, &step); first = false) {
    if (!first) text_add(out, ",");
    if (!take(&step, ctx, out)) return false;
    if (strcmp(step.name, "reply-bytes") == 0) *reply_length = (uint64_t)step.number;
  }
  return true;
}

static bool run_hook(const char *variable, const dormouse_context_t *ctx) {
  const char *script = getenv(variable);
  if (script == NULL || *script == '\0') return true;
  text_t ignored = {0};
  uint64_t no_length;
  bool done = run(script, ctx, &ignored, &no_length);
  free(ignored.bytes);
  return done;
}

// Tells `HOOK_URL`, if set, that a hook was called. Whether anybody listens is not the hook's concern.
static void report(const char *hook, const dormouse_context_t *ctx) {
  const char *url = getenv("HOOK_URL");
  if (url == NULL || *url == '\0') return;
  text_t told = {0}, answer = {0};
  text_add(&told, "{\"hook\":\"%s\",\"instance\":", hook);
  add_string(&told, ctx->instance_id);
  text_add(&told, ",\"requests\":%" PRIu64 "}", state.requests);
  send(&answer, "POST", url, told.bytes);
  if (strncmp(answer.bytes, "{\"error\"", 8) == 0) fprintf(stderr, "%s could not report: %s\n", hook, answer.bytes);
  free(told.bytes);
  free(answer.bytes);
}

bool initialize(const dormouse_context_t *ctx, dormouse_result_t *error) {
  note("initializer", NULL);
  printf("initializer %.*s\n", (int)ctx->request_id.len, ctx->request_id.ptr);
  report("initializer", ctx);
  return run_hook("INITIALIZER", ctx) || fail(error, "%s", failure.bytes);
}

bool handle(const dormouse_context_t *ctx, const char *event, size_t length, dormouse_result_t *result) {
  (void)length;
  state.requests += 1;
  if (state.awake_since_ns == 0) state.awake_since_ns = now_ns(CLOCK_MONOTONIC);
  state.in_flight += 1;
  if (state.in_flight > state.max_in_flight) state.max_in_flight = state.in_flight;
  note("handler", ctx);
  text_t results = {0};
  uint64_t reply_length = UINT64_MAX;
  bool done = run(event, ctx, &results, &reply_length);
  if (!done) {
    fail(result, "%s", failure.bytes);
  } else if (reply_length != UINT64_MAX) {
    char *bytes = malloc(reply_length + 1);
    if (bytes == NULL) abort();
    reply_bytes(result, memset(bytes, 'x', reply_length), reply_length);
    free(bytes);
  } else {
    reply(result, "{\"results\":[%s],\"state\":{\"requests\":%" PRIu64 ",\"freezes\":%" PRIu64 ",\"count\":%" PRIu64
          ",\"ticks\":0,\"inFlight\":%" PRIu64 ",\"maxInFlight\":%" PRIu64 ",\"keptMb\":%" PRIu64 "}}",
          results.bytes == NULL ? "" : results.bytes, state.requests, state.freezes, state.count, state.in_flight,
          state.max_in_flight, state.kept_mb);
  }
  free(results.bytes);
  state.in_flight -= 1;
  return done;
}

// Reports, then runs the hook's script. A hook has nobody to answer to, so a failure goes to standard error.
static void hook(const char *name, const char *variable, const dormouse_context_t *ctx) {
  report(name, ctx);
  if (!run_hook(variable, ctx)) fprintf(stderr, "%s failed: %s\n", name, failure.bytes);
}

void pre_freeze(const dormouse_context_t *ctx) {
  state.freezes += 1;
  note("pre-freeze", ctx);
  printf("pre-freeze %.*s freezes=%" PRIu64 "\n", (int)ctx->request_id.len, ctx->request_id.ptr, state.freezes);
  hook("pre-freeze", "PRE_FREEZE", ctx);
  state.awake_since_ns = 0;
}

void pre_stop(const dormouse_context_t *ctx) {
  note("pre-stop", ctx);
  printf("pre-stop %.*s requests=%" PRIu64 "\n", (int)ctx->request_id.len, ctx->request_id.ptr, state.requests);
  hook("pre-stop", "PRE_STOP", ctx);
}
