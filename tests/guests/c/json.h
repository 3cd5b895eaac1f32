// As much of JSON as scripts need: texts that grow, and a reader of `{"do": ["name", {"name": argument}, ...]}`, where an
// argument is a number, a string, or a list of two strings.

#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

// Bytes of a step's name, and of each of its strings, at most.
#define STRING_MAX 4096

typedef struct {
  char *bytes;  // Ends with a zero byte; NULL while it is empty.
  size_t length, capacity;
} text_t;

// Adds a text as `printf` makes it; always true.
bool text_add(text_t *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Adds a string of JSON.
void text_add_json(text_t *text, const char *string, size_t length);

void text_clear(text_t *text);

typedef struct {
  const char *at;
} reader_t;

typedef struct {
  char name[STRING_MAX];
  double number;
  char text[2][STRING_MAX];
} step_t;

// Goes to the first step; false if it is no script.
bool script_begin(reader_t *reader, const char *script);

// Reads the next step; false if there is none.
bool script_next(reader_t *reader, step_t *step);

#endif
