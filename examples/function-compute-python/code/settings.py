"""What the function says; its environment may say something else."""

import os

GREETING = os.environ.get("GREETING", "Hello")
