// Write a Dormouse function in C: define `handle`, and those of the hooks that you need.
//
// `dormouse.h`, which wit-bindgen makes from the contract, has the context's fields: strings there are a pointer and a
// length, to be printed with "%.*s". What a call was given is freed when it returns; an instance has one call at a time.

#ifndef DORMOUSE_SDK_H
#define DORMOUSE_SDK_H

#include <stdbool.h>
#include <stddef.h>

#include "dormouse.h"

// What a call ends with. Set it with one of the functions below; unset, it is an empty reply or an error without words.
typedef struct {
  char *bytes;
  size_t length;
} dormouse_result_t;

// Runs for each request. The event has a zero byte after its end. False means that it failed: the caller gets the error's
// text, so it must hold no secrets.
bool handle(const dormouse_context_t *ctx, const char *event, size_t length, dormouse_result_t *result);

// Runs once before the first request, if the function is configured with an initializer. False means that it failed.
bool initialize(const dormouse_context_t *ctx, dormouse_result_t *error);

// Runs each time before the instance is parked.
void pre_freeze(const dormouse_context_t *ctx);

// Runs before the instance goes.
void pre_stop(const dormouse_context_t *ctx);

// Sets a text, as `printf` makes it; returns true, for `return reply(...)`.
bool reply(dormouse_result_t *result, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Sets bytes, which are copied; returns true.
bool reply_bytes(dormouse_result_t *result, const void *bytes, size_t length);

// Sets an error's text; returns false, for `return fail(...)`.
bool fail(dormouse_result_t *result, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
