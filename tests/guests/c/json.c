#include "json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_bytes(text_t *text, const char *bytes, size_t length) {
  if (text->length + length + 1 > text->capacity) {
    text->capacity = (text->length + length + 1) * 2;
    text->bytes = realloc(text->bytes, text->capacity);
    if (text->bytes == NULL) abort();
  }
  memcpy(text->bytes + text->length, bytes, length);
  text->length += length;
  text->bytes[text->length] = '\0';
}

bool text_add(text_t *text, const char *format, ...) {
  char *added = NULL;
  va_list values;
  va_start(values, format);
  int length = vasprintf(&added, format, values);
  va_end(values);
  if (length < 0) abort();
  add_bytes(text, added, (size_t)length);
  free(added);
  return true;
}

void text_add_json(text_t *text, const char *string, size_t length) {
  add_bytes(text, "\"", 1);
  for (size_t at = 0; at < length; at += 1) {
    unsigned char byte = (unsigned char)string[at];
    if (byte == '"' || byte == '\\') text_add(text, "\\%c", byte);
    else if (byte < 0x20) text_add(text, "\\u%04x", byte);
    else add_bytes(text, string + at, 1);
  }
  add_bytes(text, "\"", 1);
}

void text_clear(text_t *text) {
  text->length = 0;
  add_bytes(text, "", 0);
}

// Skips white space, and `wanted` after it; false if something else is there.
static bool skip(reader_t *reader, char wanted) {
  reader->at += strspn(reader->at, " \t\r\n");
  if (*reader->at != wanted) return false;
  reader->at += 1;
  return true;
}

static bool read_string(reader_t *reader, char *string) {
  if (!skip(reader, '"')) return false;
  size_t length = 0;
  for (; *reader->at != '"'; reader->at += 1) {
    if (*reader->at == '\\') reader->at += 1;
    // Scripts are the tests' own: no other escape is in them than that of a character that stands for itself.
    if (*reader->at == '\0' || length == STRING_MAX - 1) abort();
    string[length++] = *reader->at;
  }
  string[length] = '\0';
  reader->at += 1;
  return true;
}

static bool read_argument(reader_t *reader, step_t *step) {
  if (skip(reader, '[')) {
    return read_string(reader, step->text[0]) && skip(reader, ',') && read_string(reader, step->text[1]) && skip(reader, ']');
  }
  if (read_string(reader, step->text[0])) return true;
  char *end;
  step->number = strtod(reader->at, &end);
  bool read = end > reader->at;
  reader->at = end;
  return read;
}

bool script_begin(reader_t *reader, const char *script) {
  static char key[STRING_MAX];
  reader->at = script;
  return skip(reader, '{') && read_string(reader, key) && strcmp(key, "do") == 0 && skip(reader, ':') && skip(reader, '[');
}

bool script_next(reader_t *reader, step_t *step) {
  skip(reader, ',');
  if (skip(reader, ']')) return false;
  *step = (step_t){0};
  if (read_string(reader, step->name)) return true;
  bool read = skip(reader, '{') && read_string(reader, step->name) && skip(reader, ':') && read_argument(reader, step) &&
              skip(reader, '}');
  if (!read) abort();
  return true;
}
