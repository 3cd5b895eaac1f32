// `fetch` on top of the contract's own `outgoing`, because C bindings for `wasi:http` would need hundreds of lines.

#include <stdlib.h>
#include <string.h>

#include "dormouse_sdk.h"

typedef dormouse_function_outgoing_future_result_response_string_t future_t;
typedef dormouse_function_outgoing_result_response_string_t answer_t;

// Traps if there is no memory for the answer: a trap is better than a wrong answer.
static void *allocated(size_t size) {
  void *memory = calloc(1, size);
  if (memory == NULL) abort();
  return memory;
}

static char *text_of(const uint8_t *bytes, size_t length) {
  char *text = allocated(length + 1);
  if (length > 0) memcpy(text, bytes, length);
  return text;
}

static dormouse_string_t borrowed(const char *text) {
  return (dormouse_string_t){.ptr = (uint8_t *)text, .len = strlen(text)};
}

static dormouse_list_tuple2_string_list_u8_t headers_of(const dormouse_request_t *request) {
  size_t length = request->headers_length;
  dormouse_tuple2_string_list_u8_t *fields = allocated((length + 1) * sizeof *fields);
  for (size_t at = 0; at < length; at += 1) {
    const dormouse_header_t *header = &request->headers[at];
    fields[at].f0 = borrowed(header->name);
    fields[at].f1 = (dormouse_list_u8_t){.ptr = (uint8_t *)header->value, .len = strlen(header->value)};
  }
  return (dormouse_list_tuple2_string_list_u8_t){.ptr = fields, .len = length};
}

static future_t send_request(const dormouse_request_t *request) {
  dormouse_function_outgoing_request_t outgoing = {
      .method = borrowed(request->method == NULL ? "GET" : request->method),
      .url = borrowed(request->url),
      .headers = headers_of(request),
      .body = {.is_some = request->body_length > 0, .val = {.ptr = (uint8_t *)request->body, .len = request->body_length}},
      .timeout_ms = {.is_some = request->timeout_ms > 0, .val = request->timeout_ms},
  };
  future_t sent = dormouse_function_outgoing_send(&outgoing);
  free(outgoing.headers.ptr);
  return sent;
}

// Waits for the answer. The host writes it to the address given to `read`.
static void receive(future_t sent, answer_t *answer) {
  dormouse_waitable_status_t status = dormouse_function_outgoing_future_result_response_string_read(sent, answer);
  if (status == DORMOUSE_WAITABLE_STATUS_BLOCKED) {
    dormouse_waitable_set_t set = dormouse_waitable_set_new();
    dormouse_waitable_join(sent, set);
    dormouse_event_t event;
    dormouse_waitable_set_wait(set, &event);
    dormouse_waitable_join(sent, 0);
    dormouse_waitable_set_drop(set);
  }
  dormouse_function_outgoing_future_result_response_string_drop_readable(sent);
}

bool fetch(const dormouse_request_t *request, dormouse_response_t *response) {
  answer_t answer;
  receive(send_request(request), &answer);
  *response = (dormouse_response_t){0};
  bool received = !answer.is_err;
  if (received) {
    const dormouse_function_outgoing_response_t *ok = &answer.val.ok;
    response->status = ok->status;
    response->headers = allocated((ok->headers.len + 1) * sizeof *response->headers);
    response->headers_length = ok->headers.len;
    for (size_t at = 0; at < ok->headers.len; at += 1) {
      const dormouse_tuple2_string_list_u8_t *field = &ok->headers.ptr[at];
      response->headers[at].name = text_of(field->f0.ptr, field->f0.len);
      response->headers[at].value = text_of(field->f1.ptr, field->f1.len);
    }
    response->body = text_of(ok->body.ptr, ok->body.len);
    response->body_length = ok->body.len;
  } else {
    response->error = text_of(answer.val.err.ptr, answer.val.err.len);
  }
  dormouse_function_outgoing_result_response_string_free(&answer);
  return received;
}

void dormouse_response_free(dormouse_response_t *response) {
  for (size_t at = 0; at < response->headers_length; at += 1) {
    free((char *)response->headers[at].name);
    free((char *)response->headers[at].value);
  }
  free(response->headers);
  free(response->body);
  free(response->error);
  *response = (dormouse_response_t){0};
}
