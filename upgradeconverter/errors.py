"""Every failure that ends a command, each with a stable code, an exit status and a hint what to do next.

One class per cause; an error takes fields and builds its own message: what, where, expected against found. `EXIT_STATUSES`
is the one table of exit statuses; help, README and tests quote it.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_DEVIATIONS = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_ROLLED_BACK = 4
EXIT_BUSY = 5
EXIT_WEDGED = 6
EXIT_TAKEN_BACK = 7

# Of many paths an error names so many.
_NAMED = 3

EXIT_STATUSES: dict[int, str] = {
    EXIT_DONE: "done, or nothing to do (items left alone by name are not a failure)",
    EXIT_DEVIATIONS: "`verify` found deviations, `rollback` could not take all back, or --strict and something was left",
    EXIT_USAGE: "the command line or a setting is not understood",
    EXIT_REFUSED: "refused before any write, save for the recovery of an earlier start, which the report then names",
    EXIT_ROLLED_BACK: "something failed on the way, or the time was up; what was under way was put back, what was finished stays",
    EXIT_BUSY: "another instance runs",
    EXIT_WEDGED: "stopped half way, nothing is lost; the report says whether another start will do or a person must look",
    EXIT_TAKEN_BACK: "failed as with 3, 4 or 6, and --on-failure=take-back: what was done was taken back, all is as it was",
}


def _some(paths: tuple[str, ...]) -> str:
    """Return the first few of many paths as a text."""
    more = len(paths) - _NAMED
    return ", ".join(repr(path) for path in paths[:_NAMED]) + (f" and {more} more" if more > 0 else "")


class UpgradeConverterError(Exception):
    """Root of all refusals and failures; never raised itself.

    Attributes:
        code: stable name of the cause, for tools.
        exit_status: one of `EXIT_STATUSES`.
        hint: what to do next, one sentence.
    """

    code = "Error"
    exit_status = EXIT_REFUSED
    hint = "Read the message."

    def __init__(self, message: str) -> None:
        """Keep the finished sentence; subclasses build it from fields."""
        super().__init__(message)
        self.message = message


class UsageError(UpgradeConverterError):
    """The command line cannot be understood."""

    code = "Usage"
    exit_status = EXIT_USAGE
    hint = "Run `upgradeconverter --help`."


class BadSettingError(UpgradeConverterError):
    """A setting from a file, the environment or the kernel command line is not usable."""

    code = "BadSetting"
    exit_status = EXIT_USAGE
    hint = "Correct the setting at the place named and run again."

    def __init__(self, name: str, origin: str, expected: str, found: str) -> None:
        """Name the setting, where it came from, what would be right and what is there."""
        super().__init__(f"setting {name} from {origin}: expected {expected}, found {found!r}")


class UnknownPackError(UpgradeConverterError):
    """No pack of that name can be found."""

    code = "UnknownPack"
    exit_status = EXIT_USAGE
    hint = "`upgradeconverter packs` lists the packs that can be used."

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        """Name what was asked for and what there is."""
        super().__init__(f"pack {name!r} not found; known: {', '.join(known) or 'none'}")


class PackDamagedError(UpgradeConverterError):
    """A pack does not load, fails its static checks, or could be changed by someone who is not trusted."""

    code = "PackDamaged"
    hint = "Install the pack again, owned by root and writable by nobody else; if it is your own, mend what is named."

    def __init__(self, name: str, path: str, problem: str) -> None:
        """Name the pack, its place and the problem."""
        super().__init__(f"pack {name!r} at {path}: {problem}")


class UnknownLayoutError(UpgradeConverterError):
    """The target is no layout that the pack knows."""

    code = "UnknownLayout"
    exit_status = EXIT_USAGE
    hint = "`upgradeconverter packs` lists the layouts of each pack."

    def __init__(self, label: str, known: tuple[str, ...]) -> None:
        """Name what was asked for and what there is."""
        super().__init__(f"layout {label!r} is not known; known: {', '.join(known)}")


class UnknownPhaseError(UpgradeConverterError):
    """The word is neither a command nor a phase of the pack."""

    code = "UnknownPhase"
    exit_status = EXIT_USAGE
    hint = "`upgradeconverter --help` lists the commands."

    def __init__(self, word: str, pack: str, known: tuple[str, ...]) -> None:
        """Name the word, the pack and its phases."""
        super().__init__(f"expected a command or a phase of pack {pack!r} ({', '.join(known)}, all); found {word!r}")


class UnknownReleaseError(UpgradeConverterError):
    """The running system says a release that the pack cannot place."""

    code = "UnknownRelease"
    hint = "Name the layout with --target, or correct the release file named."

    def __init__(self, word: str, path: str, known: tuple[str, ...]) -> None:
        """Name the word, the file that says it, and what would be understood."""
        super().__init__(f"{path}: expected a release such as 16.12.0 or a layout of {', '.join(known)}; found {word!r}")


class OtherPackError(UpgradeConverterError):
    """The disk carries the state of another system than the one asked for."""

    code = "OtherPack"
    hint = "Name the pack that the stamp names with --pack, or the right directory with --persist."

    def __init__(self, path: str, expected: str, found: str) -> None:
        """Name the stamp, the pack asked for and the one found."""
        super().__init__(f"{path}: expected state of pack {expected!r}, found that of pack {found!r}")


class DiskRefusedError(UpgradeConverterError):
    """The disk could not be looked at, or refused the very first write; nothing was changed."""

    code = "DiskRefused"
    hint = "Run as root, on a file system that can be read and written, then run again."

    def __init__(self, path: str, problem: str) -> None:
        """Name the path and the system's words."""
        super().__init__(f"{path}: {problem}; nothing was changed")


