"""Manual page and completions have all that the command line has, and nothing else; the shells themselves are asked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import upgradeconverter
from upgradeconverter import settings
from upgradeconverter.cli import completions, manual
from upgradeconverter.cli.arguments import COMMANDS, parser, split_words
from upgradeconverter.cli.table import Table, table
from upgradeconverter.errors import EXIT_STATUSES
from upgradeconverter.packs import find

if TYPE_CHECKING:
    import argparse

NAME = "upgradeconverter"
MADE = {"man": manual.man, "bash": completions.bash, "fish": completions.fish, "zsh": completions.zsh}
SHELLS = ("bash", "fish", "zsh")
PACKS = {name: find.load(name) for name in find.names()}
OWN_OF_RAYOS = ("--source", "--windows-disk", "--image", "--no-compat")
FIRST = {*COMMANDS, "all", *(phase.name for pack in PACKS.values() for phase in pack.phases)}

BASH = """
source {file}
read -ra COMP_WORDS <<<{line}
[[ {line} != *' ' ]] || COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_upgradeconverter
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
# What is added to the list of matches is noted; `-O`, `-A` and `-D` only ask.
ZSH_INNER = """
PROMPT="READY>"
fpath=({folder} $fpath)
autoload -Uz compinit
compinit -u -D
compadd() {{
  if [[ ${{@[1,(i)(-|--)]}} != *-(O|A|D)\\ * ]]; then
    local -a hits
    builtin compadd -A hits "$@"
    print -rl -- $hits >>{folder}/found
  fi
  builtin compadd "$@"
}}
"""
ZSH = """
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'source {folder}/inner'
zpty -r z said '*READY>*'
zpty -w -n z {line}$'\\t'
zpty -w z $'\\x15''print >{folder}/over; exit'
while zpty -r z said; do :; done
"""


def as_shown(text: str) -> str:
    """Return a text without what only troff reads."""
    return re.sub(r"\\f[BIR]", "", text).replace(r"\-", "-").replace(r"\(aq", "'")


def flags(known: Table) -> set[str]:
    """Return all names of options."""
    return {name for option in known.options for name in option.names}


def ask(shell: str, folder: Path, line: str, known: Table | None = None) -> set[str]:
    """Return what a shell offers behind a line that somebody has typed."""
    text = MADE[shell](known or table())
    file = folder / f"_{NAME}"
    file.write_text(text, encoding="utf-8")
    if shell == "fish":
        found = run("fish", "--no-config", "-c", f"source {file}; complete -C {shlex.quote(line)}")
        return {row.partition("\t")[0] for row in found.splitlines()} - {""}
    if shell == "bash":
        # Readline makes words of their own of `=`.
        return set(run("bash", "-c", BASH.format(file=file, line=shlex.quote(line.replace("=", " = ")))).split())
    (folder / "inner").write_text(ZSH_INNER.format(folder=folder), encoding="utf-8")
    (folder / "found").write_text("", encoding="utf-8")
    run("zsh", "-f", "-c", ZSH.format(folder=folder, line=shlex.quote(line)))
    assert (folder / "over").exists()
    return set((folder / "found").read_text(encoding="utf-8").split())


def run(*command: str) -> str:
    """Run a program that has to succeed without a word on standard error, and return what it says."""
    # A shell may keep things of its own at home.
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, "LC_ALL": "C.UTF-8", "TERM": "dumb"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_options_are_offered(shell: str, tmp_path: Path) -> None:
    """Each option of the parser is offered, those of a pack with that pack only, and no other."""
    known = table()
    everybodys = {name for option in known.options if not option.pack for name in option.names if name.startswith("--")}
    for pack in PACKS:
        own = {name for option in known.options if option.pack == pack for name in option.names}
        offered = ask(shell, tmp_path, f"{NAME} --pack {pack} --")
        assert own
        assert {word.rstrip("=") for word in offered} == everybodys | own
    assert everybodys == {name for action in parser()._actions for name in action.option_strings if name.startswith("--")}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (" ", FIRST),
        (" plan ", {"all", "pre-vault", "post-vault", "state", "rest"}),
        (" -p /x pla", {"plan"}),
        (" confirm ", set()),
        (" packs ", {"show"}),
        (" packs show ", set(PACKS)),
        (" --output ", {"text", "json"}),
        (" --output=j", {"json"}),
        (" --pack ra", {"rayos"}),
        (" --checkpoint.signature re", {"require"}),
        (" --target 16.12", {"16.12.0"}),
        (" --deadline ", set()),
    ],
)
def test_words_are_offered(shell: str, line: str, offered: set[str], tmp_path: Path) -> None:
    """What may come next is offered: commands, phases, packs, layouts and choices."""
    found = {word.removeprefix("--output=") for word in ask(shell, tmp_path, NAME + line)}
    assert found == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_folders_are_offered(shell: str, tmp_path: Path) -> None:
    """Where a directory belongs, directories are offered, and no files."""
    (tmp_path / "there").mkdir()
    (tmp_path / "therefore").touch()
    found = ask(shell, tmp_path, f"{NAME} -p {tmp_path}/there")
    assert {Path(word).name for word in found} == {"there"}


