"""An initramfs that dracut makes with the module holds all that the program needs; its hook converts the real root's state."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.installed import whole
from tests.support.olddisk import contents, make_disk
from tests.support.starting import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.root]
MODULE = CHECKOUT / "init/dracut/90upgradeconverter"
DRACUT = Path("/usr/lib/dracut")
# What of dracut's library the hook calls, with the kernel command line that a test wants.
LIBRARY = """
getarg() {
  for word in $CMDLINE; do
    case $word in
      "${1%=}") return 0 ;;
      "${1%=}"=*) echo "${word#*=}"; return 0 ;;
    esac
  done
  return 1
}
info() { echo "info $*"; }
warn() { echo "warn $*"; }
die() { echo "died $*"; exit 7; }
systemctl() { echo "systemctl $*"; }
export NEWROOT=/sysroot
. /HOOK
echo "went on"
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an initramfs, unpacked, that dracut made with the module of a system on which the program is installed."""
    top = tmp_path_factory.mktemp("dracut")
    tree = whole(top).parent
    base = top / "base"
    (base / "modules.d").mkdir(parents=True)
    for place, folder in ((base, DRACUT), (base / "modules.d", DRACUT / "modules.d")):
        for path in folder.iterdir():
            if path.name != "modules.d":
                (place / path.name).symlink_to(path)
    (base / "modules.d" / MODULE.name).symlink_to(MODULE)
    (top / "conf").write_text(f"upgradeconverter_tree={tree}\n", encoding="utf-8")
    (top / "none").mkdir()
    words = [
        "--conf",
        f"{top}/conf",
        "--confdir",
        f"{top}/none",
        "--tmpdir",
        str(top),
        "--no-kernel",
        "--no-hostonly",
        "--no-compress",
    ]
    command = ["dracut", *words, "--modules", "base upgradeconverter", "--force", f"{top}/image", "0.0.0"]
    environment = {**os.environ, "dracutbasedir": str(base)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=240)
    assert "ERROR" not in done.stderr + done.stdout, done.stderr
    root = top / "root"
    root.mkdir()
    with (top / "image").open("rb") as packed:
        subprocess.run(["cpio", "-id", "--quiet"], stdin=packed, cwd=root, check=True, timeout=60)
    return root


@contextmanager
def system(image: Path, folder: Path) -> Iterator[Path]:
    """Make the moment before the switch of roots: a copy of the initramfs, and an old disk in what is to become the root."""
    root = folder / "initramfs"
    # Nothing is written to what is large, so it is there by hard links.
    shutil.copytree(image, root, symlinks=True, copy_function=os.link)
    for name in ("proc", "run", "sysroot/etc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    make_disk(root / "sysroot/persist")
    (root / "sysroot/etc/eve-release").write_text("16.12.0\n", encoding="utf-8")
    (hook,) = root.rglob("*-convert.sh")
    text = LIBRARY.replace("/HOOK", f"/{hook.relative_to(root)}")
    (root / "pivot").write_text(text, encoding="utf-8")
    yield root


def pivot(root: Path, cmdline: str, *, is_read_only: bool = False, systemd: str = "") -> tuple[int, str]:
    """Run the hook inside; returns its status, with 0 where the boot goes on, and what it said."""
    mounts = [
        'mount --bind "$1/sysroot" "$1/sysroot"',
        'mount -o remount,bind,ro "$1/sysroot"' if is_read_only else ":",
        'mount -t proc none "$1/proc"',
        'CMDLINE="$2" DRACUT_SYSTEMD="$3" exec chroot "$1" /bin/sh /pivot',
    ]
    command = ["unshare", "--mount", "sh", "-ec", "\n".join(mounts), "sh", str(root), cmdline, systemd]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def fake(root: Path, status: int) -> None:
    """Put a program into the initramfs that only notes its words, and ends with a status."""
    program = root / "usr/lib/upgradeconverter/bin/upgradeconverter"
    program.unlink()
    report = "open(f'/run/upgradeconverter/{sys.argv[1]}.json', 'w').write('{}')"
    text = f"import sys\nprint(*sys.argv[1:], file=open('/calls', 'a'))\n{report}\nsys.exit({status})\n"
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)


def calls(root: Path) -> list[str]:
    """Return how the program in the initramfs was called."""
    return (root / "calls").read_text(encoding="utf-8").splitlines() if (root / "calls").exists() else []


def test_program_in_the_initramfs_converts(image: Path, tmp_path: Path) -> None:
    """The interpreter and the program that are in there, and nothing else, convert what lies on the real root."""
    with system(image, tmp_path) as root:
        persist = root / "sysroot/persist"
        before = contents(str(persist))
        status, said = pivot(root, "rd.upgradeconverter rd.upgradeconverter.phases=pre-vault,post-vault")
        assert (status, "went on" in said) == (0, True), said
        assert any((persist / "vault/volumes").iterdir())
        stamp = (persist / ".upgradeconverter/stamp").read_text(encoding="utf-8", errors="replace")
        assert "layout 16.12.0" in stamp.splitlines()
        assert set(before) <= set(contents(str(persist)))
        reports = sorted(path.name for path in (root / "run/upgradeconverter").glob("*.json"))
        assert reports == ["post-vault.json", "pre-vault.json"]
        for name in reports:
            document = json.loads((root / "run/upgradeconverter" / name).read_text(encoding="utf-8"))
            assert document["exit_status"] == 0


def test_extensions_find_their_libraries(image: Path) -> None:
    """Each extension of the standard library that is in there can be imported in there."""
    text = (
        "import importlib, os\n"
        "folder = os.path.dirname(os.__file__) + '/lib-dynload'\n"
        "names = sorted({name.partition('.')[0] for name in os.listdir(folder)} - {'__pycache__'})\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    python = ["/usr/lib/upgradeconverter/bin/python3", "-I", "-c", text]
    done = subprocess.run(["chroot", image, *python], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert int(done.stdout) > 30


@pytest.mark.parametrize(
    ("cmdline", "places"),
    [
        ("quiet", []),
        ("rd.upgradeconverter=0", []),
        ("rd.upgradeconverter upgradeconverter=off", ["/sysroot/persist"]),
        ("rd.upgradeconverter", ["/sysroot/persist"]),
        ("rd.upgradeconverter=/data/state", []),
        ("rd.upgradeconverter=/etc", ["/sysroot/etc"]),
    ],
)
def test_only_where_it_is_asked_for(image: Path, tmp_path: Path, cmdline: str, places: list[str]) -> None:
    """The hook works on the directory that is named, on the usual one where none is, and not without the word."""
    with system(image, tmp_path) as root:
        fake(root, 0)
        status, said = pivot(root, cmdline)
        assert (status, "went on" in said) == (0, True), said
        assert [line.split(" -p ")[1] for line in calls(root)] == places
        assert all(line.startswith("pre-vault --trial --on-failure take-back ") for line in calls(root))


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("is_read_only", [False, True])
def test_boot_goes_on_unless_the_disk_is_half_made(image: Path, tmp_path: Path, status: int, *, is_read_only: bool) -> None:
    """After 0, 1, 3 and 7 the system starts, after anything else dracut gives up; a read-only root is writable meanwhile only."""
    with system(image, tmp_path) as root:
        fake(root, status)
        ended, said = pivot(root, "rd.upgradeconverter", is_read_only=is_read_only)
        assert len(calls(root)) == 1
        goes_on = status in (0, 1, 3, 7)
        assert ("went on" in said, "died" in said, ended) == (goes_on, not goes_on, 0 if goes_on else 7), said


def test_systemd_reboots_where_that_is_asked_for(image: Path, tmp_path: Path) -> None:
    """With systemd in the initramfs dracut would halt, where a boot loader can only fall back after a reboot."""
    with system(image, tmp_path) as root:
        fake(root, 4)
        status, said = pivot(root, "rd.upgradeconverter rd.emergency=reboot", systemd="1")
        assert (status, "systemctl --no-block --force reboot" in said, "died" in said) == (1, True, False), said


def test_path_has_to_be_absolute(image: Path, tmp_path: Path) -> None:
    """A word that names no directory of the root is nothing to guess at."""
    with system(image, tmp_path) as root:
        fake(root, 0)
        status, _ = pivot(root, "rd.upgradeconverter=persist")
        assert (status, calls(root)) == (7, [])


@pytest.mark.parametrize("script", sorted(MODULE.iterdir()), ids=lambda path: path.name)
def test_shellcheck_is_content(script: Path) -> None:
    """The module is for bash, which dracut needs; the hook is for any POSIX shell, which an initramfs has."""
    shell = "bash" if script.name == "module-setup.sh" else "sh"
    done = subprocess.run(["shellcheck", "-s", shell, script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0)
