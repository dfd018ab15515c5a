"""What starts the conversion without systemd says whether readers may start, in each shell that a device may have."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.starting import CHECKOUT, line_of

if TYPE_CHECKING:
    from pathlib import Path

BOOT = CHECKOUT / "init/shell/upgradeconverter-boot"
SNIPPET = CHECKOUT / "init/eve/onboot-snippet.sh"
SHELLS = (("dash",), ("busybox", "sh"), ("bash", "--posix"))
WORDS = {
    "pre-vault": "pre-vault --trial --on-failure take-back",
    "post-vault": "post-vault --trial --on-failure keep",
    "confirm": "confirm",
}
# Exit statuses of the program after which readers may start, by policy.
START = {"take-back": {0, 1, 3, 7}, "keep": {0, 1}}
# Without 5, after which the program is asked for minutes: that has tests of its own.
STATUSES = (0, 1, 2, 3, 4, 6, 7, 8, 127, 137)
USUAL = {"pre-vault": "take-back", "post-vault": "keep", "confirm": "keep"}


def fake_converter(folder: Path, *statuses: int) -> Path:
    """Make a converter that notes how it was called and ends with one status after the other, the last one from then on.

    With -1 it ends as an interpreter does that cannot start: with 1, and without a report.
    """
    converter, queue = folder / "converter", folder / "statuses"
    queue.write_text("".join(f"{status}\n" for status in statuses), encoding="utf-8")
    converter.write_text(
        "#!/bin/sh\n"
        f"echo \"$*\" >>'{folder}/calls'\n"
        f"{{ env; umask; pwd; }} >'{folder}/surroundings'\n"
        f"read -r status <'{queue}'\n"
        f"[ \"$(wc -l <'{queue}')\" -eq 1 ] || sed -i 1d '{queue}'\n"
        '[ "$status" != -1 ] || exit 1\n'
        f"echo '{{}}' >\"{folder}/report/$1.json\"\n"
        'exit "$status"\n',
        encoding="utf-8",
    )
    converter.chmod(0o755)
    return converter


def start(folder: Path, *command: str, statuses: tuple[int, ...] = (0,), cmdline: str = "", **more: str) -> tuple[int, list[str]]:
    """Start a script with a converter that ends with `statuses`; return its own status and the calls it made."""
    (folder / "cmdline").write_text(cmdline, encoding="utf-8")
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHON": "sh -u",
        "CONVERTER": str(fake_converter(folder, *statuses)),
        "CMDLINE": str(folder / "cmdline"),
        "REPORT": str(folder / "report"),
        "BUSY_SECONDS": "0",
        "BOOT": str(BOOT),
    }
    done = subprocess.run(
        command, env={**environment, **more}, capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )
    calls = folder / "calls"
    return done.returncode, calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []


@pytest.mark.parametrize("script", [BOOT, SNIPPET], ids=lambda path: path.name)
@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_shells_read_it(script: Path, shell: tuple[str, ...]) -> None:
    """Each shell reads the script without a word."""
    done = subprocess.run([*shell, "-n", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("script", [BOOT, SNIPPET], ids=lambda path: path.name)
def test_shellcheck_is_content(script: Path) -> None:
    """Nothing in the script means something else in another POSIX shell."""
    done = subprocess.run(["shellcheck", "-s", "sh", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize("phase", WORDS)
@pytest.mark.parametrize("policy", ["", *START])
def test_says_whether_readers_may_start(tmp_path: Path, shell: tuple[str, ...], phase: str, policy: str) -> None:
    """The exit status follows from what the program said and from the policy of the phase, or the one that was chosen."""
    chosen = policy or USUAL[phase]
    words = f"{WORDS[phase].replace(USUAL[phase], chosen)} --report"
    for status in STATUSES:
        folder = tmp_path / str(status)
        folder.mkdir()
        given = {"ON_FAILURE": policy} if policy else {}
        ended, calls = start(folder, *shell, str(BOOT), phase, statuses=(status,), **given)
        assert (status, ended) == (status, 0 if status in START[chosen] else 1)
        assert set(calls) == {f"{words} {folder}/report"}


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize(("statuses", "ended"), [((5, 5, 0), 0), ((137, 0), 0), ((5, 143, 5, 7), 0), ((137, 137, 0), 1)])
def test_asks_again(tmp_path: Path, shell: tuple[str, ...], statuses: tuple[int, ...], ended: int) -> None:
    """A busy converter is asked again, and a killed one is started once more to finish or undo."""
    made = statuses if ended == 0 else statuses[:2]
    found, calls = start(tmp_path, *shell, str(BOOT), "pre-vault", statuses=statuses)
    assert (found, len(calls)) == (ended, len(made))


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_takes_no_interpreter_that_cannot_start_for_a_program_that_did(tmp_path: Path, shell: tuple[str, ...]) -> None:
    """Python ends with 1 when it cannot import; only a report says that the program itself did, and an old one does not."""
    assert start(tmp_path, *shell, str(BOOT), "pre-vault", statuses=(1,))[0] == 0
    ended, calls = start(tmp_path, *shell, str(BOOT), "pre-vault", statuses=(-1,))
    assert (ended, len(calls)) == (1, 3)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize("phase", ["pre-vault", "post-vault"])
def test_confirms_nothing_after_a_failure(tmp_path: Path, shell: tuple[str, ...], phase: str) -> None:
    """In a boot in which a phase has failed the trial waits, whoever calls that boot a good one."""
    (tmp_path / "report").mkdir()
    (tmp_path / f"report/{phase}.failed").touch()
    assert start(tmp_path, *shell, str(BOOT), "confirm") == (1, [])
    (tmp_path / f"report/{phase}.failed").unlink()
    assert start(tmp_path, *shell, str(BOOT), "confirm")[0] == 0


def test_does_not_ask_for_ever(tmp_path: Path) -> None:
    """Five minutes of another instance are enough: 60 looks with five seconds between them."""
    ended, calls = start(tmp_path, "sh", str(BOOT), "post-vault", statuses=(5,))
    assert (ended, len(calls)) == (1, 60)
    assert "BUSY_SECONDS=${BUSY_SECONDS:-5} " in BOOT.read_text(encoding="utf-8")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize("cmdline", ["upgradeconverter=off", "quiet upgradeconverter=off rw\n", "* a\tupgradeconverter=off\n"])
def test_obeys_the_switch(tmp_path: Path, shell: tuple[str, ...], cmdline: str) -> None:
    """Switched off on the kernel command line, the converter is not even called."""
    assert start(tmp_path, *shell, str(BOOT), "post-vault", cmdline=cmdline) == (0, [])


@pytest.mark.parametrize("cmdline", ["upgradeconverter=offline", "xupgradeconverter=off", "upgradeconverter=dry-run", ""])
def test_takes_no_other_word_for_the_switch(tmp_path: Path, cmdline: str) -> None:
    """A word that only looks like the switch switches nothing off."""
    ended, calls = start(tmp_path, "sh", str(BOOT), "pre-vault", cmdline=cmdline)
    assert (ended, len(calls)) == (0, 1)


def test_starts_what_the_units_start(tmp_path: Path) -> None:
    """The same program with the same interpreter and words as in the units; only the time limit is the caller's."""
    found = dict(re.findall(r"^(PYTHON|CONVERTER)=\$\{\1:-(.*)\}$", BOOT.read_text(encoding="utf-8"), re.MULTILINE))
    for phase, words in WORDS.items():
        line = line_of(phase).split()
        program = f"{found['PYTHON']} {found['CONVERTER']}".split()
        assert line[: len(program)] == program
        wanted = [*words.split(), "--deadline", "1800", "--output", "json"]
        assert set(line[len(program) :]) - {"--report", "/run/upgradeconverter"} <= set(wanted)
        _, calls = start(tmp_path, "sh", str(BOOT), phase, "-p", "/x y", "--deadline", "9")
        assert calls[-1] == f"{words} --report {tmp_path}/report -p /x y --deadline 9"
    assert "REPORT=${REPORT:-/run/upgradeconverter}" in BOOT.read_text(encoding="utf-8")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_surroundings_are_the_same_at_every_boot(tmp_path: Path, shell: tuple[str, ...]) -> None:
    """Nothing of the caller's environment, mask and directory reaches the program; figures may be read by all."""
    start(tmp_path, *shell, str(BOOT), "pre-vault", LC_ALL="de_DE", PYTHONPATH="/tmp", UPGRADECONVERTER_TARGET="other")
    found = set((tmp_path / "surroundings").read_text(encoding="utf-8").splitlines())
    wanted = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", f"TMPDIR={tmp_path}/report", "0077", "/"}
    # What a shell, here the program, sets by itself.
    assert {line for line in found if not line.startswith(("PWD=", "_=", "SHLVL=", "OLDPWD="))} == wanted
    assert (tmp_path / "report").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("words", [(), ("all",), ("rollback",)])
