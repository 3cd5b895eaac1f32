// The exports of the contract. They call the functions that `dormouse_sdk.h` asks an author to define.

#include "dormouse_sdk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A line is attributed to the call that wrote it only if it is flushed while the call runs.
__attribute__((constructor)) static void write_whole_lines(void) {
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
}

__attribute__((weak)) bool initialize(const dormouse_context_t *ctx, dormouse_result_t *error) {
  (void)ctx;
  (void)error;
  return true;
}

__attribute__((weak)) void pre_freeze(const dormouse_context_t *ctx) {
  (void)ctx;
}

__attribute__((weak)) void pre_stop(const dormouse_context_t *ctx) {
  (void)ctx;
}

static void set(dormouse_result_t *result, char *bytes, size_t length) {
  free(result->bytes);
  result->bytes = bytes;
  result->length = length;
}

static void set_text(dormouse_result_t *result, const char *format, va_list values) {
  char *text = NULL;
  int length = vasprintf(&text, format, values);
  // There is no memory for the text: a trap is better than a wrong answer.
  if (length < 0) abort();
  set(result, text, (size_t)length);
}

bool reply(dormouse_result_t *result, const char *format, ...) {
  va_list values;
  va_start(values, format);
  set_text(result, format, values);
  va_end(values);
  return true;
}

bool fail(dormouse_result_t *result, const char *format, ...) {
  va_list values;
  va_start(values, format);
  set_text(result, format, values);
  va_end(values);
  return false;
}

bool reply_bytes(dormouse_result_t *result, const void *bytes, size_t length) {
  char *copy = malloc(length > 0 ? length : 1);
  if (copy == NULL) abort();
  memcpy(copy, bytes, length);
  set(result, copy, length);
  return true;
}

bool exports_dormouse_initializer(dormouse_initializer_context_t *ctx, dormouse_string_t *error) {
  dormouse_result_t result = {0};
  bool done = initialize(ctx, &result);
  dormouse_context_free(ctx);
  if (done) {
    free(result.bytes);
  } else {
    *error = (dormouse_string_t){.ptr = (uint8_t *)result.bytes, .len = result.length};
  }
  return done;
}

bool exports_dormouse_handler(
    dormouse_context_t *ctx, dormouse_list_u8_t *event, dormouse_list_u8_t *answer, dormouse_string_t *error) {
  size_t length = event->len;
  char *bytes = realloc(length > 0 ? event->ptr : NULL, length + 1);
  if (bytes == NULL) abort();
  bytes[length] = '\0';
  dormouse_result_t result = {0};
  bool done = handle(ctx, bytes, length, &result);
  free(bytes);
  dormouse_context_free(ctx);
  if (done) {
    *answer = (dormouse_list_u8_t){.ptr = (uint8_t *)result.bytes, .len = result.length};
  } else {
    *error = (dormouse_string_t){.ptr = (uint8_t *)result.bytes, .len = result.length};
  }
  return done;
}

void exports_dormouse_pre_freeze(dormouse_context_t *ctx) {
  pre_freeze(ctx);
  dormouse_context_free(ctx);
}

void exports_dormouse_pre_stop(dormouse_context_t *ctx) {
  pre_stop(ctx);
  dormouse_context_free(ctx);
}
