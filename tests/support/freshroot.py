"""Roots of fresh Debian systems, built once and shared by all tests: without the package, and with it installed by dpkg.

A root is a pile of directories for an overlay, so that whoever works on one writes somewhere else. They are kept in `build/boot`,
under digests of what they are made of. Needs root and Debian's mirrors.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
STORE = CHECKOUT / "build/boot"
SUITE = "bookworm"
PACKAGES = ("python3", "systemd", "systemd-sysv")
# What the package is made of: folders and files of the checkout.
INPUTS = ("CHANGELOG.md", "LICENSE", "README.md", "docs", "init", "migrations", "pyproject.toml", "upgradeconverter")
# So many builds of one kind are kept: the checkout changes, and whoever goes back and forth need not build each time.
_KEPT = 3
_MINUTES = 60
# Hundredths of a second until nobody is in the control groups of a container that was killed.
_PATIENCE = 500
# Mounts and processes of its own, which go with the first one, and that with who started it. Without the namespace of processes
# the system in the container would outlive a systemd-nspawn that is killed.
_APART = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-euc")
# Where no systemd gives each container a place among the control groups, two at a time would share one, and stop each other.
_ENTER = """
merged=$1 options=$2 group=$3
shift 3
mount -t overlay -o "$options" overlay "$merged"
for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
  if [ -n "$group" ] && [ -e "$tree/cgroup.procs" ]; then
    mkdir "$tree/$group"
    echo $$ >"$tree/$group/cgroup.procs"
  fi
done
exec "$@"
"""
_GROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")


@dataclass(frozen=True, slots=True)
class Root:
    """The directories of a root, the uppermost first."""

    layers: tuple[str, ...]


@contextmanager
def entered(root: Root, scratch: Path, *words: str) -> Iterator[list[str]]:
    """Give the command that starts systemd-nspawn with these words on a root; what is written lies in `scratch/upper`."""
    upper, work, merged = (scratch / name for name in ("upper", "work", "merged"))
    for folder in (upper, work, merged):
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={':'.join(root.layers)},upperdir={upper},workdir={work}"
    name = f"upgradeconverter-{uuid.uuid4().hex[:12]}"
    alone = not os.path.isdir("/run/systemd/system")
    spawn = ["systemd-nspawn", "--quiet", "--register=no", f"--machine={name}", f"--directory={merged}"]
    spawn += ["--keep-unit"] if alone else []
    left = [f"{tree}/{name}" for tree in (*_GROUPS, "/run/systemd/nspawn/propagate")]
    with tidied('for _ in 1 2 3 4 5 6 7 8; do sleep 1; find "$@" -depth -type d -exec rmdir {} +; done', *left):
        try:
            yield [*_APART, _ENTER, "sh", str(merged), options, name if alone else "", *spawn, *words]
        finally:
            for place in left:
                _remove(place)


@contextmanager
def tidied(script: str, *words: str) -> Iterator[None]:
    """Let a shell clean up, should this process be killed before the body has come to its end."""
    shell = ["sh", "-c", f"read -r _ || {{ {script}; }}", "sh", *words]
    with subprocess.Popen(
        shell, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as waiting:
        try:
            yield
        finally:
            waiting.communicate(b"all is done\n")


def _remove(top: str) -> None:
    """Remove a folder of folders, such as a control group; who was killed in one may still be on the way out."""
    for folder, _, _ in os.walk(top, topdown=False):
        for _ in range(_PATIENCE):
            try:
                os.rmdir(folder)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                time.sleep(0.01)
            else:
                break
        else:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), folder)


def run_in(root: Root, scratch: Path, *command: str, binds: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command on a root, where no systemd runs; returns it whatever its status."""
    with entered(root, scratch, "--pipe", *(f"--bind={each}" for each in binds), *command) as words:
        return subprocess.run(
            words, env=clean(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=4 * _MINUTES
        )


def clean() -> dict[str, str]:
    """Return the environment without what tests and interpreters leave in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "COV_", "PYTHON", "PYTEST"))}


@functools.cache
def base() -> Root:
    """Return a small Debian with systemd and Python."""
    return Root((str(_made("base", _digest(b" ".join(each.encode() for each in (SUITE, *PACKAGES))), _bootstrap)),))


@functools.cache
def package() -> Path:
    """Return the Debian package of this checkout."""
    (found,) = _made("deb", _inputs(), _build).glob("*.deb")
    return found


@functools.cache
def installed() -> Root:
    """Return the small Debian with the package installed."""
    below = base()
    key = _digest(f"{below.layers} {package()}".encode())
    return Root((str(_made("installed", key, lambda folder: _install(below, folder)) / "upper"), *below.layers))


def install(root: Root, scratch: Path, deb: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Install the package of this checkout, or another one, on a root."""
    deb = deb or package()
    return run_in(root, scratch, "dpkg", "--install", f"/mnt/{deb.name}", binds=(f"{deb}:/mnt/{deb.name}",))


def _made(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the store, made by the first who asks for it; nobody sees one that is half made."""
    place = STORE / f"{kind}-{key}"
    STORE.mkdir(parents=True, exist_ok=True)
    with FileLock(STORE / f"{kind}.lock"):
        if not place.exists():
            fresh = STORE / f"{kind}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            make(fresh)
            fresh.rename(place)
        os.utime(place)
        for old in sorted(STORE.glob(f"{kind}-*"), key=lambda each: each.stat().st_mtime, reverse=True)[_KEPT:]:
            shutil.rmtree(old)
    return place


def _bootstrap(folder: Path) -> None:
    # The user of apt may not enter the folders of whoever has the checkout; there is nothing to protect by it here.
    words = ("--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", '--aptopt=APT::Sandbox::User "root"')
    _run("mmdebstrap", *words, SUITE, str(folder), TMPDIR="/var/tmp")
    # A system that has been started before: a first boot would enable and ask for things.
    (folder / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n", encoding="ascii")


def _build(folder: Path) -> None:
    _run("sh", str(CHECKOUT / "init/debian/build.sh"), sys.executable, str(folder))


def _install(below: Root, folder: Path) -> None:
    done = install(below, folder)
    if done.returncode:
        raise OSError(done.returncode, f"dpkg: {done.stdout}{done.stderr}")


def _run(*command: str, **environment: str) -> None:
    done = subprocess.run(
        command, env={**clean(), **environment}, capture_output=True, text=True, check=False, timeout=4 * _MINUTES
    )
    if done.returncode:
        raise OSError(done.returncode, f"{command[0]}: {done.stdout}{done.stderr}")


def _inputs() -> str:
    """Return the digest of all that the package is made of, and of what makes it."""
    digest = hashlib.blake2b(repr(sys.version_info).encode(), digest_size=8)
    for name in INPUTS:
        top = CHECKOUT / name
        for path in sorted(each for each in (top, *top.rglob("*")) if each.is_file() and "__pycache__" not in each.parts):
            digest.update(f"{path.relative_to(CHECKOUT)} {path.stat().st_mode} ".encode() + path.read_bytes())
    return digest.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
