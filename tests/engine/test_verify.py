"""Everything in which a disk differs from its layout is told by name, and nothing is changed by looking."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.disktree import capture, diff
from tests.support.olddisk import TARGETS, checked, make_disk, unsynced

if TYPE_CHECKING:
    from collections.abc import Callable

VERIFIED = TARGETS[2]


def _link(top: Path) -> None:
    (top / "vault/downloader").symlink_to("volumes")


def _writable(top: Path) -> None:
    (top / "vault/volumes").chmod(0o777)


def _entry_writable(top: Path) -> None:
    (top / VERIFIED).chmod(0o644)


def _altered(top: Path) -> None:
    (top / VERIFIED).write_bytes(b"altered")


def _not_a_digest(top: Path) -> None:
    (top / "vault/verifier/verified/readme").write_bytes(b"")
    (top / "vault/verifier/verified/readme").chmod(0o400)


@pytest.mark.parametrize(
    ("mess", "found"),
    [
        pytest.param(_link, ["vault/downloader: expected a directory, found a symlink"], id="no directory"),
        pytest.param(_writable, ["vault/volumes: writable by others than volumemgr (mode 0777, expected 0700)"], id="mode"),
        pytest.param(_entry_writable, [f"{VERIFIED}: expected mode 0400, found 0644"], id="mode of an entry"),
        pytest.param(_altered, [f"{VERIFIED}: expected the SHA-256 of its name, found "], id="content"),
        pytest.param(_not_a_digest, [], id="other name"),
    ],
)
def test_deviations(tmp_path: Path, mess: Callable[[Path], None], found: list[str]) -> None:
    """Each deviation is one sentence with what was expected and what is there."""
    with unsynced():
        top = make_disk(tmp_path / "persist")
        assert checked("-p", top, "--target", "latest")[0] == 0
        mess(Path(top))
        before = capture(top, engine=True)
        status, document = checked("verify", "-p", top, "--target", "latest")
        assert diff(before, capture(top, engine=True)) == ""
    sentences = document["details"]["deviations"]
    assert len(sentences) == len(found)
    assert [sentence for sentence, start in zip(sentences, found, strict=True) if not sentence.startswith(start)] == []
    assert (status, document["outcome"]) == ((1, "deviations") if found else (0, "information"))


def test_owners_are_those_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory belongs to the agent that the settings give it, and anybody else there is told."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[agents.verifier]\nuid = 4711\ngid = 4712\n", encoding="utf-8")
    with unsynced():
        top = make_disk(tmp_path / "persist")
        checked("-p", top, "--target", "latest")
        monkeypatch.setenv("UPGRADECONVERTER_CONFIG", str(settings))
        sentences = checked("verify", "-p", top, "--target", "latest")[1]["details"]["deviations"]
    own = f"{os.geteuid()}:{os.getegid()}"
    assert f"vault/verifier: expected owner 4711:4712 (verifier), found {own}" in sentences
