"""The start of the program: preflight first, the full command line only when there may be something to do."""

import gc
import os
import sys

from upgradeconverter import preflight

_INTERRUPTED = 4
# How many objects more there are before garbage in circles is looked for again.
_OBJECTS = 100_000


def main() -> None:
    """Entry point of `python -m upgradeconverter`."""
    preflight.leave_if_idle(sys.argv[1:])
    go_on()


def go_on() -> None:
    """Start the full program, after a preflight that could not decide; where a boot waits for it, another process watches."""
    if "NOTIFY_SOCKET" in os.environ or any(word.startswith("--deadline") for word in sys.argv):
        from upgradeconverter.cli.watching import watched

        sys.exit(watched(_work, sys.argv[1:]))
    sys.exit(_work())


def _work() -> int:
    _collect_rarely()
    try:
        from upgradeconverter.cli.main import main as full

        return full(sys.argv[1:], confined=True)
    except KeyboardInterrupt:
        # Before the program listens to signals nothing has begun.
        return _INTERRUPTED


def _collect_rarely() -> None:
    """Look for garbage in circles seldom: of a hundred thousand volumes nothing is any, and each look goes through all."""
    gc.freeze()
    gc.set_threshold(_OBJECTS, 50, 50)


if __name__ == "__main__":
    main()