class InterruptedRunError(UpgradeConverterError):
    """Somebody asked the run to stop; what had been begun was put back."""

    code = "Interrupted"
    exit_status = EXIT_ROLLED_BACK
    hint = "Run again; what was converted before stays converted."

    def __init__(self, signal: str) -> None:
        """Name the signal."""
        super().__init__(f"stopped by {signal}; what was under way was put back")


class PausedError(UpgradeConverterError):
    """The run had to stop while something went over piece by piece, and only a part of it lies at either place."""

    code = "Paused"
    exit_status = EXIT_WEDGED
    hint = "Run again: it goes on where it stopped, or `rollback` brings it back."

    def __init__(self, path: str, why: str) -> None:
        """Name what is half way, and why it is."""
        super().__init__(f"{path}: stopped half way: {why}; the journal knows how far it has come")


class NoTimeError(UpgradeConverterError):
    """The deadline came before everything was done; what is done stays, and nothing is half done."""

    code = "NoTime"
    exit_status = EXIT_ROLLED_BACK
    hint = "Run again, which goes on from here; a later --deadline gets more done at once."

    def __init__(self, seconds: float, left: int) -> None:
        """Name the time that was granted, and of how many items nothing is done yet."""
        super().__init__(f"expected to be done within {seconds:g} s, found {left} items left")
        self.seconds = seconds
        self.left = left


class BothDoNotFitError(UpgradeConverterError):
    """A trial keeps the old layout beside the new one, and there is no room for both."""

    code = "BothDoNotFit"
    hint = "Free space, or let what does not fit be converted at once, without a trial, with --when-short irreversible."

    def __init__(self, paths: tuple[str, ...], detail: str) -> None:
        """Name what does not fit, and where."""
        super().__init__(f"{_some(paths)}: expected room for both the old and the new one, found {detail}")


class StateRefusedError(UpgradeConverterError):
    """What lies on the disk forbids to convert any of it; code and hint are those of the first reason.

    Attributes:
        refusals: path, reason and detail of each cause.
    """

    def __init__(self, refusals: tuple[tuple[str, str, str], ...], hint: str) -> None:
        """Name the first cause, and how many others there are."""
        path, self.code, detail = refusals[0]
        self.refusals, self.hint = refusals, hint
        more = f", and {len(refusals) - 1} more" if len(refusals) > 1 else ""
        super().__init__(f"{path}: {detail}{more}; nothing was converted")


class TrialWaitsError(UpgradeConverterError):
    """A trial waits to be confirmed, and what was asked for needs it settled first."""

    code = "TrialWaits"
    hint = "`upgradeconverter confirm` makes it lasting, `upgradeconverter rollback` takes it back."

    def __init__(self, found: str, wanted: str) -> None:
        """Name the layout of the trial and the one asked for."""
        super().__init__(
            f"expected no trial, or one of layout {wanted!r}; found one of layout {found!r} that waits to be confirmed"
        )


class TrialOvertakenError(UpgradeConverterError):
    """After a fallback the old system went on with what had been converted on trial, so the new one is out of date."""

    code = "TrialOvertaken"
    hint = (
        "`upgradeconverter run --trial` converts it anew, or `upgradeconverter rollback` gives the trial up; confirm after that."
    )

    def __init__(self, paths: tuple[str, ...]) -> None:
        """Name what the old system wrote to."""
        super().__init__(f"{_some(paths)}: expected what the trial was made of, found what the old system made of it since")


