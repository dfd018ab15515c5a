"""Builds the machine: Debian's kernel for clouds, a first process for its memory disk, and a small root with the real units.

Nothing is built twice: Debian's part stays in `build/machine`, and so does the root, for as long as the project is what it was.
Needs root, a mirror of Debian and one of PyPI.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.powercut.stories import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITE = "bookworm"
KERNEL = "linux-image-cloud-amd64"
INSIDE = Path(__file__).resolve().parent / "inside"
_PYTHON = (3, 11)
_PACKAGES = "systemd,systemd-sysv,mount,grep,python3,python3-venv,e2fsprogs"
# In the order in which they are loaded: the disks, then what a vault of AES-256-XTS and -CTS needs.
_MODULES = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "crypto/sha512_generic",
    "crypto/ecb",
    "crypto/xts",
    "crypto/cts",
)
_PHASES = ("pre-vault", "post-vault", "confirm")
_OURS = (
    "data-disk.service",
    "persist.mount",
    "unlock-vault.service",
    "judge.service",
    "control.service",
    "old.service",
    "report.service",
)
# What systemd starts besides is no part of this, and costs seconds under emulation.
_KEPT = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
_FOR_LATER = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache", "var/lib/apt")


class NotBuiltError(Exception):
    """The machine could not be built; the message is what the tool said."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What qemu is started with."""

    kernel: str
    memory_disk: str
    root: str
    release: str


def machine(lists: dict[str, str], shelf: Path = REPOSITORY / "build/machine") -> Machine:
    """Build what is not built yet; `lists` are files that the test units read, by their names."""
    if sys.version_info[:2] != _PYTHON:
        raise NotBuiltError(f"the machine has Python {_PYTHON[0]}.{_PYTHON[1]}, and only that one's packages fit")
    shelf.mkdir(parents=True, exist_ok=True)
    kernel, modules, release = _kernel(shelf)
    root = shelf / f"root-{_identity(lists)}.img"
    if not root.exists():
        _build_root(shelf, root, lists)
    memory_disk = shelf / "memory-disk"
    _build_memory_disk(modules, memory_disk, shelf / "first")
    return Machine(str(kernel), str(memory_disk), str(root), release)


