"""The start of the program: preflight first, the full command line only when there may be something to do."""

import sys

from upgradeconverter import preflight

_INTERRUPTED = 4


def main() -> None:
    """Entry point of `python -m upgradeconverter`."""
    preflight.leave_if_idle(sys.argv[1:])
    go_on()


def go_on() -> None:
    """Start the full program, after a preflight that could not decide."""
    try:
        from upgradeconverter.cli.main import main as full

        status = full(sys.argv[1:])
    except KeyboardInterrupt:
        # Before the program listens to signals nothing has begun.
        status = _INTERRUPTED
    sys.exit(status)


if __name__ == "__main__":
    main()
