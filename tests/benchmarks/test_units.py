"""What is measured of the boot units is what they start, with the paths of a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import units
from benchmarks.errors import BrokenError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return the folder of commands of an installation."""
    for name in ("bin/python3", "bin/upgradeconverter", "lib/python3/site-packages/upgradeconverter/start.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "bin"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            "/usr/bin/upgradeconverter pre-vault --trial",
            "{bin}/upgradeconverter pre-vault --trial -p /root",
            id="command",
        ),
        pytest.param(
            "/usr/bin/python3 -I -S /usr/bin/upgradeconverter all -p /persist",
            "{bin}/python3 -I -S {bin}/upgradeconverter all -p /root",
            id="script, and a root that it names itself",
        ),
        pytest.param(
            "/usr/bin/python3.11 -I /usr/lib/python3/dist-packages/upgradeconverter/start.pyc",
            "{bin}/python3 -I {bin}/../lib/python3/site-packages/upgradeconverter/start.pyc -p /root",
            id="byte code",
        ),
    ],
)
def test_commands(installed: Path, line: str, expected: str) -> None:
    """Interpreter, installed files and root are found in their places of the trial; all other words stay."""
    unit = units.read(f"[Service]\n# ExecStart=none\nExecStart={line}\n", "test")
    words = units.command(unit, installed, "/root")
    assert " ".join(words) == expected.replace("{bin}/..", str(installed.parent)).replace("{bin}", str(installed))


def test_environment() -> None:
    """Variables of all lines are given to what is started."""
    unit = units.read('ExecStart=/bin/x\nEnvironment=A=1 "B=two words"\nEnvironment=C=\n', "test")
    assert unit.environment == {"A": "1", "B": "two words", "C": ""}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        pytest.param(["PathExists=/persist/there"], True, id="path"),
        pytest.param(["PathExists=/persist/there", "PathExists=/persist/none"], False, id="all have to hold"),
        pytest.param(["PathIsDirectory=!/persist/there"], False, id="negated"),
        pytest.param(["PathExists=|/persist/none", "PathExistsGlob=|/persist/th*"], True, id="one with a bar has to hold"),
        pytest.param(["PathExists=|/persist/none", "DirectoryNotEmpty=|/persist/there"], False, id="none with a bar holds"),
        pytest.param(["PathExists=|!/persist/none", "PathExists=/persist/none"], False, id="one with a bar is not enough"),
        pytest.param(["KernelCommandLine=!upgradeconverter=never"], True, id="kernel command line"),
    ],
)
def test_conditions_decide(conditions: list[str], expected: bool, tmp_path: Path) -> None:
    """Whether a unit starts a process is decided as systemd does, on the root of the trial."""
    (tmp_path / "there").mkdir()
    unit = units.read("\n".join(["ExecStart=/bin/x", *(f"Condition{each}" for each in conditions)]), "test")
    assert units.starts(unit, str(tmp_path)) == expected


def test_unknown_condition() -> None:
    """A condition that nobody here can decide is named, and not passed over."""
    with pytest.raises(BrokenError, match="ConditionNew"):
        units.starts(units.read("ConditionNew=x\nExecStart=/bin/x\n", "test"), "/root")


@pytest.mark.parametrize("text", ["", "ExecStart=/bin/a\nExecStart=/bin/b\n"])
def test_units_that_cannot_be_measured(text: str) -> None:
    """A unit that starts nothing, or two things, is named."""
    with pytest.raises(BrokenError, match=r"odd.*expected one"):
        units.read(text, "odd")


def test_files_that_were_not_installed(installed: Path) -> None:
    """A path of a unit that the installation has not is named, and nothing else is measured in its place."""
    unit = units.read("ExecStart=/usr/bin/other\n", "test")
    with pytest.raises(BrokenError, match="/usr/bin/other"):
        units.command(unit, installed, "/root")


def test_our_units_can_be_read() -> None:
    """Each service that is shipped starts one command."""
    assert {unit.name for unit in units.services()} >= {"upgradeconverter-pre-vault", "upgradeconverter-post-vault"}
