"""What a run says of its own pace while it works, and what it is told in return: go on, or break off.

Ties together the meter, which people see, the budget, which ends with the deadline, and the wish to stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from upgradeconverter.engine import stopping
from upgradeconverter.engine.budget import Budget
from upgradeconverter.engine.progress import Meter, load_of
from upgradeconverter.engine.work import StepRefusedError
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.model.plan import Step


class Pace(Struct, kw_only=True):
    """A meter and a budget; by itself it shows nothing and has no deadline."""

    meter: Meter = field(default_factory=Meter)
    budget: Budget = field(default_factory=Budget)

    def moved(self, size: int) -> None:
        """Take note of so many more bytes of the step at work; whatever copies calls it every few mebibytes.

        Raises:
            InterruptedRunError: somebody has asked to stop.
            StepRefusedError: the step has to be broken off, for there is no time for it.
        """
        stopping.check()
        self.meter.moved(size)
        if self.budget.moved(size):
            raise self.no_time()

    def begin_wave(self) -> None:
        """Begin with the copies of a wave."""
        self.budget.begin_wave()
        self.meter.now("copying")

    def begin_group(self, group: Iterable[Step]) -> None:
        """Begin with what flips together; StepRefusedError when there is no time for it."""
        if not self.budget.begin_group(load_of(group)):
            raise self.no_time()

    def end_group(self, group: Iterable[Step], *, is_staged: bool) -> None:
        """Be through with what flips together, or leave it alone."""
        group = tuple(group)
        if not is_staged:
            self.meter.broke_off()
            return
        # The content of a stream goes over only when it is published.
        staged = [step for step in group if step.shape is not Shape.STREAM]
        self.budget.end_group(load_of(staged))
        for step in staged:
            self.meter.ended(step)

    def end_staging(self) -> None:
        """Begin with what cannot be broken off."""
        self.budget.end_staging()
        self.meter.now("syncing")

    def end_wave(self, planned: Iterable[Step], done: Iterable[Step]) -> None:
        """Be through with a wave: what was planned of it, and what of that was done."""
        self.budget.end_wave()
        self.meter.wave_over(load_of(planned), load_of(done))

    def no_time(self) -> StepRefusedError:
        """Return the refusal of what there is no time for."""
        return StepRefusedError(Reason.NO_TIME, f"the deadline of {self.budget.seconds:g} s would have passed")
