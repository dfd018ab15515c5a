"""What to do with a step of an open transaction: last record x who exists where, as one table. Pure.

Who exists is written as four letters in fixed order, `S` source, `G` staged, `T` target, `X` trash, a dot where nothing is. All
sixteen combinations of every shape and record are decided; what the table does not list can not have been left by this engine
and is refused.

A target that is not the inode this engine staged or moved counts as absent while it could still be someone else's (until
`committed`); it is never touched.
"""

from __future__ import annotations

from enum import StrEnum

from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.plan import Shape


class Verdict(StrEnum):
    """What the disk allows for one step.

    FORTH: go on from here (each handler finds out what is left to be done). BACK: put back, nothing is lost by it.
    ALONE: somebody deleted something of this step since; what there is of it is put back, and the other steps go on.
    REFUSE: not a state of ours.
    """

    FORTH = "forth"
    BACK = "back"
    ALONE = "alone"
    REFUSE = "refuse"


_F, _B, _A = Verdict.FORTH, Verdict.BACK, Verdict.ALONE

_TABLE: dict[Shape, dict[RecordKind, dict[str, Verdict]]] = {
    Shape.COPY: {
        # Nothing was published yet: whatever else there is, the source is what counts.
        RecordKind.BEGIN: {
            "S...": _B,
            "SG..": _B,
            "S.T.": _B,
            "SGT.": _B,
            ".G..": _B,
            # The source was deleted; what lies at the target is not from here.
            "..T.": _B,
            ".GT.": _B,
            "....": _B,
        },
        RecordKind.STAGED: {
            "SG..": _F,
            "S.T.": _F,
            "..T.": _F,
            # The name was taken by someone else, or the staged copy is gone: the source is whole, so go back.
            "SGT.": _B,
            "S...": _B,
            # The source was deleted, and with it, or before it was published, the new one.
            ".G..": _F,
            "....": _A,
        },
        RecordKind.COMMITTED: {
            "S.T.": _F,
            "..TX": _F,
            "..T.": _F,
            "S.TX": _F,
            # The target was deleted: the source or the trash is the only copy.
            "S...": _A,
            "...X": _A,
            "....": _A,
        },
        RecordKind.UNDO: {
            "S...": _B,
            "SG..": _B,
            "S.T.": _B,
            "SGT.": _B,
            "..TX": _B,
            ".G.X": _B,
            "...X": _B,
            ".G..": _B,
            # The source was deleted meanwhile: what was published is the only one, and is set aside.
            "..T.": _B,
            ".GT.": _B,
            "....": _B,
        },
    },
    Shape.STREAM: {
        RecordKind.BEGIN: {"S...": _B, "SG..": _B, "....": _B, ".G..": _B, "S.T.": _B, "SGT.": _B, "..T.": _B, ".GT.": _B},
        RecordKind.STAGED: {
            "SG..": _F,
            # Both names to one file, or an old system made it anew.
            "SG.X": _F,
            ".G.X": _F,
            "..TX": _F,
            "S.TX": _F,
            "..T.": _F,
            "S...": _B,
            # The target's name was taken by somebody else.
            "SGT.": _B,
            ".GTX": _B,
            "SGTX": _B,
            # Somebody deleted what the content came from, or where it went to.
            ".G..": _B,
            "...X": _B,
            "S..X": _B,
            "S.T.": _B,
            "....": _A,
        },
        RecordKind.COMMITTED: {
            "..TX": _F,
            "..T.": _F,
            "S.TX": _F,
            "S.T.": _F,
            # The target was deleted; what lies in the trash has no content any more.
            "...X": _F,
            "S..X": _F,
            "S...": _F,
            "....": _F,
        },
        RecordKind.UNDO: {
            "S...": _B,
            "SG..": _B,
            "SG.X": _B,
            ".G.X": _B,
            "..TX": _B,
            "S.TX": _B,
            "...X": _B,
            "S..X": _B,
            ".G..": _B,
            ".GTX": _B,
            "SGTX": _B,
            "SGT.": _B,
            "S.T.": _B,
            "..T.": _B,
            "....": _B,
        },
    },
    Shape.RENAME: {
        RecordKind.BEGIN: {"S...": _B, "S.T.": _B, "....": _B},
        RecordKind.STAGED: {"S...": _F, "..T.": _F, "S.T.": _B, "....": _A},
        RecordKind.COMMITTED: {"..T.": _F, "S.T.": _F, "S...": _A, "....": _A},
        RecordKind.UNDO: {"S...": _B, "..T.": _B, "....": _B},
    },
    Shape.CREATE: {
        RecordKind.BEGIN: {"....": _B, ".G..": _B, "..T.": _B, ".GT.": _B},
        RecordKind.STAGED: {".G..": _F, "..T.": _F, ".GT.": _B, "....": _B},
        RecordKind.COMMITTED: {"..T.": _F, "....": _F},
        RecordKind.UNDO: {"....": _B, ".G..": _B, "..T.": _B, ".GT.": _B},
    },
    Shape.RETIRE: {
        RecordKind.BEGIN: {"S...": _B, "....": _B},
        RecordKind.STAGED: {"S...": _F, "....": _A},
        RecordKind.COMMITTED: {"S...": _F, "...X": _F, "S..X": _F, "....": _A},
        RecordKind.UNDO: {"S...": _B, "...X": _B, "....": _B},
    },
    Shape.DISPLACE: {
        RecordKind.BEGIN: {"S...": _B, "....": _B},
        # Both names to one file: a power cut in the middle of a rename.
        RecordKind.STAGED: {"S...": _F, "...X": _F, "S..X": _F, "....": _F},
        RecordKind.COMMITTED: {"...X": _F, "....": _F},
        RecordKind.UNDO: {"S...": _B, "...X": _B, "S..X": _B, "....": _B},
    },
    Shape.ADJUST: {
        RecordKind.BEGIN: {"..T.": _B, "....": _B},
        RecordKind.STAGED: {"..T.": _F, "....": _F},
        RecordKind.COMMITTED: {"..T.": _F, "....": _F},
        RecordKind.UNDO: {"..T.": _B, "....": _B},
    },
}


for _rows in _TABLE.values():
    # Confirming a trial changes nothing on the disk.
    _rows[RecordKind.CONFIRMED] = _rows[RecordKind.COMMITTED]


def presence(*, source: bool, staged: bool, target: bool, trash: bool) -> str:
    """Return who exists as the four letters of the table."""
    return "".join(letter if here else "." for letter, here in (("S", source), ("G", staged), ("T", target), ("X", trash)))


def decide(shape: Shape, last: RecordKind, who: str) -> Verdict:
    """Return the verdict for one step of an open transaction."""
    return _TABLE[shape].get(last, {}).get(who, Verdict.REFUSE)


def decide_all(verdicts: tuple[Verdict, ...]) -> Verdict:
    """Return the verdict for a transaction: one refusal refuses it, one step that must go back takes all back.

    Steps that stand alone have no say.
    """
    if Verdict.REFUSE in verdicts:
        return Verdict.REFUSE
    return Verdict.BACK if Verdict.BACK in verdicts else Verdict.FORTH
