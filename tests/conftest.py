"""Rules for all tests: those that need root fail, and never skip, where root is missing."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _root_or_fail(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("root") is not None and os.geteuid() != 0:
        pytest.fail("this test needs root (loop devices, owners, device nodes); run it as root")
