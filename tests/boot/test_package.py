"""The Debian package: what is in it, what Debian says of it, and what it leaves on a system that it was purged from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.disktree import capture
from tests.support.freshroot import CHECKOUT, base, clean, install, installed, package, run_in
from tests.support.machine import CONFIRM, POST, PRE, UNLOCKED, WHOLE, machine
from tests.support.olddisk import make_disk
from tests.support.starting import INSTALLED, PACKAGES, line_of

if TYPE_CHECKING:
    from tests.support.freshroot import Root

# The first test waits until a Debian is there and the package is built.
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]
INIT = CHECKOUT / "init"
SERVICES = (PRE, POST, CONFIRM)
# What dpkg itself, and what it calls, notes of each package that was ever there.
NOTES = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/tmp/", "/var/tmp/", "/mnt/", "/run/", "/dev/", "/proc/", "/sys/")
# A user that a package has made stays, as Debian wants it: files may belong to it. Its name is all that these keep.
ACCOUNTS = tuple(f"/etc/{name}" for name in ("group", "gshadow", "passwd", "shadow", "subgid", "subuid"))
SHOW = r"find / -xdev -printf '%p %y %m %U:%G %l\n'"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with what is in the package."""
    top = tmp_path_factory.mktemp("package")
    subprocess.run(["dpkg-deb", "--extract", str(package()), str(top)], check=True, timeout=60)
    return top


