r"""The manual page and the completions of shells, made of the parser itself, so that they know what it knows and nothing else.

python -m upgradeconverter.cli.manual man|bash|zsh|fish
"""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING

from upgradeconverter import __version__, settings
from upgradeconverter.cli.arguments import COMMANDS
from upgradeconverter.cli.completions import bash, fish, zsh
from upgradeconverter.cli.table import Option, Table, phase_in_words, table
from upgradeconverter.errors import EXIT_STATUSES
from upgradeconverter.packs import find

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAME = "upgradeconverter"
_SUMMARY = "bring the state on a device's disk up to the layout that the running system expects"
# What of the environment is no option as well.
_VARIABLES = {
    "PACK_ROOT": "Folders that hold packs, with colons between them, searched before those that come with the program.",
    "CONFIG": f"File of settings, in the place of {settings.DEFAULT_FILE}.",
}
KERNEL_WORDS = {
    "upgradeconverter=off": "Nothing is converted; the units are skipped.",
    "upgradeconverter=dry-run": "Says what would be done, and has no effect.",
    "upgradeconverter=on": "Converts, whatever a word before it said.",
    "upgradeconverter.target=LAYOUT": "The same as --target.",
    "upgradeconverter.deadline=SECONDS": "The same as --deadline.",
}
EXAMPLES = {
    "upgradeconverter plan": "show what a start would do, without any effect",
    "upgradeconverter post-vault --trial --deadline 1800": "convert what lies in the vault, and keep the old layout",
    "upgradeconverter verify --deep": "compare the disk with its layout and with what was done to it",
    "upgradeconverter confirm": "give the old layout up",
    "upgradeconverter rollback -n": "say what could be taken back",
    "upgradeconverter packs show eve --from design --to latest": "list what lies on the way between two layouts",
}
_DESCRIPTION = """\
An operating system that is updated in the field boots onto a disk that the old one laid out. This program runs early in that
boot, or by hand, reads the device's own saved configuration, plans every move, and carries the plan out under a lock and a
journal. It may be interrupted at any time and started again, and what it did can be taken back.

Without a command the phase is carried out, without a phase every phase whose conditions hold. What is not understood stays,
and is reported by name and reason.

A flag wins over the environment, that over the kernel command line, that over the file of settings."""
_OWN = {
    "journal, journal.previous, journal.before": "what the last runs did, for recovery and `rollback`",
    "ledger, ledger.previous": "what became of each item, for `history`",
    "stamp": "which layout the disk carries",
    "quarantine": "what was set aside; nothing in it is ever deleted by the program",
    "waiting": "a trial waits for `confirm`",
    "stage, trash": "only while a transaction is open",
}


def man(known: Table) -> str:
    """Return the manual page."""
    return "\n".join(_man(known)) + "\n"


def _man(known: Table) -> Iterator[str]:
    yield r".\" Made of the option table by `python -m upgradeconverter.cli.manual man`; changes belong there."
    yield f'.TH {_NAME.upper()} 8 "{_date()}" "{_NAME} {__version__}" "System Administration"'
    yield from (".SH NAME", rf"{_NAME} \- {_roff(_SUMMARY)}", ".SH SYNOPSIS")
    for rest in (r"[\fICOMMAND\fR] [\fIPHASE\fR] [\fIOPTION\fR]...", r"\fBpacks show\fR \fINAME\fR [\fIOPTION\fR]..."):
        yield from (rf"\fB{_NAME}\fR {rest}", ".br")
    yield ".SH DESCRIPTION"
    for paragraph in _DESCRIPTION.split("\n\n"):
        yield from (".PP", _roff(paragraph))
    yield ".SH COMMANDS"
    yield from _described((_bold(name), text) for name, text in COMMANDS.items())
    yield from (".PP", "Phases:")
    yield from _described((_bold(name), phase_in_words(packs)) for name, packs in known.phases.items())
    yield ".SH OPTIONS"
    yield from _described((_shown(option), option.help) for option in known.options if not option.pack)
    for name, pack in known.packs.items():
        own = [option for option in known.options if option.pack == name]
        if own:
            yield f'.SS "Of pack {name}"'
            yield _roff(f"With `--pack {name}`; {pack.summary}")
            yield from _described((_shown(option), option.help) for option in own)
    yield ".SH EXIT STATUS"
    yield from _described((_bold(str(status)), text) for status, text in EXIT_STATUSES.items())
    yield from _surroundings(known)
    yield ".SH EXAMPLES"
    yield from _described((_bold(line), text) for line, text in EXAMPLES.items())
    yield ".SH SEE ALSO"
    yield from (
        ".BR bootup (7),",
        ".BR systemd.service (5),",
        ".BR boot\\-complete.target (7),",
        ".BR kernel\\-command\\-line (7)",
    )


def _surroundings(known: Table) -> Iterator[str]:
    """Give what is looked at beside the command line."""
    yield ".SH ENVIRONMENT"
    prefix, names = settings._PREFIX, settings._NAMES  # noqa: SLF001 - the one list of them
    flags = {name for option in known.options for name in option.names}
    yield from _described((_bold(prefix + name), _variable(name, flags)) for name in names)
    yield ".SH KERNEL COMMAND LINE"
    yield from _described((_bold(word), text) for word, text in KERNEL_WORDS.items())
    yield ".SH FILES"
    files = {
        settings.DEFAULT_FILE: "settings",
        f"{find.SYSTEM_ROOT}/": "further packs",
        f"/run/{_NAME}/": "the lock, and the last report of each phase",
        **{
            path: f"names the running release, for pack {name}"
            for name, pack in known.packs.items()
            for path in pack.release_files
        },
    }
    yield from _described((rf"\fI{_roff(path)}\fR", text) for path, text in files.items())
    yield from (".TP", rf"\fI{_roff(f'DIR/.{_NAME}/')}\fR", "What the program keeps below the root of the state:")
    yield from (".RS", *_described((_bold(name), text) for name, text in _OWN.items()), ".RE")


def _variable(name: str, flags: set[str]) -> str:
    flag = f"--{name.lower().replace('_', '-')}"
    return f"The same as {flag}." if flag in flags else _VARIABLES[name]


def _described(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in rows:
        yield from (".TP", term, _roff(text))


def _shown(option: Option) -> str:
    names = ", ".join(map(_bold, option.names))
    return rf"{names} \fI{_roff(option.value)}\fR" if option.value and not option.choices else names + _choices(option)


def _choices(option: Option) -> str:
    return " " + "|".join(map(_bold, option.choices)) if option.choices else ""


def _bold(text: str) -> str:
    return rf"\fB{_roff(text)}\fR"


def _roff(text: str) -> str:
    """Return a text as troff shows it: what is between backquotes in bold, dashes as they are typed."""
    plain = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    marked = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", plain)
    return rf"\&{marked}" if marked.startswith(".") else marked


def _date() -> str:
    """Return the day that a build is to say, none where it is to say none: the same sources give the same page."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    return time.strftime("%Y-%m-%d", time.gmtime(int(seconds))) if seconds.isdecimal() else ""


_MADE = {"man": man, "bash": bash, "zsh": zsh, "fish": fish}


def main(words: list[str]) -> int:
    """Print one of them; returns the exit status."""
    if len(words) != 1 or words[0] not in _MADE:
        print(f"usage: python -m upgradeconverter.cli.manual {'|'.join(_MADE)}", file=sys.stderr)
        return 2
    print(_MADE[words[0]](table()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
