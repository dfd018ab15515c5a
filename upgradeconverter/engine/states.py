"""Theory of operation: the states of a run, what is true on the disk in each, and every legal move as one table.

Everything that affects a move lives here; this module does no work and knows no disk. States up to PREPARED are about the run,
those from STAGING on about one transaction (wave) of it.

- IDLE: nothing is held. LOCKED: no other instance works here. RECOVERED: the journal has no open transaction.
- PLANNED: the plan is in memory. PREPARED: space and preconditions hold; still nothing was written.
- STAGING: `begin` is durable; only the engine's own folders change. Sources and targets are untouched.
- FLIPPING: `staged` is durable and so is every staged copy; targets appear one by one, each whole.
- VERIFYING: every target of the wave is there; their names are durable.
- COMMITTED: `committed` is durable; the new layout counts. A trial waits here, and its sources stay.
- CONFIRMED: `confirmed` is durable: nobody will need the sources of the trial any more.
  Sources go to the trash: at once, or once the trial is confirmed.
- RETIRED: the trash is durable. It has no record of its own: `done` follows at once, and until then `committed` is true too.
  DONE: `done` is durable; trash is garbage.
- ROLLING_BACK: `undo` is durable; steps go back in reverse order. ROLLED_BACK: `aborted` is durable, all is as it was.
- WEDGED: the disk refuses the way back too; the journal still tells where it stands.
"""

from __future__ import annotations

from enum import Enum

from upgradeconverter.journal.record import RecordKind


class State(Enum):
    """Where a run stands."""

    IDLE = "idle"
    LOCKED = "locked"
    RECOVERED = "recovered"
    PLANNED = "planned"
    PREPARED = "prepared"
    STAGING = "staging"
    FLIPPING = "flipping"
    VERIFYING = "verifying"
    COMMITTED = "committed"
    CONFIRMED = "confirmed"
    RETIRED = "retired"
    DONE = "done"
    ROLLING_BACK = "rolling back"
    ROLLED_BACK = "rolled back"
    WEDGED = "wedged"


TRANSITIONS: tuple[tuple[str, State, State], ...] = (
    ("lock", State.IDLE, State.LOCKED),
    ("recover", State.LOCKED, State.RECOVERED),
    ("plan", State.RECOVERED, State.PLANNED),
    ("prepare", State.PLANNED, State.PREPARED),
    ("begin", State.PREPARED, State.STAGING),
    ("flip", State.STAGING, State.FLIPPING),
    ("check", State.FLIPPING, State.VERIFYING),
    ("commit", State.VERIFYING, State.COMMITTED),
    ("retire", State.COMMITTED, State.RETIRED),
    ("confirm", State.COMMITTED, State.CONFIRMED),
    ("retire", State.CONFIRMED, State.RETIRED),
    ("finish", State.RETIRED, State.DONE),
    ("next_wave", State.DONE, State.PREPARED),
    ("abandon", State.STAGING, State.ROLLED_BACK),
    ("undo", State.FLIPPING, State.ROLLING_BACK),
    ("undo", State.VERIFYING, State.ROLLING_BACK),
    ("undo", State.COMMITTED, State.ROLLING_BACK),
    ("undo", State.CONFIRMED, State.ROLLING_BACK),
    ("undo", State.RETIRED, State.ROLLING_BACK),
    ("undone", State.ROLLING_BACK, State.ROLLED_BACK),
    ("wedge", State.ROLLING_BACK, State.WEDGED),
)

# A move into one of these states is journalled before it happens.
RECORD_OF_STATE: dict[State, RecordKind] = {
    State.STAGING: RecordKind.BEGIN,
    State.FLIPPING: RecordKind.STAGED,
    State.COMMITTED: RecordKind.COMMITTED,
    State.CONFIRMED: RecordKind.CONFIRMED,
    State.DONE: RecordKind.DONE,
    State.ROLLING_BACK: RecordKind.UNDO,
    State.ROLLED_BACK: RecordKind.ABORTED,
}

# Where a transaction found open in the journal goes on.
STATE_OF_RECORD: dict[RecordKind, State] = {
    RecordKind.BEGIN: State.STAGING,
    RecordKind.STAGED: State.FLIPPING,
    RecordKind.COMMITTED: State.COMMITTED,
    RecordKind.CONFIRMED: State.CONFIRMED,
    RecordKind.UNDO: State.ROLLING_BACK,
}
