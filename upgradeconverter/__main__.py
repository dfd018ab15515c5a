"""The start of the program: preflight first, the full command line only when there may be something to do."""

import os
import sys

# What the preflight may know of packs and settings without loading any: default root, where the running release is written,
# and the settings file.
_DEFAULT_PACK = "eve"
_DEFAULT_PERSIST = "/persist"
_RELEASE_FILES = ("/run/eve-release", "/etc/eve-release")
_SETTINGS = "/etc/upgradeconverter.toml"
_PHASES = ("pre-vault", "post-vault", "all")
_INTERRUPTED = 4
_VALUES = ("--persist", "--target", "--output")


def _words(argv: "list[str]") -> "dict[str, str] | None":
    """Return phase and options of a plain boot invocation; None for any other."""
    found = {"phase": "all", "--persist": "", "--target": "", "--output": "text"}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if word in _PHASES:
            found["phase"] = word
        elif name in _VALUES:
            found[name] = value if equals else next(words, "")
        elif word == "--trial":
            continue  # where there is nothing to do there is nothing to try
        elif word == "-p":
            found["--persist"] = next(words, "")
        else:
            return None
        if word not in _PHASES and not found[name if word != "-p" else "--persist"]:
            return None
    return found


def _answer(argv: "list[str]") -> "str | None":
    """Return what to say at once, None when the full program has to look."""
    from upgradeconverter import preflight

    words = _words(argv)
    if words is None or words["--output"] not in ("text", "json"):
        return None
    config = preflight.signature(_SETTINGS)
    if config and not words["--persist"]:
        return None  # the settings may name another root
    if any(name.startswith("UPGRADECONVERTER_") for name in os.environ):
        return None
    if any(word.startswith("upgradeconverter") for word in preflight.read_words("/proc/cmdline")):
        return None
    expected = {
        "pack": _DEFAULT_PACK,
        "asked": words["--target"],
        "release": preflight.read_release(_RELEASE_FILES)[0],
        "config": config,
    }
    persist = words["--persist"] or _DEFAULT_PERSIST
    return preflight.answer(persist, words["phase"], expected, as_json=words["--output"] == "json")


def _say(text: bytes) -> None:
    try:
        while text:
            text = text[os.write(1, text) :]
    except OSError:
        pass  # nobody listens; there was nothing to do all the same


def main() -> None:
    """Entry point of the console script and of `python -m upgradeconverter`."""
    argv = sys.argv[1:]
    said = _answer(argv)
    if said is not None:
        _say(f"{said}\n".encode("utf-8", "backslashreplace"))
        sys.exit(0)
    try:
        from upgradeconverter.cli.main import main as full

        status = full(argv)
    except KeyboardInterrupt:
        # Before the program listens to signals nothing has begun.
        status = _INTERRUPTED
    sys.exit(status)


if __name__ == "__main__":
    main()
