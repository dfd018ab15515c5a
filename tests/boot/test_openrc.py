"""OpenRC itself starts the services in their order, and holds readers back where the policy says so."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.starting import CHECKOUT, INSTALLED

SERVICES = sorted((CHECKOUT / "init/openrc/init.d").iterdir())
PACKAGES = ("openrc", "librc1", "libeinfo1")
# Runs in a name space of its own, in a root that has nothing but OpenRC and busybox.
INSIDE = """
set -e
mount -t tmpfs none "$1/run"
mount -t proc proc "$1/proc"
chroot "$1" /bin/sh -c '
  for service in localmount unlock upgradeconverter.pre-vault; do rc-update -q add $service boot; done
  for service in upgradeconverter.post-vault upgradeconverter.confirm careless careful; do rc-update -q add $service default; done
  mkdir -p /run/openrc
  openrc sysinit; openrc boot; openrc default
  echo "--"
  for service in upgradeconverter.pre-vault unlock upgradeconverter.post-vault upgradeconverter.confirm careful careless; do
    if rc-service $service status >/dev/null 2>&1; then echo "$service up"; else echo "$service down"; fi
  done' >"$1/said" 2>&1 </dev/null || true
cat "$1/log" "$1/said"
"""
STUB = "#!/sbin/openrc-run\ndepend() {{\n  {depends}\n}}\nstart() {{\n  echo {name} >>/log\n  return {status}\n}}\n"


@pytest.fixture(scope="module")
def openrc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with what the packages of OpenRC hold, the libraries that it needs, and busybox."""
    top = tmp_path_factory.mktemp("openrc")
    subprocess.run(["apt-get", "-qq", "download", *PACKAGES], check=True, capture_output=True, timeout=120, cwd=top)
    for package in top.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, top / "all"], check=True, capture_output=True, timeout=60)
    root = top / "all"
    programs = [path for path in (root / "sbin").iterdir() if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    own = ":".join(str(path.parent) for path in root.rglob("lib*.so.1"))
    command = ["env", f"LD_LIBRARY_PATH={own}", "ldd", *map(str, (*programs, *(root / "lib/rc/bin").iterdir()))]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout
    for library in set(re.findall(r"(?:=> |^\s)(/\S+) \(", told, re.MULTILINE)):
        place = root / "lib64" / Path(library).name if "/ld-" in library else root / "lib" / Path(library).name
        place.parent.mkdir(exist_ok=True)
        shutil.copy(library, place)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True, timeout=60).stdout.split():
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    return root


