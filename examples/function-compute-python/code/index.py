"""Logs in its handler and before it is stopped, as a user of Function Compute writes it."""

import json
import logging

import settings

logger = logging.getLogger()
handled = 0


def initializer(context):
    logger.info("initializer of %s", context.function.name)


def handler(event, context):
    global handled
    handled += 1
    logger.info("handling request %d", handled)
    if event == b"fail":
        raise ValueError("told to fail")
    return json.dumps({"greeting": settings.GREETING, "handled": handled, "function": context.function.name})


def pre_freeze(context):
    logger.info("pre_freeze after %d", handled)


def pre_stop(context):
    logger.info("pre_stop after %d requests", handled)
