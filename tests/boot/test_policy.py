"""What becomes of a boot whose conversion fails, hangs or is not confirmed, and what the confined units can still do."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cases import load_cases
from tests.support.disktree import build, capture
from tests.support.freshroot import base, installed
from tests.support.machine import CONFIRM, POST, PRE, READER, UNLOCK, WHOLE, DidNotBootError, machine
from tests.support.olddisk import IMAGE, TARGETS, make_disk, write
from tests.support.starting import CHECKOUT, line_of
from tests.support.torture import DECLARED, ITEMS, build_beside_vault, differences, observe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Boot, Machine

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

LATEST = {"/etc/upgradeconverter.toml": 'target = "latest"\n'}
NOT_A_RELEASE = {"/etc/eve-release": "nonsense\n"}
NEEDS = {"needs.service": (CHECKOUT / "init/systemd/readers.conf").read_text(encoding="utf-8") + READER}
JUDGE = (
    "[Unit]\nBefore=boot-complete.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/{}\n"
    "[Install]\nRequiredBy=boot-complete.target\n"
)
GOOD, BAD = ({"judge.service": JUDGE.format(answer)} for answer in ("true", "false"))
HIDDEN = "a name that nobody outside of the vault may know"
EMPTY = {"": {"kind": "directory", "mode": "0755", "mtime": 0}}


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Machine]:
    """Give a machine with the small old disk."""
    with machine(installed(), tmp_path, capture(make_disk(tmp_path / "old"))) as made:
        yield made


def instead(unit: str, phase: str, **words: str) -> dict[str, str]:
    """Return a drop-in by which a unit starts the program with other words, each `name=value` in the place of the old value."""
    line = line_of(phase).split()
    for name, value in words.items():
        line[line.index(f"--{name.replace('_', '-')}") + 1] = value
    return {f"{unit}.d/words.conf": f"[Service]\nExecStart=\nExecStart={' '.join(line)}\nTimeoutStopSec=2s\n"}


def report(boot: Boot, phase: str) -> dict[str, object]:
    """Return the report of a phase."""
    found: dict[str, object] = json.loads(boot.files[f"/run/upgradeconverter/{phase}.json"])
    return found


# --- failures --------------------------------------------------------------------------------------------------------------


def test_old_layout_goes_on_but_is_no_good_boot(old: Machine) -> None:
    """A phase that took all back lets its readers start, but such a boot is no good one, and nothing is confirmed in it."""
    units = instead(PRE, "pre-vault", deadline="0.01")
    settings = next(case.tree for case in load_cases("eve") if case.name == "config_moves")
    with old.unlocked() as top:
        build(settings, top)
    boot = old.boot(units={**NEEDS, **GOOD, **units}, files={"/etc/upgradeconverter.toml": 'target = "5.15.0"\n'})
    assert (boot.units[PRE].active, boot.units[PRE].status) == ("active", 7)
    assert (boot.units["needs.service"].active, boot.units[WHOLE].active) == ("active", "inactive")
    assert (boot.units["boot-complete.target"].active, boot.units[CONFIRM].ran) == ("inactive", 0)


@pytest.mark.parametrize("word", ["upgradeconverter=off", "upgradeconverter=dry-run"])
@pytest.mark.parametrize("place", [".upgradeconverter/stage", "vault/.upgradeconverter/trash"])
def test_switched_off_in_the_middle(old: Machine, word: str, place: str) -> None:
    """Where something is half made readers stay down, also when the converter that would finish it is switched off."""
    with old.unlocked() as top:
        (Path(top) / place).mkdir(parents=True)
    boot = old.boot(word, units=NEEDS)
    assert boot.units["needs.service"].active == "inactive"


def test_what_the_package_enables_breaks_nothing(old: Machine) -> None:
    """As it is installed no boot becomes a bad one, and no trial is confirmed, before somebody has said how the device boots."""
    boot = old.boot(units=GOOD, files=LATEST, enable=False, then="systemctl start boot-complete.target")
    assert (boot.state, boot.status, boot.units["boot-complete.target"].active) == ("running", 0, "active")
    assert (boot.units[PRE].active, boot.units[POST].ran, boot.units[CONFIRM].ran) == ("active", 0, 0)


def test_another_root(old: Machine) -> None:
    """With the drop-in for another root the state there is converted, although nothing lies in the usual one."""
    drop_in = (CHECKOUT / "init/systemd/other-root.conf").read_text(encoding="utf-8")
    drop_in = drop_in.replace("/var/rayos", "/srv/state").replace("state --pack rayos", "post-vault --target latest")
    make = READER.replace("/bin/true", "/bin/sh -c 'cp -a /persist /srv/state && mkdir /srv/state/vault'").replace(
        "WantedBy=multi-user", "RequiredBy=sysinit"
    )
    first = f"[Unit]\nDefaultDependencies=no\nRequiresMountsFor=/persist\nBefore={PRE} {POST}\n{make}"
    with old.unlocked() as top:
        shutil.rmtree(f"{top}/vault", ignore_errors=True)
    boot = old.boot(units={f"{POST}.d/root.conf": drop_in, "make.service": first}, keep=("/run/upgradeconverter", "/srv/state"))
    assert (boot.units[POST].status, report(boot, "post-vault")["outcome"]) == (0, "done")
    assert f"/srv/state/{TARGETS[0]}" in boot.files


def test_refusal_holds_the_readers_of_the_vault(old: Machine) -> None:
    """pre-vault refused lets the boot go on, post-vault refused keeps readers down, and such a boot is no good one."""
    before = capture(old.data)
    boot = old.boot(units={**NEEDS, **GOOD}, files=NOT_A_RELEASE)
    units = boot.units
    assert (units[PRE].active, units[PRE].status) == ("active", 3)
    assert (units[POST].active, units[POST].status, units[POST].result) == ("failed", 3, "exit-code")
    assert (units["needs.service"].active, units["boot-complete.target"].active) == ("inactive", "inactive")
    assert units[CONFIRM].ran == 0
    assert capture(old.data).keys() == before.keys()
    assert [event["UPGRADECONVERTER_CODE"] for event in boot.events(POST)] == ["UnknownRelease"]
    assert [event["PRIORITY"] for event in boot.events(POST)] == ["3"]


def test_device_goes_on_with_the_old_layout(old: Machine) -> None:
    """A phase that takes back what it did, and says so, lets its readers start with the old layout, which is whole."""
    names = capture(old.data).keys()
    units = instead(POST, "post-vault", deadline="0.01", on_failure="take-back")
    units[f"{POST}.d/policy.conf"] = "[Service]\nSuccessExitStatus=3 7\n"
    boot = old.boot(units={**NEEDS, **units}, files=LATEST)
    assert (boot.units[POST].active, boot.units[POST].status) == ("active", 7)
    assert boot.units["needs.service"].active == "active"
    assert report(boot, "post-vault")["exit_status"] == 7
    with old.unlocked() as top:
        assert capture(top).keys() - {""} == names - {""} | {"vault"}


def test_failed_phase_may_end_the_boot(old: Machine) -> None:
    """With the drop-in for devices whose boot loader counts, a phase that fails ends the boot at once."""
    ends = (CHECKOUT / "init/systemd/fail-boot.conf").read_text(encoding="utf-8").replace("=reboot", "=poweroff-force")
    assert "poweroff" in ends
    # Perhaps it has ended before anybody could look.
    with suppress(DidNotBootError):
        assert old.boot(units={f"{POST}.d/fail-boot.conf": ends}, files=NOT_A_RELEASE).state not in (
            "running",
            "degraded",
            "starting",
        )
    assert old.boot(units={f"{POST}.d/fail-boot.conf": ends}, files={"/etc/eve-release": "16.12.0\n"}).units[POST].status == 0


def test_disk_that_hangs_is_given_up(old: Machine) -> None:
    """A disk that does not answer ends the phase soon after its deadline, with a report; readers stay down, and it can go on."""
    freeze = f"[Unit]\nRequires={UNLOCK}\nAfter={UNLOCK}\nBefore={POST}\n" + READER.replace(
        "/bin/true", "/sbin/fsfreeze -f /persist"
    )
    freeze = freeze.replace("WantedBy=multi-user.target", "RequiredBy=vault-unlocked.target")
    then = f"fsfreeze -u /persist; sleep 1; systemctl start {POST} && systemctl start needs.service"
    words = instead(POST, "post-vault", deadline="2")
    boot = old.boot(
        units={**NEEDS, **words, "freeze.service": freeze}, files=LATEST, then=f"cp -r /run/upgradeconverter /mnt/out; {then}"
    )
    first = json.loads((old.scratch / "out/upgradeconverter/post-vault.json").read_text())
    assert (first["exit_status"], first["error"]["code"]) == (6, "DiskHangs")
    assert "disk-hangs" in [event["UPGRADECONVERTER_EVENT"] for event in boot.events(POST)]
    assert boot.status == 0, boot.said
    assert (boot.units[POST].active, boot.units["needs.service"].active) == ("active", "active")
    assert boot.units["needs.service"].ran > boot.units[POST].ran
    with old.unlocked() as top:
        assert capture(top).keys() >= set(TARGETS)


# --- two systems -----------------------------------------------------------------------------------------------------------


def test_fallback_and_second_try(old: Machine) -> None:
    """New system converts on trial and fails; old system finds all of its disk and goes on; new system comes again and stays."""
    before = capture(old.data)
    failed = old.boot(units={**NEEDS, **BAD}, files=LATEST)
    assert report(failed, "post-vault")["outcome"] == "done"
    assert (failed.units["boot-complete.target"].active, failed.units[CONFIRM].ran) == ("inactive", 0)

    at_home = f"cd /persist && cat {IMAGE} && printf ', as the old system left it' >>{IMAGE} && sync"
    older = old.boot(root=base(), then=at_home)
    assert (older.status, older.said) == (0, "image of a virtual machine")
    whole = {path: entry for path, entry in before.items() if path not in ("", IMAGE) and entry["kind"] == "file"}
    after = capture(old.data)
    assert {path: after.get(path, {}).get("data") for path in whole} == {path: entry["data"] for path, entry in whole.items()}

    again = old.boot(units={**NEEDS, **GOOD}, files=LATEST)
    assert [again.units[name].result for name in (PRE, POST, CONFIRM)] == ["success"] * 3
    assert (report(again, "confirm")["outcome"], again.units["needs.service"].active) == ("done", "active")
    with old.unlocked() as top:
        disk = capture(top, engine=True)
        assert (Path(top) / TARGETS[0]).read_text() == "image of a virtual machine, as the old system left it"
    assert IMAGE not in disk
    assert ".upgradeconverter/waiting" not in disk


# --- what a boot leaves behind ---------------------------------------------------------------------------------------------


def test_reports_figures_and_journal(old: Machine) -> None:
    """Each phase leaves report and figures; events are entries with boot and run; nothing else is said, and no secret name."""
    with old.unlocked() as top:
        write(Path(top) / "vault/volumes" / HIDDEN, b"x")
    boot = old.boot(units=GOOD, files=LATEST)
    done = report(boot, "post-vault")
    events = boot.events(POST)
    names = [event["UPGRADECONVERTER_EVENT"] for event in events]
    assert names == ["run-started", *["wave-done"] * (len(names) - 2), "run-done"]
    assert {event["UPGRADECONVERTER_RUN"] for event in events} == {done["run"]}
    # A container has a boot of its own for its journal, but not for what gets a /proc of its own.
    assert {event["UPGRADECONVERTER_BOOT"] for event in events} == {
        Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    }
    assert {event["SYSLOG_IDENTIFIER"] for event in events} == {"upgradeconverter"}
    said = [
        entry["MESSAGE"] for entry in boot.journal if entry.get("_SYSTEMD_UNIT") == POST and entry.get("_TRANSPORT") == "stdout"
    ]
    assert len(said) == 1
    assert said[0].startswith("post-vault: done, ")
    assert b'upgradeconverter_exit_status{phase="post-vault"} 0' in boot.files["/run/upgradeconverter/post-vault.prom"]
    everything = json.dumps(boot.journal).encode() + b"".join(boot.files.values())
    assert HIDDEN.encode() not in everything
    assert b"<hidden 1>" in boot.files["/run/upgradeconverter/post-vault.json"]
    assert {path.rpartition("/")[2] for path in boot.files} >= {
        "pre-vault.json",
        "post-vault.json",
        "confirm.json",
        "confirm.prom",
    }
    assert not [path for path in boot.files if path.endswith(".lock")]


def test_nothing_is_said_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    """A boot with nothing to do, on a disk that was converted, leaves no word of ours in the journal."""
    with machine(installed(), tmp_path, capture(make_disk(tmp_path / "old"))) as made:
        # A settings file would ask for a closer look.
        release = {"/etc/eve-release": "16.12.0\n"}
        for _ in range(2):
            made.boot(files=release)
        boot = made.boot(files=release)
    ours = [entry for entry in boot.journal if str(entry.get("SYSLOG_IDENTIFIER", "")).startswith("upgradeconverter")]
    assert [entry["MESSAGE"] for entry in ours] == []
    assert report(boot, "post-vault")["outcome"] == "nothing-to-do"


# --- confined, and nothing lost --------------------------------------------------------------------------------------------


def test_confined_units_carry_everything_over(tmp_path: Path) -> None:
    """Under the units all that a file system can hold is the same under the new names, device nodes and all attributes too."""
    with machine(installed(), tmp_path, EMPTY, size="640M") as made:
        with made.unlocked() as top:
            build_beside_vault(Path(top), "ext4")
            subprocess.run(["mount", "-o", "remount,noatime", top], check=True)
            before = observe({item: f"{top}/{item}" for item in ITEMS})
        boot = made.boot(units=GOOD, files=LATEST)
        assert [boot.units[name].result for name in (PRE, POST, CONFIRM)] == ["success"] * 3
        done = report(boot, "post-vault")
        assert (done["outcome"], done["skipped"]) == ("done", [])
        with made.unlocked() as top:
            after = observe({item: f"{top}/{target}" for item, target in ITEMS.items()})
    assert differences(before, after, apart=DECLARED) == []


@pytest.mark.parametrize("less", ["CAP_MKNOD", "CAP_SETFCAP", "CAP_FOWNER", "CAP_CHOWN"])
def test_each_privilege_is_missed(tmp_path: Path, less: str) -> None:
    """Without any one of the capabilities the same is not carried over, and nothing is lost for that."""
    with machine(installed(), tmp_path, EMPTY, size="640M") as made:
        with made.unlocked() as top:
            build_beside_vault(Path(top), "ext4")
        drop_in = {"upgradeconverter-.service.d/20-less.conf": f"[Service]\nCapabilityBoundingSet=~{less}\n"}
        boot = made.boot(units={**drop_in, **BAD}, files=LATEST)
        done = report(boot, "post-vault")
        assert (done["exit_status"], done["skipped"]) != (0, [])
        with made.unlocked() as top:
            assert [item for item in ITEMS if not (Path(top) / item).exists()] == []
