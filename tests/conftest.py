"""Rules for all tests: those that need root fail, and never skip, where root is missing."""

from __future__ import annotations

import os

import pytest

from upgradeconverter.disk import lock


@pytest.fixture(autouse=True)
def _own_locks(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(lock, "_FOLDER", str(tmp_path_factory.getbasetemp()))


@pytest.fixture(autouse=True)
def _root_or_fail(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("root") is not None and os.geteuid() != 0:
        pytest.fail("this test needs root (loop devices, owners, device nodes); run it as root")
