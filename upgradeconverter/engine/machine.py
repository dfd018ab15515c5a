"""The state machine of a run, on the `transitions` package, behind typed triggers.

The one callback journals a move before it happens; when that fails the state stays. No work is done in callbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from upgradeconverter.engine.states import RECORD_OF_STATE, TRANSITIONS, State

if TYPE_CHECKING:
    from upgradeconverter.journal.record import RecordKind


class Recorder(Protocol):
    """Makes a record durable."""

    def __call__(self, kind: RecordKind, payload: dict[str, Any]) -> None:
        """Append one record."""
        ...


class IllegalMoveError(Exception):
    """A trigger was pulled in a state that does not have it: a mistake in this program, nothing on the disk."""


class RunMachine:
    """Where one run, or one transaction being recovered, stands."""

    state: State

    def __init__(self, record: Recorder, initial: State = State.IDLE) -> None:
        """Begin in a state; `record` is called for every move that `RECORD_OF_STATE` lists."""
        from transitions import Machine  # a boot with nothing to do must not pay for it

        self._record = record
        self._machine = Machine(
            model=self,
            states=State,
            initial=initial,
            transitions=[{"trigger": name, "source": source, "dest": target} for name, source, target in TRANSITIONS],
            auto_transitions=False,
            send_event=True,
            before_state_change="_journal",
        )

    def _journal(self, event: Any) -> None:
        kind = RECORD_OF_STATE.get(State[event.transition.dest])
        if kind is not None:
            self._record(kind, event.kwargs.get("payload", {}))

    def move(self, trigger: str, payload: dict[str, Any] | None = None) -> None:
        """Pull a trigger; IllegalMoveError when the table has no such move from here."""
        from transitions import MachineError

        message = f"{trigger} in state {self.state.name}"
        if not any(name == trigger for name, _, _ in TRANSITIONS):
            raise IllegalMoveError(message)
        try:
            self.trigger(trigger, payload=payload or {})  # type: ignore[attr-defined]
        except MachineError as error:
            raise IllegalMoveError(message) from error
