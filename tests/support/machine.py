"""A machine that boots: a fresh Debian in a container with systemd as its first process, and an old disk that is real.

The disk is an ext4 in an image. It is mounted here, where tests look at it between two boots, and shown to the container, where
`persist.mount` puts it at `/persist`. The vault on it is a directory with an fscrypt policy: locked when the machine starts, and
unlocked by `unlock-vault.service`, as `init/README.md` wants it. `collect.service` waits for the end of the boot, or for as long
as a boot may take, does what the test wants done then, writes down what became of it, and switches the machine off.

Needs root. What ConditionKernelCommandLine= sees are the arguments of the first process; the program sees `/proc/cmdline`, over
which the same words are mounted, for our units once more: they get a `/proc` of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import vaults
from tests.support.disktree import Tree, build
from tests.support.freshroot import Root, clean, entered, tidied

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PRE, POST, CONFIRM = (f"upgradeconverter-{phase}.service" for phase in ("pre-vault", "post-vault", "confirm"))
WHOLE = "upgradeconverter-good.target"
UNLOCKED, UNLOCK, PERSIST = "vault-unlocked.target", "unlock-vault.service", "persist.mount"
# For `then=`: what somebody types who finds the vault locked.
UNLOCK_LATER = f"touch /opt/rig/may-unlock && systemctl start {UNLOCKED}"
# What a service that reads the state says (init/README.md); a test puts `After=` and more before it.
READER = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
# Terminals, log-ins and works of a running system, which cost time and say nothing about ours.
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "emergency.service",
    "fstrim.timer",
    "getty.target",
    "rescue.service",
    "systemd-logind.service",
    "systemd-sysctl.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-user-sessions.service",
)
_PROPERTIES = (
    "Id,LoadState,UnitFileState,ActiveState,SubState,Result,ConditionResult,ExecMainStatus,ExecMainCode,StatusText,"
    "ConditionTimestampMonotonic,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic,InactiveEnterTimestampMonotonic,"
    "ExecMainStartTimestampMonotonic,ExecMainExitTimestampMonotonic"
)
_RIG = {
    "proc-cmdline.mount": (
        "[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\n"
        "[Mount]\nWhat=/opt/rig/cmdline\nWhere=/proc/cmdline\nType=none\nOptions=bind\n"
        "[Install]\nWantedBy=local-fs.target\n"
    ),
    "upgradeconverter-.service.d/rig.conf": "[Service]\nBindReadOnlyPaths=/opt/rig/cmdline:/proc/cmdline\n",
    PERSIST: (
        "[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\nRequires=proc-cmdline.mount\nAfter=proc-cmdline.mount\n"
        "[Mount]\nWhat=/mnt/data\nWhere=/persist\nType=none\nOptions=bind\n"
        "[Install]\nWantedBy=local-fs.target\n"
    ),
    "collect.service": (
        "[Unit]\nDefaultDependencies=no\nIgnoreOnIsolate=yes\n"
        "[Service]\nExecStart=/bin/sh /opt/rig/collect.sh\nStandardOutput=null\nStandardError=file:/mnt/out/collect.log\n"
        "[Install]\nWantedBy=sysinit.target\n"
    ),
}
_VAULT = {
    UNLOCK: (
        "[Unit]\nRequiresMountsFor=/persist\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStartPre=/usr/bin/test -e /opt/rig/may-unlock\n"
        "WorkingDirectory=/opt/rig\nExecStart=/usr/bin/python3 -c 'import vaults; vaults.add_key(\"/persist\")'\n"
    ),
    f"{UNLOCKED}.d/unlock.conf": f"[Unit]\nRequires={UNLOCK}\nAfter={UNLOCK}\n",
}
# A boot that hangs is one whose jobs do not come to their end; what they are tells why.
_COLLECT = f"""
cd /mnt/out
timeout "$(cat /opt/rig/patience)" systemctl is-system-running --wait >state
systemctl list-jobs --no-legend --plain >jobs
if [ -s /opt/rig/then ]; then
  sh /opt/rig/then >then.out 2>&1
  echo $? >then.status
fi
journalctl --sync
named="{PRE} {POST} {CONFIRM} {UNLOCKED} {WHOLE} boot-complete.target $(cat /opt/rig/named)"
systemctl show --property={_PROPERTIES} '*' $named >units
while read -r path; do
  [ ! -e "$path" ] || cp --archive --parents "$path" files/
