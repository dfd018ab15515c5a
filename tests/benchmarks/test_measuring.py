"""Small runs of the benchmarks themselves: what was lost is noticed, what was refused is told, and nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import idle, installed, moving, planning, report
from benchmarks.__main__ import CASES, chosen, main
from benchmarks.__main__ import run as measure_all
from benchmarks.cases import MIB, MOVING
from benchmarks.devices import Device
from benchmarks.errors import BrokenError, NoRoomError
from benchmarks.figures import Found, Result, Sample, Wanted
from benchmarks.grounds import GROUNDS
from benchmarks.running import run
from benchmarks.ways import OURS, PROGRAM, WAYS, Way

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.__main__ import Job
    from benchmarks.cases import Case
    from benchmarks.ways import Commands, Work

BY_NAME = {case.name: case for case in MOVING}
TINY = Wanted(scale=0.0005, rounds=1, count=False)
REPOSITORY = Path(__file__).resolve().parents[2]


def by_name(result: Result) -> dict[str, Found]:
    """Return what was found of each way."""
    return {found.name: found for found in result.found}


@pytest.mark.root
@pytest.mark.parametrize("case", [case for case in MOVING if case.free is None], ids=lambda case: case.name)
def test_all_ways_do_the_work(case: Case, tmp_path: Path) -> None:
    """In every case ours and all others do what they claim, into a real vault, and leave nothing mounted."""
    result = moving.measure(case, GROUNDS["vault"], TINY, tmp_path)
    assert {name: found.problem() for name, found in by_name(result).items()} == dict.fromkeys(WAYS, "")
    assert all(found.ratio for found in result.found)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.root
@pytest.mark.parametrize("ground", ["plain", "xfs", "btrfs"])
def test_all_grounds(ground: str, tmp_path: Path) -> None:
    """The same on file systems without a key, with system calls counted."""
    wanted = Wanted(scale=0.01, rounds=2)
    result = moving.measure(BY_NAME["volumes"], GROUNDS[ground], wanted, tmp_path, [WAYS[OURS], WAYS["mv"]])
    for found in result.found:
        assert found.problem() == ""
        assert len(found.samples) == 2
        assert (found.calls_per_file or 0) > (found.calls or {}).get("renameat2", 0) > 0
        assert (found.most("allocated") or 0) >= 2 * MIB
    spent = by_name(result)[OURS].phases or {}
    assert by_name(result)["mv"].phases is None
    assert all(spent[part] > 0 for part in ("planning", "copying", "syncing", "publishing", "deleting", "noting", "the rest"))
    assert spent["going over"] == 0


def _losing(work: Work) -> Commands:
    lost = f"{work.into}/{Path(work.sources[-1]).name}"
    return [["cp", "-a", *work.sources, work.into], ["rm", "-r", *work.sources], ["rm", lost]]


def _keeping(work: Work) -> Commands:
    return [["cp", "-a", *work.sources, work.into]]


def _dressing(work: Work) -> Commands:
    return [["cp", "-r", *work.sources, work.into], ["rm", "-r", *work.sources]]


def _failing(work: Work) -> Commands:
    return [["cp", "-a", f"{work.root}/nothing", work.into]]


@pytest.mark.root
@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        pytest.param(_losing, r"not equal: vault/volumes/\w+.* is missing", id="loses a file"),
        pytest.param(_keeping, r"not equal: img/\w+.* is still there.* and 1 more", id="keeps the sources"),
        pytest.param(_dressing, r"not equal: vault/volumes/\w+.*: it: mtime_ns is", id="loses the times"),
        pytest.param(_failing, r"failed \(cp: .*nothing.*\)", id="fails"),
    ],
)
def test_bad_rival_is_noticed(commands: Callable[[Work], Commands], expected: str, tmp_path: Path) -> None:
    """A rival whose result is not equal, or that does not do the work, has no time and is compared with nothing."""
    rival = Way(name="rival", commands=commands)
    result = by_name(
        moving.measure(
            BY_NAME["volumes"], GROUNDS["plain"], Wanted(scale=0.02, rounds=2, count=False), tmp_path, [WAYS[OURS], rival]
        )
    )
    assert re.match(expected, result["rival"].problem())
    assert (result["rival"].seconds(), result["rival"].ratio) == ({}, None)
    assert len(result["rival"].samples) == 1
    assert len(result[OURS].seconds()) == 2


@pytest.mark.root
def test_little_room(tmp_path: Path) -> None:
    """With next to no room ours does the work, and the others, which have room, are measured as well."""
    wanted = Wanted(scale=0.02, rounds=1, count=True)
    result = by_name(moving.measure(BY_NAME["low-space"], GROUNDS["vault"], wanted, tmp_path, [WAYS[OURS], WAYS["cp"]]))
    assert result[OURS].problem() == ""
    assert (result[OURS].phases or {})["going over"] > 0
    assert result["cp"].seconds()


@pytest.mark.root
def test_idle(tmp_path: Path) -> None:
    """A start with nothing to do is compared with the bare interpreter, as command and as each unit starts it."""
    result = idle.measure(Wanted(rounds=2), tmp_path, lambda _: Path(sys.executable).parent)
    found = by_name(result)
    assert found["bare interpreter"].ratio == 1.0
    assert len(found["unit post-vault"].seconds()) == 2
    assert found["unit confirm"].about == "no process: a condition of the unit decides"
    assert str(tmp_path) not in json.dumps(report.document_of(result))


@pytest.mark.root
def test_idle_is_really_idle(tmp_path: Path) -> None:
    """What finds something to do is not measured as if there were nothing."""
    root = idle.converted(tmp_path)
    compared = idle.starts(Path(sys.executable).parent, root, root)
    start = compared["installed command"]
    assert start is not None
    device = Device(root)
    for _ in range(2):
        device.volume(MIB, [(0, 1)])
    device.finish()
    with pytest.raises(BrokenError, match="installed command"):
        idle._check("installed command", start, tmp_path)


@pytest.mark.root
def test_planning(tmp_path: Path) -> None:
    """Dry runs plan all volumes, and the first number is what the others are compared with."""
    result = planning.measure(GROUNDS["plain"], Wanted(scale=0.002, rounds=1), tmp_path)
    assert [found.name for found in result.found] == ["0 volumes", "2 volumes", "20 volumes", "200 volumes"]
    assert result.found[0].ratio is None
    assert result.found[1].calls_per_file


def test_no_room(tmp_path: Path) -> None:
    """What does not fit is refused before anything is made, with what it needs and what to do."""
    with pytest.raises(NoRoomError, match=r"MiB free.*TMPDIR.*SCALE"):
        moving.check_room(tmp_path, 1 << 60)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["--case", "no-such"], "no case 'no-such'; there are idle, raw-full", id="case"),
        pytest.param(["--on", "ntfs"], "no ground 'ntfs'; there are vault, plain, xfs, btrfs", id="ground"),
        pytest.param(["--against", "cp,dd"], "no way 'dd'", id="way"),
        pytest.param(["--case", ","], "no case ''", id="none"),
    ],
)
def test_unknown_words(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What there is not is refused with what there is, before anything is made."""
    assert main(words) == 2
    assert expected in capsys.readouterr().err