@pytest.mark.parametrize("made", MADE)
def test_everything_is_named(made: str) -> None:
    """Each command, phase and option stands in each of the four."""
    text = as_shown(MADE[made](table()))
    for word in {*FIRST, *PACKS, *flags(table())}:
        bare = word.lstrip("-") if made == "fish" else word
        assert re.search(rf"(?<![\w-]){re.escape(bare)}(?![\w-])", text), word


@pytest.mark.parametrize("made", MADE)
def test_what_is_named_exists(made: str) -> None:
    """Nothing that looks like a long option stands there that no parser knows."""
    text = as_shown(MADE[made](table()))
    found = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text))
    if made == "fish":
        found = {
            f"--{name}" for line in text.splitlines() if line.startswith("complete") for name in re.findall(r" -l (\S+)", line)
        }
    assert found == {name for name in flags(table()) if name.startswith("--")}


@pytest.mark.parametrize("made", MADE)
def test_new_option_shows_up(made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option and a command that somebody adds to the table are in all four without another word."""

    def parser_of_tomorrow(pack: object = None) -> argparse.ArgumentParser:
        result = parser(pack)  # type: ignore[arg-type]
        result.add_argument("-Z", "--zeal", choices=("high", "low"), help="how 100%% eager: it's [new]")
        return result

    monkeypatch.setattr("upgradeconverter.cli.table.parser", parser_of_tomorrow)
    monkeypatch.setitem(COMMANDS, "ponder", "think: it's new")
    known = table()
    text = as_shown(MADE[made](known))
    assert "zeal" in text
    assert "ponder" in text
    assert "how 100% eager" in text or made == "bash"
    if made != "man":
        assert {word.rstrip("=") for word in ask(made, tmp_path, f"{NAME} --ze", known)} == {"--zeal"}
        assert ask(made, tmp_path, f"{NAME} --zeal ", known) == {"high", "low"}
        assert ask(made, tmp_path, f"{NAME} pond", known) == {"ponder"}
        assert "pre-vault" in ask(made, tmp_path, f"{NAME} ponder ", known)


def test_page_has_no_warnings(tmp_path: Path) -> None:
    """Neither man nor groff has anything to say about the page."""
    page = tmp_path / f"{NAME}.8"
    page.write_text(MADE["man"](table()), encoding="utf-8")
    assert run("groff", "-man", "-ww", "-z", str(page)) == ""
    shown = run("man", "--warnings", "-E", "UTF-8", "-l", str(page))
    assert re.findall(r"^[A-Z][A-Z ]+$", shown, re.MULTILINE) == [
        "NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "KERNEL COMMAND LINE", "FILES",
        "EXAMPLES", "SEE ALSO",
    ]  # fmt: skip


def test_page_quotes_the_tables() -> None:
    """Exit statuses, variables, words of the kernel and files are those that the program has."""
    page = MADE["man"](table())
    parts = dict(re.findall(r"^\.SH ([A-Z ]+)\n(.*?)(?=^\.SH|\Z)", page, re.MULTILINE | re.DOTALL))
    assert re.findall(r"^\\fB(\d+)\\fR$", parts["EXIT STATUS"], re.MULTILINE) == [str(status) for status in EXIT_STATUSES]
    variables = re.findall(r"^\\fBUPGRADECONVERTER_(\w+)\\fR$", parts["ENVIRONMENT"], re.MULTILINE)
    assert tuple(variables) == settings._NAMES
    assert settings.DEFAULT_FILE in parts["FILES"]
    source = (Path(upgradeconverter.__file__).parent / "settings.py").read_text(encoding="utf-8")
    switches = {f"upgradeconverter={word}" for word in settings._SWITCHES}
    assert {word.partition("=")[0] for word in manual.KERNEL_WORDS} == {NAME, *re.findall(r'"(upgradeconverter\.\w+)"', source)}
    assert {word for word in manual.KERNEL_WORDS if word.startswith(f"{NAME}=")} == switches


def test_examples_are_understood() -> None:
    """Each example of the page is a command line that the program takes."""
    for line in manual.EXAMPLES:
        name, *words = line.split()
        arguments = parser().parse_intermixed_args(words)
        command, phase = split_words(arguments.words, deep=arguments.deep, source=arguments.source)
        assert name == NAME
        assert command in COMMANDS
        assert phase in FIRST | set(PACKS)


def test_same_sources_same_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has the day that a build is to say, or none, and is the same each time."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert f'.TH UPGRADECONVERTER 8 "" "{NAME} {upgradeconverter.__version__}"' in MADE["man"](table())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert '.TH UPGRADECONVERTER 8 "1970-01-02"' in MADE["man"](table())
    for make in MADE.values():
        assert make(table()) == make(table())


def test_prints_what_it_is_asked_for() -> None:
    """The module prints one of the four, and says which there are when it is asked for anything else."""
    command = [sys.executable, "-m", "upgradeconverter.cli.manual"]
    for name, make in MADE.items():
        done = subprocess.run([*command, name], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == make(table())
    done = subprocess.run([*command, "tcsh"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "man|bash|zsh|fish" in done.stderr