done </opt/rig/kept
journalctl --boot --output=json --all >journal
touch done
if [ -e /opt/rig/cleanly ]; then systemctl poweroff; else systemctl poweroff --force --force; fi
"""
_STARTING = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What became of a unit; times are microseconds of the kernel's clock, 0 for never.

    Attributes:
        active, result: `ActiveState` and `Result`.
        status: the exit status of its process.
        condition: whether its conditions held when it was asked to start; false too where nobody asked.
        asked, started, ended: when its conditions were looked at, it began to start, and it was up (a oneshot: was done).
        ran: when its process was started.
        text: `StatusText`, the last that its process told systemd.
        properties: all that was written down.
    """

    active: str
    result: str
    status: int
    condition: bool
    asked: int
    started: int
    ended: int
    ran: int
    text: str
    properties: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What came of a boot.

    Attributes:
        units: by name; every unit that systemd had loaded, and those that the test has named.
        journal: the whole journal, one dictionary for each entry.
        files: what lay in the kept paths at the end, by path.
        state: what `systemctl is-system-running` said; "" where the boot did not come to its end in time.
        jobs: what systemd was still waiting for then.
        said, status: output and exit status of what the test wanted done after the boot.
        seconds: from the start of the container to its end.
    """

    units: dict[str, Unit]
    journal: list[dict[str, Any]]
    files: dict[str, bytes]
    state: str
    jobs: list[str]
    said: str
    status: int
    seconds: float

    def messages(self, unit: str) -> list[str]:
        """Return what a unit wrote to the journal, and what systemd wrote about it."""
        return [str(entry.get("MESSAGE")) for entry in self.journal if unit in {entry.get("_SYSTEMD_UNIT"), entry.get("UNIT")}]

    def reports(self, unit: str) -> list[dict[str, Any]]:
        """Return the report that a unit left; none where it started nothing."""
        phase = unit.removeprefix("upgradeconverter-").removesuffix(".service")
        content = self.files.get(f"/run/upgradeconverter/{phase}.json", b"")
        return [json.loads(content)] if content else []

    def events(self, unit: str) -> list[dict[str, Any]]:
        """Return the entries of the journal that are events of a unit, with fields of their own."""
        return [entry for entry in self.journal if entry.get("_SYSTEMD_UNIT") == unit and "UPGRADECONVERTER_EVENT" in entry]


class DidNotBootError(Exception):
    """The container ended, or had to be ended, before it had written down what became of the boot."""


@dataclass(slots=True, kw_only=True)
class Machine:
    """A disk and whatever root is booted on it.

    Attributes:
        root: what is booted where a boot says nothing else.
        scratch: where this machine's own files lie; what a boot writes to its root stays for the next boot of that root.
        data: where the disk is mounted here.
        key: identifier of the vault's key; empty where the disk has no vault that could be locked.
    """

    root: Root
    scratch: Path
    data: str
    key: bytes

    def lock(self) -> None:
        """Take the key of the vault away, wherever it was given."""
        if self.key:
            vaults.add_key(self.data)
            vaults.lock(self.data, self.key)

    @contextmanager
    def unlocked(self) -> Iterator[str]:
        """Let the vault be read here, between two boots; gives the directory of the disk."""
        if self.key:
            vaults.add_key(self.data)
        try:
            yield self.data
        finally:
            self.lock()

    def boot(
        self,
        *words: str,
        units: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        then: str = "",
        unlock: bool = True,
        keep: tuple[str, ...] = ("/run/upgradeconverter",),
        patience: int = 20,
        cleanly: bool = False,
        root: Root | None = None,
        enable: bool = True,
    ) -> Boot:
        """Boot once.

        Args:
            *words: more words on the kernel command line.
            units: more unit files and drop-ins by their paths below `/etc/systemd/system`; units with `[Install]` are enabled.
            files: other files by their paths.
            then: what a shell does once the boot is over, before anything is written down.
            unlock: false where the vault cannot be unlocked; `then` may do it, see `UNLOCK_LATER`.
            keep: files and directories whose content the test wants to see.
            patience: seconds after which the boot counts as one that hangs.
            cleanly: stop all units at the end, which takes longer than switching the machine off.
            enable: false to leave it at what the package has enabled.
            root: another root than that of the machine, such as one with another release; it has files of its own.
        """
        booted = root or self.root
        scratch = self.scratch / f"root-{abs(hash(booted.layers)):x}"
        out = self.scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        (out / "files").mkdir(parents=True)
        upper = scratch / "upper"
        shutil.rmtree(upper / "opt/rig", ignore_errors=True)
        wanted = {**_RIG, **(_VAULT if self.key else {}), **(units or {})}
        rig = {
            "vaults.py": Path(vaults.__file__).read_text(encoding="utf-8"),
            "collect.sh": _COLLECT,
            "cmdline": " ".join(("quiet", *words)) + "\n",
            "patience": f"{patience}\n",
            "then": then,
            "kept": "".join(f"{path}\n" for path in keep),
            "named": " ".join(name for name in wanted if "/" not in name) + "\n",
            **({"may-unlock": ""} if unlock else {}),
            **({"cleanly": ""} if cleanly else {}),
        }
        _write(upper, {f"opt/rig/{name}": text for name, text in rig.items()})
        _write(upper, {f"etc/systemd/system/{name}": text for name, text in wanted.items()})
        _write(upper, files or {})
        chosen = {UNLOCKED: "[Install]\nWantedBy=multi-user.target\n", CONFIRM: "[Install]\nWantedBy=multi-user.target\n"}
        chosen[WHOLE] = "[Install]\nRequiredBy=boot-complete.target\n"
        _enable(upper / "etc/systemd/system", {**wanted, **(chosen if enable else {})})
        self.lock()
        binds = (f"--bind={self.data}:/mnt/data", f"--bind={out}:/mnt/out")
        seconds = _run(booted, scratch, (*binds, "--console=read-only", "--boot", "quiet", *words), patience + _STARTING)
        return _read(out, seconds)


@contextmanager
def machine(root: Root, scratch: Path, tree: Tree, *, vault: bool = True, size: str = "64M") -> Iterator[Machine]:
    """Give a machine with a disk on which a tree is built, behind a key where its vault is, unless it is to be without one."""
    place = str(scratch / "data")
    with tidied('umount --lazy "$1"', place), vaults.mounted(str(scratch / "image"), place, size=size) as data:
        key = vaults.add_key(data) if vault else b""
        if vault:
            os.mkdir(f"{data}/vault", 0o700)
            vaults.encrypt(f"{data}/vault", key)
        build(tree, data)
        made = Machine(root=root, scratch=scratch, data=data, key=key)
        made.lock()
        yield made


def _write(top: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = top / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _enable(top: Path, units: Mapping[str, str]) -> None:
    """Do what `systemctl enable` and `systemctl mask` would do, which know no root that is not mounted."""
    links = {f"{top}/{name}": "/dev/null" for name in _MASKED}
    for name, text in units.items():
        for line in text.splitlines():
            kind, _, others = line.partition("=")
            if kind in {"WantedBy", "RequiredBy"}:
                folder = "wants" if kind == "WantedBy" else "requires"
                links |= {f"{top}/{other}.{folder}/{name}": f"../{name}" for other in others.split()}
    for place, target in links.items():
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if not os.path.lexists(place):
            os.symlink(target, place)


def _run(root: Root, scratch: Path, words: tuple[str, ...], limit: float) -> float:
    """Start a container and wait for its end, which comes at the latest when the limit is over; returns how long it took."""
    console = scratch / "console"
    begun = time.monotonic()
    with entered(root, scratch, *words) as command, console.open("wb") as stream:
        started = subprocess.Popen(
            command, env=clean(), stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            started.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise DidNotBootError(console.read_text(errors="replace")) from error
        finally:
            started.kill()
            started.wait()
    seconds = time.monotonic() - begun
    if not (scratch.parent / "out/done").exists():
        raise DidNotBootError(console.read_text(errors="replace"))
    return seconds


def _read(out: Path, seconds: float) -> Boot:
    texts = {name: _text(out / name) for name in ("state", "jobs", "then.out", "then.status", "units", "journal")}
    blocks = (dict(line.split("=", 1) for line in block.splitlines()) for block in texts["units"].split("\n\n") if block.strip())
    return Boot(
        units={block["Id"]: _unit(block) for block in blocks},
        journal=[json.loads(line) for line in texts["journal"].splitlines()],
        files={
            f"/{path.relative_to(out / 'files')}": path.read_bytes()
            for path in (out / "files").rglob("*")
            if path.is_file() and not path.is_symlink()
        },
        state=texts["state"].strip(),
        jobs=texts["jobs"].splitlines(),
        said=texts["then.out"],
        status=int(texts["then.status"] or 0),
        seconds=seconds,
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _unit(block: dict[str, str]) -> Unit:
    def number(name: str) -> int:
        return int(block.get(name) or 0)

    return Unit(
        active=block["ActiveState"],
        result=block.get("Result", ""),
        status=number("ExecMainStatus"),
        condition=block["ConditionResult"] == "yes",
        asked=number("ConditionTimestampMonotonic"),
        started=number("InactiveExitTimestampMonotonic"),
        ended=number("ActiveEnterTimestampMonotonic"),
        ran=number("ExecMainStartTimestampMonotonic"),
        text=block.get("StatusText", ""),
        properties=block,
    )
