"""The start of the program: preflight first, the full command line only when there may be something to do."""

import os
import sys

# What the preflight may know of packs without loading one: default root and where the running release is written.
_DEFAULT_PACK = "eve"
_DEFAULT_PERSIST = "/persist"
_RELEASE_FILES = ("/run/eve-release", "/etc/eve-release")
_PHASES = ("pre-vault", "post-vault", "all")


def _leaves_early(argv: "list[str]") -> bool:
    """Return whether this is a plain boot invocation whose phase has nothing to do."""
    from upgradeconverter import preflight

    phase, persist, target = "all", _DEFAULT_PERSIST, ""
    words = iter(argv)
    for word in words:
        if word in _PHASES:
            phase = word
        elif word in ("-p", "--persist"):
            persist = next(words, "")
        elif word == "--target":
            target = next(words, "")
        else:
            return False
    if any(name.startswith("UPGRADECONVERTER_") for name in os.environ):
        return False
    release = preflight.read_release(_RELEASE_FILES)
    return preflight.nothing_to_do(persist, phase, target, _DEFAULT_PACK, release)


def main() -> None:
    """Entry point of the console script and of `python -m upgradeconverter`."""
    argv = sys.argv[1:]
    if _leaves_early(argv):
        sys.stdout.write("nothing to do\n")
        sys.stdout.flush()
        sys.exit(0)
    from upgradeconverter.cli.main import main as full

    sys.exit(full(argv))


if __name__ == "__main__":
    main()