def test_nothing_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    """A case that there is not on a ground is not passed over in silence."""
    with pytest.raises(SystemExit):
        main(["--case", "low-space", "--on", "plain"])
    assert "low-space is not measured on plain" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--rounds", "0"], ["--scale", "0"], ["--scale", "2"], ["--scale", "x"], ["--scale", "0.5", "--write"]]
)
def test_senseless_numbers(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A number of rounds or a scale that makes no sense, also as evidence, is a usage error."""
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "usage:" in capsys.readouterr().err


def _job(case: str, problem: str = "", way: str = OURS) -> Job:
    found = Found(name=way, samples={0: Sample(seconds=1.0, problem=problem)})
    result = Result(case=case, about="a", ground="g", ratio="r", cache="c", scale=1.0, files=1, size=1, found=[found])
    return lambda **_: result


def _no_room(*, scratch: Path) -> Result:
    raise NoRoomError(where=scratch.name, needed=9 * MIB, free=MIB)


@pytest.mark.parametrize(
    ("todo", "status", "written"),
    [
        pytest.param([_job("a"), _job("b")], 0, ["a", "b"], id="all well"),
        pytest.param([_job("a", "refused (NoSpace: none)")], 2, ["a"], id="ours refused"),
        pytest.param([_job("a", "failed (no such option)", "rsync")], 0, ["a"], id="a rival failed"),
        pytest.param([_job("a", f"{moving.NOT_EQUAL}it is missing"), _job("b")], 1, ["a", "b"], id="not equal"),
        pytest.param([_no_room, _job("b")], 2, ["b"], id="one cannot be measured"),
    ],
)
def test_whole_run(todo: list[Job], status: int, written: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results are told and written one by one; unequal ones make the status 1, and what cannot be measured stops no other."""
    evidence = tmp_path / "evidence.json"
    assert measure_all(todo, evidence) == status
    assert [each["case"] for each in json.loads(evidence.read_text())["results"]] == written
    assert evidence.with_suffix(".svg").read_text().startswith("<svg")
    said = capsys.readouterr()
    assert all(f"{case} on g: a" in said.out for case in written)
    assert bool(said.err) == (_no_room in todo)


def test_choice_keeps_our_order() -> None:
    """Cases are run in the order in which they are listed, each once."""
    assert chosen("planning, idle,idle", CASES, "case") == ["idle", "planning"]


def test_time_and_output_of_commands(tmp_path: Path) -> None:
    """Commands are run up to the first that fails, and what that said is kept."""
    ended = run([["true"], ["sh", "-c", "echo out; echo no >&2; exit 3"], ["touch", str(tmp_path / "never")]], tmp_path)
    assert (ended.status, ended.output, ended.errors) == (3, "out\n", "no\n")
    assert ended.largest > MIB
    assert not (tmp_path / "never").exists()


def test_memory_is_that_of_all_processes(tmp_path: Path) -> None:
    """Two processes that hold 40 MiB each have 80 together, and the largest has half of that."""
    hold = "x = b'x' * (40 << 20); import time; time.sleep(3)"
    both = f'{sys.executable} -ISc "{hold}" & {sys.executable} -ISc "{hold}"; wait'
    ended = run([["sh", "-c", both]], tmp_path)
    assert ended.largest < 70 * MIB
    assert (ended.together or 0) > 80 * MIB


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_behind(number: int, tmp_path: Path) -> None:
    """Ended in the middle, also by force, it leaves no mount, no loop device, and no process that keeps one."""
    words = [sys.executable, "-m", "benchmarks", "--case", "volumes", "--on", "vault", "--scale", "0.05", "--no-count"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL) as process:
        _wait_for(lambda: any(tmp_path.glob("*/template")) and str(tmp_path) in _mounts(process.pid))
        process.send_signal(number)
    _wait_for(lambda: str(tmp_path) not in subprocess.check_output(["losetup", "-a"], text=True))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    if number == signal.SIGTERM:
        assert not list(tmp_path.iterdir())


def _mounts(pid: int) -> str:
    return Path(f"/proc/{pid}/mounts").read_text()


def _wait_for(happened: Callable[[], bool]) -> None:
    for _ in range(600):
        if happened():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen within half a minute")


@pytest.mark.root
def test_program_as_on_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured has all that it needs, and nothing else of what developers have."""
    commands = installed.whole(tmp_path)
    assert "msgspec" in installed.needed("upgradeconverter")
    assert "pytest" not in installed.needed("upgradeconverter")
    assert subprocess.run([commands / "python3", "-c", "import pytest"], check=False, capture_output=True).returncode
    monkeypatch.setenv(PROGRAM, str(commands / "upgradeconverter"))
    result = moving.measure(BY_NAME["volumes"], GROUNDS["plain"], TINY, tmp_path, [WAYS[OURS]])
    assert by_name(result)[OURS].problem() == ""
