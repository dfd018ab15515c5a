"""Metadata torture trees: converted without a difference, and back without one, as seen by the tools that people would ask."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import vaults
from tests.support.olddisk import checked
from tests.support.torture import DECLARED, FIRST, ITEMS, SECOND, build_beside_vault, differences, observe

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.slow]


@contextmanager
def _disk(scratch: Path, kind: str, vault: str) -> Iterator[Path]:
    """Mount an empty disk whose vault is encrypted, or a file system of its own; times change only by what is done to it."""
    top = str(scratch / "persist")
    with ExitStack() as stack:
        stack.enter_context(vaults.mounted(str(scratch / "image"), top, kind=kind, size="640M"))
        os.mkdir(f"{top}/vault", 0o700)
        if vault == "fscrypt":
            vaults.encrypt(f"{top}/vault", vaults.add_key(top))
        else:
            stack.enter_context(vaults.mounted(str(scratch / "vault-image"), f"{top}/vault", kind=vault, size="640M"))
            subprocess.run(["mount", "-o", "remount,noatime", f"{top}/vault"], check=True)
        subprocess.run(["mount", "-o", "remount,noatime", top], check=True)
        yield Path(top)


def _losses(document: dict[str, Any]) -> list[str]:
    """Return what is said of the items; that a vault is not encrypted is no loss."""
    return [warning for warning in document["warnings"] if any(item in warning for item in ITEMS)]


@pytest.mark.parametrize(("kind", "vault"), [("ext4", "fscrypt"), ("xfs", "xfs"), ("btrfs", "btrfs")])
@pytest.mark.parametrize("words", [(), ("--trial",)], ids=["for good", "trial"])
def test_nothing_differs(tmp_path: Path, kind: str, vault: str, words: tuple[str, ...]) -> None:
    """Whatever a file system can hold is the same under the new names, and after the rollback under the old ones."""
    with _disk(tmp_path, kind, vault) as top:
        build_beside_vault(top, kind)
        before = observe({item: str(top / item) for item in ITEMS})
        status, document = checked("plan", "-p", str(top), "--target", "latest")
        assert (status, _losses(document)) == (0, [])
        status, document = checked(*words, "-p", str(top), "--target", "latest")
        assert (status, _losses(document), document["skipped"]) == (0, [], [])
        if words:
            assert checked("confirm", "-p", str(top), "--target", "latest")[0] == 0
        after = observe({item: str(top / target) for item, target in ITEMS.items()})
        assert differences(before, after, apart=DECLARED) == []
        assert checked("rollback", "-p", str(top))[0] == 0
        assert differences(before, observe({item: str(top / item) for item in ITEMS})) == []
        assert FIRST in {key[0] for key in before}
        assert SECOND in {key[0] for key in before}
