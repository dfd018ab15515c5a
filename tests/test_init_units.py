"""The files in `init/` are understood by those who will read them: systemd and people."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.boot import security
from tests.boot.security import COMMON
from upgradeconverter.cli import watching
from upgradeconverter.cli.notify import PATIENCE

INIT = Path(__file__).parent.parent / "init"
PHASES = ("pre-vault", "post-vault", "confirm")
INSTALLED = "/usr/lib/upgradeconverter/bin"
START = f"{INSTALLED}/python3 -I -S {INSTALLED}/upgradeconverter"
WORDS = {phase: f"{phase} --trial" for phase in PHASES[:2]} | {"confirm": "confirm"}
FAILING = {"pre-vault": "take-back", "post-vault": "keep"}
# What `systemd-analyze security` may say at most, in tenths.
THRESHOLD = "--threshold=20"


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and keep what it says, with nothing in its environment but PATH and what is given."""
    return subprocess.run(
        command,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def copy_units(folder: Path) -> None:
    """Copy all units into `folder`, with two targets that belong to systemd itself."""
    security.copy_units(folder)
    for target in ("boot-complete", "multi-user"):
        (folder / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")


@pytest.mark.parametrize("phase", PHASES)
def test_systemd_understands_the_unit(tmp_path: Path, phase: str) -> None:
    """`systemd-analyze verify` has nothing to say; its exit status is 0 even for keys that it does not know."""
    copy_units(tmp_path)
    unit = tmp_path / f"upgradeconverter-{phase}.service"
    verified = run("systemd-analyze", "verify", str(unit), SYSTEMD_UNIT_PATH=str(tmp_path))
    assert (verified.stdout + verified.stderr, verified.returncode) == ("", 0)


def test_units_make_no_circle(tmp_path: Path) -> None:
    """Among the units of this very system there is an order that puts ours between the disk and the services."""
    copy_units(tmp_path)
    verified = run("systemd-analyze", "verify", *sorted(str(unit) for unit in tmp_path.glob("*.*e*")), "multi-user.target")
    assert "cycle" not in verified.stdout + verified.stderr


def test_verification_notices_a_wrong_key(tmp_path: Path) -> None:
    """The check above would see a misspelt key, so its silence means something."""
    copy_units(tmp_path)
    unit = tmp_path / "upgradeconverter-pre-vault.service"
    (tmp_path / COMMON).write_text((tmp_path / COMMON).read_text().replace("UMask=", "Umask="))
    verified = run("systemd-analyze", "verify", str(unit), SYSTEMD_UNIT_PATH=str(tmp_path))
    assert "Umask" in verified.stdout + verified.stderr


@pytest.mark.parametrize("phase", PHASES)
def test_unit_starts_its_own_phase(phase: str) -> None:
    """Each unit calls the installed program with its phase, and where it holds up the boot with a deadline and a policy."""
    words = WORDS[phase] + (f" --deadline 1800 --on-failure {FAILING[phase]}" if phase in FAILING else "")
    text = (INIT / "systemd" / f"upgradeconverter-{phase}.service").read_text()
    assert re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE) == [f"{START} {words} --report /run/upgradeconverter"]


def test_units_wait_as_long_as_is_asked_for() -> None:
    """The program is listened to, and the time limit is the time by which it extends it, longer than it waits for the disk."""
    text = (INIT / "systemd" / COMMON).read_text()
    assert re.findall("^TimeoutStartSec=(.*)$", text, re.MULTILINE) == [f"{PATIENCE // 60}min"]
    assert re.findall("^NotifyAccess=(.*)$", text, re.MULTILINE) == ["main"]
    assert watching.PATIENCE < PATIENCE


@pytest.mark.parametrize("phase", PHASES)
def test_unit_is_confined(tmp_path: Path, phase: str) -> None:
    """Nothing is left open without need; what is has its reason beside it."""
    copy_units(tmp_path)
    judged = security.judged(tmp_path, phase, THRESHOLD)
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("line", ["NoNewPrivileges=yes", "PrivateNetwork=yes", "CapabilityBoundingSet=CAP_LEASE"])
def test_looser_unit_is_noticed(tmp_path: Path, line: str) -> None:
    """The check above fails with any one protection less, or a capability more."""
    copy_units(tmp_path)
    more = "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_NET_ADMIN" if "CAP" in line else ""
    (tmp_path / COMMON).write_text((tmp_path / COMMON).read_text().replace(line, more))
    assert security.judged(tmp_path, "post-vault", THRESHOLD).returncode != 0


@pytest.mark.parametrize("name", ["readers.conf", "fail-boot.conf"])
def test_drop_in_is_understood(tmp_path: Path, name: str) -> None:
    """The drop-ins that a device may use say something that systemd knows."""
    copy_units(tmp_path)
    reader = tmp_path / "reader.service"
    reader.write_text("[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n")
    (tmp_path / "reader.service.d").mkdir()
    (tmp_path / "reader.service.d" / name).write_text((INIT / "systemd" / name).read_text())
    verified = run("systemd-analyze", "verify", str(reader), SYSTEMD_UNIT_PATH=f"{tmp_path}:")
    assert (verified.stdout + verified.stderr, verified.returncode) == ("", 0)


def test_readme_lists_every_exit_status() -> None:
    """The table of exit statuses has one row for each of 0 to 7, in order."""
    section = (INIT / "README.md").read_text().partition("## Exit statuses")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (\d+) \|", section, re.MULTILINE) == [str(status) for status in range(8)]