def boot(
    openrc: Path, folder: Path, statuses: dict[str, int], conf: str = "", unlock: int = 0
) -> tuple[list[str], dict[str, str]]:
    """Boot with a converter that ends each phase with a status; return what was started in order, and what is up then."""
    layer = folder / "root"
    shutil.copytree(openrc, layer, symlinks=True)
    for name in ("proc", "run", "dev", "tmp", "sys", "persist/.upgradeconverter", "etc/runlevels/boot", "etc/runlevels/default"):
        (layer / name).mkdir(parents=True, exist_ok=True)
    (layer / "persist/.upgradeconverter/waiting").touch()
    (layer / "log").touch()
    services = layer / "etc/init.d"
    for service in SERVICES:
        shutil.copy(service, services)
    (layer / "etc/conf.d").mkdir(exist_ok=True)
    (layer / "etc/conf.d/upgradeconverter").write_text('upgradeconverter_vault="unlock"\n' + conf, encoding="utf-8")
    (layer / "etc/rc.conf").write_text('rc_sys="docker"\nrc_parallel="NO"\nrc_logger="NO"\n', encoding="utf-8")
    stubs = {
        "localmount": ("", 0),
        "unlock": ("need localmount", unlock),
        "careful": ("need converted-state", 0),
        "careless": ("after converted-state", 0),
    }
    for name, (depends, status) in stubs.items():
        (services / name).write_text(STUB.format(name=name, depends=depends or ":", status=status), encoding="utf-8")
        (services / name).chmod(0o755)
    program = layer / INSTALLED.removeprefix("/") / "bin"
    program.mkdir(parents=True)
    shutil.copy(CHECKOUT / "init/shell/upgradeconverter-boot", program)
    (program / "python3").write_text('#!/bin/sh\nshift 2\nexec "$@"\n', encoding="utf-8")
    cases = "\n".join(f"  {phase}) exit {status} ;;" for phase, status in statuses.items())
    text = f'#!/bin/sh\necho "$*" >>/log\ncase $1 in\n{cases}\nesac\nexit 0\n'
    (program / "upgradeconverter").write_text(text, encoding="utf-8")
    for name in ("python3", "upgradeconverter"):
        (program / name).chmod(0o755)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INSIDE, "sh", str(layer)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    said, _, state = done.stdout.partition("\n--\n")
    assert state, done.stdout + done.stderr
    log = [line for line in said.splitlines() if (line.split() or [""])[0] in {*stubs, "pre-vault", "post-vault", "confirm"}]
    return log, dict(line.rsplit(" ", 1) for line in state.splitlines())


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_service_is_posix_shell(service: Path) -> None:
    """A service is a script of openrc-run in which nothing means something else in another POSIX shell."""
    assert service.read_text(encoding="utf-8").startswith("#!/sbin/openrc-run\n")
    assert service.stat().st_mode & 0o111 == 0o111
    done = subprocess.run(["shellcheck", "-s", "sh", service], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0)


def test_conf_names_what_the_services_read() -> None:
    """Each variable of the file in conf.d is read by a service, and each that a service reads is there, with the same default."""
    conf = (CHECKOUT / "init/openrc/conf.d/upgradeconverter").read_text(encoding="utf-8")
    offered = dict(re.findall(r'^#(upgradeconverter_\w+)="(.*)"$', conf, re.MULTILINE))
    text = "\n".join(service.read_text(encoding="utf-8") for service in SERVICES)
    used = dict(re.findall(r"\$\{(upgradeconverter_\w+)(?::-([^}]*))?\}", text))
    assert used.pop("upgradeconverter_boot") == f"{INSTALLED}/bin/upgradeconverter-boot"
    assert offered == used


@pytest.mark.root
@pytest.mark.slow
def test_services_start_in_order(openrc: Path, tmp_path: Path) -> None:
    """Mounts, pre-vault, the vault's key, post-vault, readers, and at last confirm, each with its words."""
    log, state = boot(openrc, tmp_path, {})
    report = "--report /run/upgradeconverter -p /persist"
    assert log[:4] == [
        "localmount",
        f"pre-vault --trial --on-failure take-back {report} --deadline 1800",
        "unlock",
        f"post-vault --trial --on-failure keep {report} --deadline 1800",
    ]
    assert (sorted(log[4:6]), log[6:]) == (["careful", "careless"], [f"confirm {report}"])
    assert set(state.values()) == {"up"}


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(
    ("statuses", "conf", "unlock", "down"),
    [
        ({"pre-vault": 7}, "", 0, set()),
        ({"pre-vault": 4}, "", 0, {"pre-vault"}),
        ({"post-vault": 7}, "", 0, {"post-vault", "confirm", "careful"}),
        ({"post-vault": 7}, 'upgradeconverter_on_failure_post_vault="take-back"\n', 0, set()),
        ({}, "", 1, {"unlock", "post-vault", "confirm", "careful"}),
        ({}, 'upgradeconverter_good="unlock"\n', 0, set()),
    ],
)
def test_failure_holds_back(
    openrc: Path, tmp_path: Path, statuses: dict[str, int], conf: str, unlock: int, down: set[str]
) -> None:
    """After a failure those stay down who need what failed, as the policy has it; who only comes after it starts."""
    _, state = boot(openrc, tmp_path, statuses, conf, unlock)
    assert {name.rpartition(".")[2] for name, how in state.items() if how == "down"} == down