def said(root: Root, scratch: Path, *command: str) -> str:
    """Return what a command says as its output on a root; it has to succeed."""
    done = run_in(root, scratch, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def field(name: str) -> str:
    """Return a field of the package's control file."""
    words = ["dpkg-deb", "--field", str(package()), name]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_lintian_is_content() -> None:
    """Debian's checker has no error and no warning that was not overridden."""
    words = ["lintian", "--allow-root", "--fail-on", "error,warning", str(package())]
    done = subprocess.run(words, env=clean(), check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_override_has_a_reason() -> None:
    """What Debian's checker is told to pass over is explained in the line above."""
    lines = (INIT / "debian/upgradeconverter.lintian-overrides").read_text(encoding="utf-8").splitlines()
    assert lines
    for number, line in enumerate(lines):
        assert line.startswith("#") or lines[number - 1].startswith("# "), line


def test_every_unit_and_example_is_in_its_place(content: Path) -> None:
    """Services and targets are where systemd looks, drop-ins and other systems' files among the examples."""
    units, examples = content / "usr/lib/systemd/system", content / "usr/share/doc/upgradeconverter/examples"
    ours = list((INIT / "systemd").iterdir())
    assert {path.name for path in units.iterdir()} == {path.name for path in ours if path.suffix != ".conf"}
    for path in (path for path in (INIT / "systemd").rglob("*") if path.is_file()):
        place = examples if path.suffix == ".conf" and path.parent == INIT / "systemd" else units
        assert (place / path.relative_to(INIT / "systemd")).read_bytes() == path.read_bytes()
    for folder in (INIT / "eve", INIT / "openrc", INIT / "sysusers.d"):
        assert {path.name for path in (examples / folder.name).iterdir()} == {path.name for path in folder.iterdir()}
    assert (content / "usr/lib/tmpfiles.d/upgradeconverter.conf").exists()
    assert (content / "usr/lib/dracut/modules.d/90upgradeconverter/module-setup.sh").exists()
    assert (content / "usr/share/man/man8/upgradeconverter.8.gz").exists()


def test_the_units_start_what_is_in_the_package(content: Path) -> None:
    """The interpreter is Debian's under the name of the units, and people get the same program."""
    python, script = line_of("pre-vault").split()[0], line_of("pre-vault").split()[3]
    assert os.path.normpath(f"{os.path.dirname(python)}/{os.readlink(f'{content}{python}')}") == f"/usr/bin/{_python()}"
    assert Path(f"{content}{script}").read_text(encoding="utf-8").splitlines()[0] == f"#!{python}"
    link = content / "usr/bin/upgradeconverter"
    assert os.path.normpath(f"/usr/bin/{link.readlink()}") == script
    assert f"python3 (>= {sys.version_info[0]}.{sys.version_info[1]}~)" in field("Depends")
    assert f"python3 (<< {sys.version_info[0]}.{sys.version_info[1] + 1}~)" in field("Depends")


def _python() -> str:
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def test_nothing_tells_where_it_was_built(content: Path) -> None:
    """No file has a path of the checkout in it, no byte code of another place, and no command of what it depends on."""
    files = [path for path in content.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    assert [path for path in files if str(CHECKOUT).encode() in path.read_bytes()] == []
    assert [path for path in files if path.suffix == ".pyc" or "wheel/upgradeconverter" in str(path)] == []
    assert sorted(path.name for path in (content / INSTALLED.lstrip("/") / "bin").iterdir()) == [
        "python3",
        "upgradeconverter",
        "upgradeconverter-boot",
    ]
    assert [path.name for path in (content / "usr/bin").iterdir()] == ["upgradeconverter"]


def test_copyright_names_all_that_is_carried_along(content: Path) -> None:
    """Each package of PyPI that is inside is named, and each licence that is named has its text."""
    text = (content / "usr/share/doc/upgradeconverter/copyright").read_text(encoding="utf-8")
    carried = {path.name.split("-")[0] for path in (content / INSTALLED.lstrip("/") / PACKAGES).glob("*.dist-info")}
    assert len(carried) > 5
    assert [name for name in sorted(carried - {"upgradeconverter"}) if f"*/site-packages/{name}" not in text] == []
    for named in re.findall(r"^License: (.+)$", text, re.MULTILINE):
        assert [each for each in named.split(" or ") if f"\nLicense: {each}\n " not in text] == []


def test_a_start_with_nothing_to_do_compiles_nothing(tmp_path: Path) -> None:
    """All byte code is there once the package is installed, and is the one that the interpreter looks for."""
    program = f"{INSTALLED}/bin/upgradeconverter"
    modules = f"{INSTALLED}/{PACKAGES}"
    sources = f"find {modules} -name '*.py' | wc -l; find {modules} -name '*.pyc' | wc -l"
    one, other = said(installed(), tmp_path, "sh", "-c", sources).split()
    assert int(one) == int(other) > 300
    # The full program, which imports far more than a start with nothing to do.
    told = said(installed(), tmp_path, "sh", "-c", f"{INSTALLED}/bin/python3 -I -S -v {program} packs 2>&1")
    loaded = re.findall(rf"^# code object from '?({modules}[^']*?)'?$", told, re.MULTILINE)
    assert len(loaded) > 50
    assert [path for path in loaded if not path.endswith(".pyc")] == []
    assert "# wrote " not in told


def test_services_are_enabled(tmp_path: Path) -> None:
    """The phases are enabled; what needs to know the device, its vault and who judges its boots, is left to people."""
    for unit, answer in ((PRE, "enabled"), (POST, "enabled"), (CONFIRM, "disabled"), (UNLOCKED, "disabled"), (WHOLE, "disabled")):
        assert run_in(installed(), tmp_path, "systemctl", "is-enabled", unit).stdout.strip() == answer


def test_removal_leaves_no_boot_broken(tmp_path: Path) -> None:
    """Once the package is removed nothing requires its units any more, also what people have enabled."""
    done = install(base(), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said(base(), tmp_path, "systemctl", "enable", WHOLE)
    assert WHOLE in said(base(), tmp_path, "ls", "/etc/systemd/system/boot-complete.target.requires")
    said(base(), tmp_path, "dpkg", "--remove", "upgradeconverter")
    assert said(base(), tmp_path, "find", "/etc/systemd/system", "-path", "*.requires/*").strip() == ""


def test_purge_leaves_nothing(tmp_path: Path) -> None:
    """After installing, using and purging it the system has the files that it had before."""
    before = said(base(), tmp_path, "sh", "-c", SHOW)
    done = install(base(), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert INSTALLED in said(base(), tmp_path, "sh", "-c", SHOW)
    said(base(), tmp_path, "upgradeconverter", "packs")
    said(base(), tmp_path, "dpkg", "--purge", "upgradeconverter")
    after = said(base(), tmp_path, "sh", "-c", SHOW)
    changed = sorted({*before.splitlines()} ^ {*after.splitlines()})
    assert [line for line in changed if not line.startswith((*NOTES, *ACCOUNTS))] == []


def test_running_system(tmp_path: Path) -> None:
    """Installed on a system that runs nothing is started; purged after a conversion it leaves the disk as it is."""
    tree = capture(make_disk(tmp_path / "old"))
    with machine(base(), tmp_path, tree) as made:
        (Path(made.data) / "package.deb").write_bytes(package().read_bytes())
        # Something chosen, so that a service that is started starts its process, too.
        chosen = {"/etc/upgradeconverter.toml": 'target = "latest"\n'}
        first = made.boot(files=chosen, then="dpkg --install /persist/package.deb")
        assert (first.status, first.state) == (0, "running"), first.said
        assert [(first.units[name].asked, first.units[name].ran) for name in SERVICES] == [(0, 0)] * 3
        assert not (Path(made.data) / ".upgradeconverter").exists()
        assert made.boot().units[PRE].ran > 0
        made.boot(then="rm /etc/upgradeconverter.toml")
        made.boot()
        with made.unlocked() as top:
            before = capture(top, engine=True)
        last = made.boot(then="dpkg --purge upgradeconverter")
        assert (last.status, last.state) == (0, "running"), last.said
        with made.unlocked() as top:
            after = capture(top, engine=True)
    assert "vault/volumes" in after
    assert _timeless(after) == _timeless(before)


def _timeless(tree: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Leave out the times of access: the conditions of units list directories."""
    return {path: {name: value for name, value in entry.items() if name != "atime"} for path, entry in tree.items()}
