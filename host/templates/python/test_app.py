"""Runs without a host: `PYTHONPATH=vendor python3 -m unittest`."""

import asyncio
import unittest

import app
from dormouse import Context


class Greeter(unittest.TestCase):
    def setUp(self) -> None:
        app.greeted = 0

    def test_the_count_goes_on_after_a_freeze(self) -> None:
        ctx = Context()
        self.assertEqual(asyncio.run(app.handler(ctx, b"Ada")), "Hello, Ada! You are number 1.\n")
        asyncio.run(app.pre_freeze(ctx))
        self.assertEqual(asyncio.run(app.handler(ctx, b"Grace")), "Hello, Grace! You are number 2.\n")

    def test_nobody_cannot_be_greeted(self) -> None:
        with self.assertRaisesRegex(ValueError, "whom shall I greet"):
            asyncio.run(app.handler(Context(), b""))
