"""Progress messages on stderr."""

import sys
import time

_STARTED_S = time.monotonic()


def say(text: str) -> None:
    """Prints a line, with the seconds since the start of the benchmark."""
    print(f"{time.monotonic() - _STARTED_S:6.1f} s  {text}", file=sys.stderr, flush=True)
