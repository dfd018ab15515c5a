"""What the command line may say, as one table; help and README quote it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from upgradeconverter import __version__
from upgradeconverter.errors import EXIT_STATUSES, UsageError

if TYPE_CHECKING:
    from upgradeconverter.packs.api import Pack

PHASES = ("pre-vault", "post-vault", "all")
COMMANDS = {
    "run": "convert; the same as no command",
    "plan": "show what a run would do; changes nothing",
    "status": "show which layout the disk carries and what is open",
    "verify": "compare the disk with the target layout, with the digests in names, and with what the history noted",
    "confirm": "let a trial last: the old layout goes",
    "rollback": "take the last run back, over however many starts it went, and say what cannot be taken back",
    "history": "list the runs, and what became of each item",
    "usage": "show how much room state takes, by agent and place, and what could be reclaimed",
    "doctor": "tell what the next boot would do with this disk and why, and what is unusual about it",
    "packs": "list the systems and layouts that can be converted; `packs show NAME` all that there is to know of one",
}
# Commands that are not about one phase.
_WHOLE = ("confirm", "rollback", "history", "usage", "doctor", "packs")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of printing, so that JSON output stays one document."""
        raise UsageError(message)


def parser(pack: Pack | None = None) -> argparse.ArgumentParser:
    """Return the parser of the whole command line, with the flags of a pack where one is given."""
    statuses = "\n".join(f"  {status}  {text}" for status, text in EXIT_STATUSES.items())
    commands = "\n".join(f"  {name:<9} {text}" for name, text in COMMANDS.items())
    made = _Parser(
        prog="upgradeconverter",
        description="Bring the state on a device's disk up to the layout that the running system expects.",
        epilog=f"commands (without one, the phase is carried out):\n{commands}\n\nexit status:\n{statuses}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "words", nargs="*", metavar="COMMAND|PHASE", help=f"a command, then a phase of the pack (eve: {', '.join(PHASES)})"
    )
    made.add_argument("-p", "--persist", metavar="DIR", help="root of the state, default as the pack says (eve: /persist)")
    made.add_argument("-n", "--dry-run", action="store_const", const=True, help="audit only, without any effect")
    made.add_argument("-d", "--debug", action="store_true", help="log single steps too, on standard error")
    made.add_argument("--target", metavar="LAYOUT", help="layout to reach, default by the running system's release")
    made.add_argument("--to", metavar="LAYOUT", dest="target", help="the same as --target")
    made.add_argument("--from", metavar="LAYOUT", dest="source", help="packs show: where the way to the target begins")
    made.add_argument("--pack", metavar="NAME", help="system whose state this is, default eve")
    made.add_argument("--output", choices=("text", "json"), default="text", help="text for people, JSON for tools")
    made.add_argument("--strict", action="store_const", const=True, help="items left alone are a failure (status 1)")
    made.add_argument("--trial", action="store_const", const=True, help="keep the old layout until `confirm`")
    short = "where a trial has no room for both layouts: refuse, or convert at once (irreversible)"
    made.add_argument("--when-short", choices=("refuse", "irreversible"), dest="when_short", help=short)
    option = "what the pack lets people choose, such as checkpoint.signature=require; may be repeated"
    made.add_argument("--option", metavar="NAME=VALUE", action="append", dest="options", help=option)
    made.add_argument("--read-back", choices=("all", "sample", "none"), dest="read_back", help="read copies again")
    made.add_argument("--deep", action="store_true", help="verify: also read what was copied, and compare with the history")
    deadline = "begin nothing that would not be done so long after the start, and go on at the next one; 0: none"
    made.add_argument("--deadline", metavar="SECONDS", help=deadline)
    failing = "what becomes of what a start that fails has done: keep, the next one goes on from there, or take-back"
    made.add_argument("--on-failure", choices=("keep", "take-back"), dest="on_failure", help=failing)
    report = "also put the last report and its figures there, as PHASE.json and PHASE.prom; made if missing"
    made.add_argument("--report", metavar="DIR", help=report)
    made.add_argument("--quiet", action="store_const", const=True, help="do not show how it goes")
    made.add_argument("--version", action="version", version=f"upgradeconverter {__version__}")
    _add_places(made, pack)
    return made


def _add_places(made: argparse.ArgumentParser, pack: Pack | None) -> None:
    outside = "where a directory that the pack reads outside of the root is, such as config=/config; may be repeated"
    made.add_argument("--outside", metavar="NAME=DIR", action="append", help=outside)
    annex = "where something outside of the root is that the pack takes state from; may be repeated"
    made.add_argument("--annex", metavar="NAME=PATH", action="append", dest="annexes", help=annex)
    if pack is not None:
        _add_flags(made.add_argument_group(f"pack {pack.name}"), pack)


def _add_flags(group: argparse._ArgumentGroup, pack: Pack) -> None:
    """Add what people may say of a pack under its own names, as `--option` and `--annex` have it."""
    for name, annex in pack.annexes.items():
        shown = "ID=PATH" if annex.each else "FILE" if annex.is_file else "DIR"
        prefix = f"{name}." if annex.each else f"{name}="
        group.add_argument(f"--{name}", metavar=shown, action="append", dest="annexes", type=prefix.__add__, help=annex.summary)
    for name, values in pack.options.items():
        chosen = {f"{name}={value}": value for value in values}
        if set(values) == {"on", "off"}:
            other = values[1]
            flag = f"--no-{name}" if other == "off" else f"--{name}"
            group.add_argument(flag, action="append_const", const=f"{name}={other}", dest="options", help=f"{name} {other}")
        else:
            of = f"one of {', '.join(chosen.values())}"
            group.add_argument(f"--{name}", metavar="VALUE", action="append", dest="options", type=f"{name}=".__add__, help=of)


def split_words(words: list[str], *, deep: bool = False, source: str | None = None) -> tuple[str, str]:
    """Return (command, phase); UsageError for a word that is neither, and for `deep` where nothing is compared."""
    command, phase = "run", "all"
    rest = list(words)
    if rest and rest[0] in COMMANDS:
        command = rest.pop(0)
    shown = _pack_to_show(command, rest, source)
    if shown:
        return command, shown
    if rest and command in _WHOLE:
        message = f"expected no phase: {command} is about all of them; found {rest[0]!r}"
        raise UsageError(message)
    if rest:
        phase = rest.pop(0)
        if phase in COMMANDS:
            message = f"expected one command; found {command!r} and {phase!r}"
            raise UsageError(message)
    if rest:
        message = f"expected nothing after {phase}; found {rest[0]!r}"
        raise UsageError(message)
    if deep and command != "verify":
        message = f"expected --deep with verify only; found it with {command}"
        raise UsageError(message)
    return command, phase


def _pack_to_show(command: str, rest: list[str], source: str | None) -> str:
    """Return the pack that `packs show NAME` names, empty where that is not what was said."""
    is_show = command == "packs" and rest[:1] == ["show"]
    if source is not None and not is_show:
        message = "expected --from with `packs show NAME` only"
        raise UsageError(message)
    return rest[1] if is_show and len(rest) == len(("show", "NAME")) else ""
