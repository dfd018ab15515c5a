"""A file system may come back from a power cut with a renamed file under both of its names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import capture, diff
from tests.support.dying import ProcessDeathError
from tests.support.olddisk import checked, fake_vault, make_disk, unsynced
from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, params=[True, False], ids=["vault", "one domain"])
def vault(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the vault be a domain of its own, or a plain directory."""
    if not request.param:
        with unsynced():
            yield
        return
    with unsynced(), fake_vault():
        yield


def _run(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", str(top), "--target", "latest")


@pytest.mark.parametrize("words", [(), ("rollback",)], ids=["run", "rollback"])
@pytest.mark.parametrize("number", range(12))
def test_both_names(tmp_path: Path, number: int, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever rename the power cut left half done: the run is finished, or everything is back."""
    other = Path(make_disk(tmp_path / "other"))
    _run(other)
    converted = capture(str(other))
    top = Path(make_disk(tmp_path / "persist"))
    before = capture(str(top))
    real, count = PosixDisk.rename, iter(range(1 << 20))

    def half(disk: PosixDisk, source: str, target: str) -> None:
        if next(count) == number and (top / source).is_file():
            os.link(top / source, top / target)
            raise ProcessDeathError
        real(disk, source, target)

    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "rename", half)
        try:
            _run(top)
        except ProcessDeathError:
            status, document = _run(top, *words)
            assert status == 0, document["error"]
            assert document["skipped"] == []
        else:
            return
    if words:
        assert diff(before, capture(str(top))) == ""
    else:
        assert set(capture(str(top))) == set(converted)