def test_other_words_start_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    """What is no phase of a boot is refused, and nobody takes that for a converted disk."""
    for script in (BOOT, SNIPPET):
        assert start(tmp_path, "sh", str(script), *words) == (1, [])
    assert start(tmp_path, "sh", str(BOOT), "pre-vault", ON_FAILURE="whatever") == (1, [])


def test_without_a_converter_readers_wait(tmp_path: Path) -> None:
    """A converter, or a starter, that is not installed has converted nothing."""
    assert start(tmp_path, "sh", str(BOOT), "post-vault", CONVERTER=str(tmp_path / "none")) == (1, [])
    assert start(tmp_path, "sh", str(SNIPPET), "post-vault", BOOT=str(tmp_path / "none")) == (1, [])


@pytest.mark.parametrize("phase", WORDS)
def test_eve_has_its_policy_whatever_the_caller_has(tmp_path: Path, phase: str) -> None:
    """EVE's snippet lets the agents start with the old layout before the vault, and holds the vault's readers after it."""
    for status in STATUSES:
        folder = tmp_path / str(status)
        folder.mkdir()
        ended, calls = start(folder, "sh", str(SNIPPET), phase, statuses=(status,), ON_FAILURE="whatever")
        assert (status, ended) == (status, 0 if status in START[USUAL[phase]] else 1)
        assert set(calls) == {f"{WORDS[phase]} --report {folder}/report"}
