"""A run moves as its table says and in no other way, and a move is journalled before it happens."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from upgradeconverter.engine.machine import IllegalMoveError, RunMachine
from upgradeconverter.engine.states import RECORD_OF_STATE, STATE_OF_RECORD, TRANSITIONS, State
from upgradeconverter.journal.record import RecordKind

LEGAL = {(source, trigger): target for trigger, source, target in TRANSITIONS}
TRIGGERS = sorted({trigger for trigger, _, _ in TRANSITIONS})
ILLEGAL = [pair for pair in itertools.product(State, TRIGGERS) if pair not in LEGAL]


class Recorded:
    """Keeps what is to be recorded, and the state of the machine at that moment; fails if told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.machine: RunMachine | None = None
        self.failure = failure
        self.calls: list[tuple[RecordKind, dict[str, Any], State]] = []

    def __call__(self, kind: RecordKind, payload: dict[str, Any]) -> None:
        """Keep one record."""
        assert self.machine is not None
        self.calls.append((kind, payload, self.machine.state))
        if self.failure is not None:
            raise self.failure


def machine_in(state: State, failure: Exception | None = None) -> tuple[RunMachine, Recorded]:
    """Return a machine in a state, and its recorder."""
    recorded = Recorded(failure)
    machine = RunMachine(recorded, state)
    recorded.machine = machine
    return machine, recorded


def test_table_is_a_function() -> None:
    """No state has one trigger twice."""
    assert len(LEGAL) == len(TRANSITIONS)


def test_begins_idle() -> None:
    """A run begins with nothing held and nothing recorded."""
    recorded = Recorded()
    assert RunMachine(recorded).state is State.IDLE
    assert recorded.calls == []


@pytest.mark.parametrize(("trigger", "source", "target"), TRANSITIONS)
def test_legal_move(trigger: str, source: State, target: State) -> None:
    """Every move of the table leads where it says, and is recorded before, where the state has a record."""
    machine, recorded = machine_in(source)
    machine.move(trigger, {"a": 1})
    assert machine.state is target
    kind = RECORD_OF_STATE.get(target)
    assert recorded.calls == ([] if kind is None else [(kind, {"a": 1}, source)])


@pytest.mark.parametrize(("state", "trigger"), ILLEGAL)
def test_illegal_move(state: State, trigger: str) -> None:
    """Every other move is refused, records nothing and leaves the state."""
    machine, recorded = machine_in(state)
    with pytest.raises(IllegalMoveError, match=f"{trigger} in state {state.name}"):
        machine.move(trigger)
    assert machine.state is state
    assert recorded.calls == []


@pytest.mark.parametrize("state", State)
def test_unknown_trigger(state: State) -> None:
    """A trigger that the table does not have at all is refused like any other illegal move."""
    machine, recorded = machine_in(state)
    with pytest.raises(IllegalMoveError):
        machine.move("to_DONE")
    assert (machine.state, recorded.calls) == (state, [])


@pytest.mark.parametrize(
    ("trigger", "source"),
    [(trigger, source) for trigger, source, target in TRANSITIONS if target in RECORD_OF_STATE],
)
def test_record_fails(trigger: str, source: State) -> None:
    """When the record cannot be made durable the state stays, and the disk's own error comes through."""
    machine, recorded = machine_in(source, OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        machine.move(trigger)
    assert machine.state is source
    assert len(recorded.calls) == 1


def test_payload_is_never_none() -> None:
    """A move without a payload records an empty one."""
    machine, recorded = machine_in(State.PREPARED)
    machine.move("begin")
    assert recorded.calls == [(RecordKind.BEGIN, {}, State.PREPARED)]


@pytest.mark.parametrize(("kind", "state"), STATE_OF_RECORD.items())
def test_recovery_goes_on_where_the_record_is(kind: RecordKind, state: State) -> None:
    """A transaction found open goes on in the very state whose record is its last."""
    assert RECORD_OF_STATE[state] is kind
