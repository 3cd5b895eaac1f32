// Checksums in C: CRC-32 with a table that is made before the first request, and counters that are told before each freeze:
// to the log, and to a collector if `COLLECTOR_URL` names one.
//
// `curl -d 123456789 http://127.0.0.1:8080/invoke/c` answers `cbf43926`; then `dormouse logs c`.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dormouse_sdk.h"

static uint32_t table[256];
static uint64_t bytes, checksums, checksums_told;

bool initialize(const dormouse_context_t *ctx, dormouse_result_t *error) {
  (void)error;
  for (uint32_t byte = 0; byte < 256; byte += 1) {
    uint32_t sum = byte;
    for (int bit = 0; bit < 8; bit += 1) sum = sum & 1 ? 0xedb88320 ^ (sum >> 1) : sum >> 1;
    table[byte] = sum;
  }
  printf("instance %.*s has its table\n", (int)ctx->instance_id.len, ctx->instance_id.ptr);
  return true;
}

bool handle(const dormouse_context_t *ctx, const char *event, size_t length, dormouse_result_t *result) {
  (void)ctx;
  uint32_t sum = 0xffffffff;
  for (size_t at = 0; at < length; at += 1) sum = table[(sum ^ (uint8_t)event[at]) & 0xff] ^ (sum >> 8);
  bytes += length;
  checksums += 1;
  return reply(result, "%08" PRIx32 "\n", ~sum);
}

// No caller waits for this.
static void tell(const char *collector) {
  char body[64];
  snprintf(body, sizeof body, "{\"checksums\":%" PRIu64 "}", checksums - checksums_told);
  dormouse_request_t request = {.method = "POST", .url = collector, .body = body, .body_length = strlen(body)};
  dormouse_response_t response;
  if (!fetch(&request, &response)) fprintf(stderr, "the collector did not answer: %s\n", response.error);
  dormouse_response_free(&response);
}

void pre_freeze(const dormouse_context_t *ctx) {
  (void)ctx;
  printf("%" PRIu64 " checksums since the last rest\n", checksums - checksums_told);
  const char *collector = getenv("COLLECTOR_URL");
  if (collector != NULL) tell(collector);
  checksums_told = checksums;
}

void pre_stop(const dormouse_context_t *ctx) {
  (void)ctx;
  printf("closes after %" PRIu64 " checksums of %" PRIu64 " bytes\n", checksums, bytes);
}