class TrialLostError(UpgradeConverterError):
    """A trial waits to be confirmed, but the journal that knows what belongs to it was deleted or replaced."""

    code = "TrialLost"
    hint = (
        "Nothing was touched. `upgradeconverter run --trial` takes up what is equal in the old layout and the new one, "
        "and names the rest."
    )

    def __init__(self, mark: str, journal: str) -> None:
        """Name the file that tells of the trial, and the journal."""
        super().__init__(f"{mark} tells of a trial that waits; expected its transactions in {journal}, found none")


class UnknownNewerLayoutError(UpgradeConverterError):
    """The disk carries a layout that this engine has never heard of: a newer one has been here."""

    code = "UnknownNewerLayout"
    hint = "Use the engine that wrote the stamp, or a newer one."

    def __init__(self, label: str, known: tuple[str, ...]) -> None:
        """Name the layout found and the ones that would be understood."""
        super().__init__(f"the stamp names layout {label!r}; this engine knows {', '.join(known)}")


class NoPathError(UpgradeConverterError):
    """The target lies before the layout that the disk carries."""

    code = "NoPath"
    hint = "`upgradeconverter rollback` undoes the last run."

    def __init__(self, source: str, target: str) -> None:
        """Name both layouts."""
        super().__init__(f"the disk carries layout {source!r}; no migration leads from there back to {target!r}")


class RootMissingError(UpgradeConverterError):
    """The persist directory is not there."""

    code = "RootMissing"
    hint = "Mount the disk first, or name the directory with --persist."

    def __init__(self, path: str, found: str) -> None:
        """Name the directory and what is there instead."""
        super().__init__(f"persist directory {path}: expected a directory, found {found}")


class EngineFolderError(UpgradeConverterError):
    """Something else lies where the engine keeps its own files, such as a link that leads elsewhere."""

    code = "EngineFolder"
    hint = "Look at what is named and move it away; the engine makes anew what it needs."

    def __init__(self, path: str, expected: str, found: str) -> None:
        """Name the path, what the engine would have made there, and what is there."""
        super().__init__(f"{path}: expected a {expected}, found a {found}")


class LockHeldError(UpgradeConverterError):
    """Another instance works on the same directory."""

    code = "LockHeld"
    exit_status = EXIT_BUSY
    hint = "Wait for it to end; the lock vanishes with the process that holds it."

    def __init__(self, path: str, holder: str) -> None:
        """Name the lock file and who holds it."""
        super().__init__(f"lock {path} is held by {holder}")


class VaultMissingError(UpgradeConverterError):
    """The vault directory does not exist although the plan needs it."""

    code = "VaultMissing"
    hint = "Let the vault be created and unlocked first; the engine never creates it."

    def __init__(self, path: str) -> None:
        """Name the directory."""
        super().__init__(f"{path}: expected the vault directory, found nothing")


class VaultLockedError(UpgradeConverterError):
    """The vault is there but its key is not."""

    code = "VaultLocked"
    hint = "Unlock the vault and run again."

    def __init__(self, path: str, state: str) -> None:
        """Name the directory and the state of its key."""
        super().__init__(f"{path}: expected an unlocked vault, found {state}")


class VaultNotUsableError(UpgradeConverterError):
    """The vault exists and is not locked, but nothing can be written there."""

    code = "VaultNotUsable"
    hint = "Mount the vault read-write and run again."

    def __init__(self, path: str, found: str) -> None:
        """Name the directory and what stands in the way."""
        super().__init__(f"{path}: expected a writable directory, found {found}")


class AnnexMissingError(UpgradeConverterError):
    """What an earlier start took state from, outside of the root, is not there, or something else is."""

    code = "AnnexMissing"
    hint = "Mount it where it was, or say where it is now with the flag of that name, then run again."

    def __init__(self, name: str, place: str = "what state is taken from", found: str = "nothing") -> None:
        """Name what is missing, and what is there instead."""
        super().__init__(f"annex {name}: the run goes on only with {place} as it was, found {found}")


class JournalDamagedError(UpgradeConverterError):
    """The journal is damaged other than by a torn last record; nothing is guessed."""

    code = "JournalDamaged"
    exit_status = EXIT_WEDGED
    hint = (
        "Nothing was touched. Keep a copy of the journal and call for help; "
        "where the folders `stage` and `trash` beside it are empty or missing, in the vault too, it may be moved away."
    )

    def __init__(self, path: str, line: int, expected: str, found: str) -> None:
        """Name the file, the line, and what does not fit."""
        super().__init__(f"{path} line {line}: expected {expected}, found {found}")


class JournalTooNewError(UpgradeConverterError):
    """The journal was written by an engine with a newer format."""

    code = "JournalTooNew"
    exit_status = EXIT_WEDGED
    hint = "Finish or roll back the open run with the engine that began it."

    def __init__(self, path: str, found: int, known: int) -> None:
        """Name the file and both versions."""
        super().__init__(f"{path}: expected journal version up to {known}, found {found}")


