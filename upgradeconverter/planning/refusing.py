"""Why nothing at all may be converted, as the error that says so. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upgradeconverter.errors import StateRefusedError
from upgradeconverter.model.outcome import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upgradeconverter.model.operation import Skip


def refused_by(causes: Sequence[Skip]) -> StateRefusedError:
    """Return the error that names all causes, by the first of them."""
    told = tuple((skip.path, skip.reason.value, skip.detail) for skip in causes)
    return StateRefusedError(told, CATALOGUE[causes[0].reason][1])