def _run(*words: str, folder: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        words,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise NotBuiltError(f"{' '.join(words)[:200]}: {done.stderr[-2000:]}")
    return done.stdout


# --- the kernel ----------------------------------------------------------------------------------------------------------


def _kernel(shelf: Path) -> tuple[Path, Path, str]:
    """Return kernel, modules and release of Debian's kernel; the package that is named depends on the one that has it."""
    place = shelf / "kernel"
    if not place.exists():
        fresh = shelf / "kernel.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        _download(KERNEL, fresh)
        depends = _run("dpkg-deb", "--field", *map(str, fresh.glob("*.deb")), "Depends")
        _download(depends.split()[0], fresh)
        for package in fresh.glob("linux-image-[0-9]*.deb"):
            _run("dpkg", "--extract", str(package), str(fresh))
        fresh.rename(place)
    (image,) = (place / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    return image, place / "lib/modules" / release / "kernel", release


def _download(package: str, folder: Path) -> None:
    # The user that apt changes to cannot write here.
    _run("apt-get", "-o", "APT::Sandbox::User=root", "download", package, folder=folder)


def _build_memory_disk(modules: Path, result: Path, top: Path) -> None:
    """Pack the first process, the shell that runs it, and the modules it loads."""
    shutil.rmtree(top, ignore_errors=True)
    for name in ("bin", "modules", "proc", "sys", "dev", "root"):
        (top / name).mkdir(parents=True)
    busybox = shutil.which("busybox") or "busybox"
    shutil.copy(busybox, top / "bin/busybox")
    for name in ("sh", "mount", "insmod", "switch_root"):
        (top / "bin" / name).symlink_to("busybox")
    names = []
    for path in _MODULES:
        (found,) = modules.glob(f"{path}.ko")
        shutil.copy(found, top / "modules")
        names.append(f"{found.name}\n")
    (top / "modules/order").write_text("".join(names))
    shutil.copy(INSIDE / "init", top / "init")
    (top / "init").chmod(0o755)
    _run("sh", "-c", f"find . | cpio --quiet --create --format=newc --owner=0:0 >{result}", folder=top)
    shutil.rmtree(top)


# --- the root ------------------------------------------------------------------------------------------------------------


def _identity(lists: dict[str, str]) -> str:
    """Return a digest of everything of ours that is in the root."""
    digest = hashlib.blake2b(repr(sorted(lists.items())).encode(), digest_size=8)
    for path in sorted(_sources()):
        digest.update(f"{path}".encode() + path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    yield Path(__file__)
    yield REPOSITORY / "pyproject.toml"
    yield REPOSITORY / "tests/support/vaults.py"
    for folder in (REPOSITORY / "upgradeconverter", REPOSITORY / "migrations", REPOSITORY / "init", INSIDE):
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _base(shelf: Path) -> Path:
    """Return Debian's part of the root, as an archive."""
    base = shelf / f"{SUITE}.tar"
    if not base.exists():
        fresh = shelf / f"{SUITE}.new.tar"
        options = ("--mode=root", "--variant=essential", f"--include={_PACKAGES}", '--aptopt=APT::Sandbox::User "root"')
        # The mirror's user has to reach the working folder, which it cannot in a /tmp that is closed to others.
        _run("mmdebstrap", *options, SUITE, str(fresh), TMPDIR="/var/tmp")
        fresh.rename(base)
    return base


def _build_root(shelf: Path, image: Path, lists: dict[str, str]) -> None:
    top, wheels = shelf / "root", shelf / "wheels"
    for each in (top, wheels):
        shutil.rmtree(each, ignore_errors=True)
        each.mkdir()
    _run("tar", "--extract", f"--file={_base(shelf)}", f"--directory={top}")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", f"--wheel-dir={wheels}", str(REPOSITORY))
    _install(top, wheels)
    _furnish(top, lists)
    _strip(top)
    for old in shelf.glob("root-*.img"):
        old.unlink()
    fresh = shelf / "root.new"
    _run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", "-d", str(top), str(fresh), "512M")
    fresh.rename(image)
    shutil.rmtree(top)


def _install(top: Path, wheels: Path) -> None:
    """Install the program as init/README.md says, but from wheels that were fetched outside."""
    place = "/usr/lib/upgradeconverter"
    shutil.copytree(wheels, top / "wheels")
    _run("chroot", str(top), "python3", "-m", "venv", place)
    words = ("--quiet", "--no-index", "--find-links=/wheels", "--root-user-action=ignore")
    _run("chroot", str(top), f"{place}/bin/pip", "install", *words, "upgradeconverter")
    shutil.rmtree(top / "wheels")
    unused = shutil.ignore_patterns("*.md", "readers.conf", "fail-boot.conf", "other-root.conf")
    shutil.copytree(REPOSITORY / "init/systemd", top / "usr/lib/systemd/system", ignore=unused, dirs_exist_ok=True)


def _furnish(top: Path, lists: dict[str, str]) -> None:
    """Put in what a device has besides: who mounts, who unlocks, who judges the boot, and who tells."""
    _quieten(top)
    units = top / "usr/lib/systemd/system"
    drop_ins = top / "etc/systemd/system/vault-unlocked.target.d"
    drop_ins.mkdir(parents=True)
    shutil.copy(INSIDE / "unlock.conf", drop_ins)
    for name in _OURS:
        shutil.copy(INSIDE / name, units)
    own = top / "usr/lib/machine"
    own.mkdir()
    for path in (INSIDE / "control", INSIDE / "report", REPOSITORY / "tests/support/vaults.py"):
        shutil.copy(path, own)
    for name, text in lists.items():
        (own / name).write_text(text)
    enabled = [f"upgradeconverter-{phase}.service" for phase in _PHASES]
    enabled += [
        "vault-unlocked.target",
        "upgradeconverter-good.target",
        "judge.service",
        "control.service",
        "old.service",
        "report.service",
    ]
    _run("systemctl", f"--root={top}", "--quiet", "enable", *enabled)
    _run("systemctl", f"--root={top}", "--quiet", "set-default", "multi-user.target")
    (top / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (top / "etc/fstab").write_text("")
    for name in ("persist", "run", "dev", "proc", "sys"):
        (top / name).mkdir(exist_ok=True)


def _quieten(top: Path) -> None:
    """Leave of what systemd starts by itself only what is kept."""
    shutil.rmtree(top / "usr/lib/systemd/system-generators")
    for folder in (top / "usr/lib/systemd/system", top / "etc/systemd/system"):
        links = (link for kind in ("wants", "requires") for link in folder.glob(f"*.{kind}/*"))
        for link in [each for each in links if each.name not in _KEPT]:
            link.unlink()


def _strip(top: Path) -> None:
    for name in _FOR_LATER:
        shutil.rmtree(top / name, ignore_errors=True)