class UnknownStateError(UpgradeConverterError):
    """An open transaction does not look like anything that this engine can have left behind."""

    code = "UnknownState"
    exit_status = EXIT_WEDGED
    hint = "Nothing was touched. Compare the paths named with the journal and call for help."

    def __init__(self, txid: str, step: int, record: str, found: str) -> None:
        """Name transaction, step, last record and who exists where."""
        super().__init__(f"transaction {txid} step {step} after {record}: unexpected combination on disk: {found}")


class StampDamagedError(UpgradeConverterError):
    """The stamp is not one that this engine wrote."""

    code = "StampDamaged"
    hint = "Remove the stamp file named; the next run then takes the disk for the oldest layout and looks at every item."

    def __init__(self, path: str, problem: str) -> None:
        """Name the file and the problem."""
        super().__init__(f"{path}: expected a stamp, found {problem}")


class NothingToRollBackError(UpgradeConverterError):
    """There is no run that could be undone."""

    code = "NothingToRollBack"
    hint = "`upgradeconverter history` lists the runs."

    def __init__(self, found: str) -> None:
        """Say what was found instead."""
        super().__init__(f"expected a run that can be undone, found {found}")


class DiskFailedError(UpgradeConverterError):
    """The disk refused an operation; what had been begun was put back."""

    code = "DiskFailed"
    exit_status = EXIT_ROLLED_BACK
    hint = "Check the file system and the space on it, then run again."

    def __init__(self, operation: str, path: str, problem: str) -> None:
        """Name the operation, the path and the system's words."""
        super().__init__(f"{operation} {path}: {problem}; what was under way was put back")


class TakenBackError(UpgradeConverterError):
    """A start failed, and what it had done was taken back; code and hint are those of the failure."""

    exit_status = EXIT_TAKEN_BACK

    def __init__(self, cause: UpgradeConverterError) -> None:
        """Say why it failed."""
        self.code, self.hint = cause.code, cause.hint
        super().__init__(f"{cause.message}; all that had been done was taken back")


class BoundaryError(DiskFailedError):
    """The disk refused a rename where there seemed to be no boundary; what had been begun was put back.

    A run that meets it plans anew with copies; only when that fails as well it ends here.
    """

    code = "Boundary"
    hint = "Look for a quota, an overlay or a security module that forbids renames between the two directories."


class WedgedError(UpgradeConverterError):
    """Neither forth nor back: what a transaction needs to end, finished or put back, the disk refuses."""

    code = "Wedged"
    exit_status = EXIT_WEDGED
    hint = "The journal is intact: run again once the disk works; recovery goes on where it stopped."

    def __init__(self, txid: str, problem: str) -> None:
        """Name the transaction and the system's words."""
        super().__init__(f"transaction {txid} could not be brought to its end: {problem}")


class HaltedError(UpgradeConverterError):
    """The disk refused something in the middle, and whether a transaction is open cannot be told or it is."""

    code = "Halted"
    exit_status = EXIT_WEDGED
    hint = "The journal is intact: run again once the disk works; recovery goes on where it stopped."

    def __init__(self, path: str, problem: str) -> None:
        """Name the path and the system's words."""
        super().__init__(f"{path}: {problem}; what was under way is finished or put back by the next start")


class DiskHangsError(UpgradeConverterError):
    """The disk does not answer any more, so the process that waits for it was left to itself."""

    code = "DiskHangs"
    exit_status = EXIT_WEDGED
    hint = "Look at the disk and at the kernel's log; what was under way is finished or put back by the next start."

    def __init__(self, seconds: int) -> None:
        """Say for how long nothing has moved."""
        super().__init__(f"expected something to move, found that for {seconds} s nothing did; the start was given up")


class KilledError(UpgradeConverterError):
    """The process that worked was killed."""

    code = "Killed"
    exit_status = EXIT_WEDGED
    hint = "Perhaps there was no memory left, see the kernel's log; what was under way is finished or put back by the next start."

    def __init__(self, signal: str) -> None:
        """Name the signal."""
        super().__init__(f"expected the process that works to come to its end, found that {signal} killed it")


class InternalError(UpgradeConverterError):
    """A mistake in this program; the journal protects what was under way."""

    code = "Internal"
    exit_status = EXIT_WEDGED
    hint = "Report the message with the journal; running again recovers whatever was under way."

    def __init__(self, problem: str) -> None:
        """Keep what went wrong."""
        super().__init__(f"expected to go on, found {problem}")
