"""How things ended: the closed catalogue of reasons why something was left alone, and the outcomes of a run."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an item stays where it is. The value is what tools see; `CATALOGUE` has the words for people."""

    NAME_NOT_RECOGNISED = "NameNotRecognised"
    NO_OWNER_IN_CONFIG = "NoOwnerInConfig"
    NO_VOLUME_REFERENCE = "NoVolumeReference"
    AMBIGUOUS_VOLUME = "AmbiguousVolume"
    STALE_GENERATION = "StaleGeneration"
    TARGET_EXISTS = "TargetExists"
    DIGEST_MISMATCH = "DigestMismatch"
    NOT_A_REGULAR_FILE = "NotARegularFile"
    NOT_A_DIRECTORY = "NotADirectory"
    UNEXPECTED_CONTENT = "UnexpectedContent"
    FORMAT_UNKNOWN = "FormatUnknown"
    IN_USE = "InUse"
    IMMUTABLE = "Immutable"
    CHANGED_MEANWHILE = "ChangedMeanwhile"
    CHECKPOINT_MISSING = "CheckpointMissing"
    CHECKPOINT_UNREADABLE = "CheckpointUnreadable"
    VAULT_MISSING = "VaultMissing"
    VAULT_LOCKED = "VaultLocked"
    VAULT_NOT_USABLE = "VaultNotUsable"
    NO_SPACE = "NoSpace"
    UNKNOWN_NEWER_LAYOUT = "UnknownNewerLayout"
    DIVERGED = "Diverged"
    DISK_FAILED = "DiskFailed"
    REWRITTEN = "Rewritten"
    NO_READER = "NoReader"
    CHECKPOINT_UNTRUSTED = "CheckpointUntrusted"
    MEDIA_TYPE_UNKNOWN = "MediaTypeUnknown"
    NO_TIME = "NoTime"
    CONFIGURATION_UNKNOWN = "ConfigurationUnknown"
    LEADS_OUT = "LeadsOut"
    MISSING = "Missing"
    DUPLICATE_IDENTITY = "DuplicateIdentity"
    NO_STATE = "NoState"


CATALOGUE: dict[Reason, tuple[str, str]] = {
    Reason.NAME_NOT_RECOGNISED: (
        "The name follows no rule of this layout, so nobody can say what it belongs to.",
        "Look at it; remove it if it is a leftover.",
    ),
    Reason.NO_OWNER_IN_CONFIG: (
        "No application in the saved configuration has a drive or volume that it belongs to.",
        "Wait for a configuration that names it; remove it only when its application is known to be gone for good.",
    ),
    Reason.NO_VOLUME_REFERENCE: (
        "The application's drive has no volume reference, so the volume has no new name.",
        "Let the controller send a configuration with volume references, then run again.",
    ),
    Reason.AMBIGUOUS_VOLUME: (
        "More than one volume, or more than one file, fits; a guess could attach data to the wrong one.",
        "Remove or rename what is not wanted, then run again.",
    ),
    Reason.STALE_GENERATION: (
        "It belongs to an older purge generation than the one in use.",
        "Remove it once the application is known to work.",
    ),
    Reason.TARGET_EXISTS: (
        "Something else already has the name that it is to get, with other content.",
        "Decide which of the two is right and remove the other.",
    ),
    Reason.DIGEST_MISMATCH: (
        "The content does not have the digest that its name claims, so it was set aside and not published.",
        "Look at it where the detail says, and remove it; `upgradeconverter status` lists what was set aside.",
    ),
    Reason.NOT_A_REGULAR_FILE: (
        "A regular file belongs here and this is something else.",
        "Look at it; replace a link by what it points to if it is wanted.",
    ),
    Reason.NOT_A_DIRECTORY: (
        "A directory belongs here and this is something else.",
        "Look at it; replace a link by what it points to if it is wanted.",
    ),
    Reason.UNEXPECTED_CONTENT: (
        "What lies inside is not what this layout has there.",
        "Look at it; remove what does not belong there.",
    ),
    Reason.FORMAT_UNKNOWN: (
        "The format of the volume is recorded nowhere, so its new name cannot be made.",
        "Record the format in the extended attribute user.upgradeconverter.format, then run again.",
    ),
    Reason.IN_USE: (
        "Another process has it open, or something is mounted inside.",
        "Stop the user, then run again.",
    ),
    Reason.IMMUTABLE: (
        "The immutable or append-only flag forbids to move it.",
        "Clear the flag with chattr if that is wanted, then run again.",
    ),
    Reason.CHANGED_MEANWHILE: (
        "It is not what it was when it was looked at, or when it was converted.",
        "Stop whatever writes to it, then run again.",
    ),
    Reason.CHECKPOINT_MISSING: (
        "There is no saved configuration, so nobody can say what the volumes are called.",
        "Wait until the device has received its configuration, then run again.",
    ),
    Reason.CHECKPOINT_UNREADABLE: (
        "The saved configuration cannot be decoded, and neither can its backup.",
        "Wait until the device has received its configuration anew, then run again.",
    ),
    Reason.VAULT_MISSING: (
        "The vault directory does not exist.",
        "Let the vault be created and unlocked first; the engine never creates it.",
    ),
    Reason.VAULT_LOCKED: ("The vault is locked.", "Unlock the vault, then run again."),
    Reason.VAULT_NOT_USABLE: (
        "Nothing can be written in the vault.",
        "Mount the vault read-write, then run again.",
    ),
    Reason.NO_SPACE: (
        "It does not fit on the target file system beside its copy, and cannot go over piece by piece either.",
        "Free space on the file system named, then run again.",
    ),
    Reason.UNKNOWN_NEWER_LAYOUT: (
        "A newer engine has been here.",
        "Use the engine that wrote the stamp, or a newer one.",
    ),
    Reason.DIVERGED: (
        "Old and new place went different ways since the conversion.",
        "Where the detail does not say which one counts, decide and remove the other.",
    ),
    Reason.DISK_FAILED: (
        "The disk refused to read or write it.",
        "Check the file system, then run again.",
    ),
    Reason.REWRITTEN: (
        "What it says stands in another form elsewhere now; it is kept so that a rollback can bring it back.",
        "Remove it, where the detail says, once nobody will want to go back.",
    ),
    Reason.NO_READER: (
        "The running system reads it in no form any more, so it is not converted.",
        "Remove it once nobody will want to go back to an older system.",
    ),
    Reason.CHECKPOINT_UNTRUSTED: (
        "The saved configuration is not signed by the controller as the settings require, so nothing is decided by it.",
        "Let the controller send its configuration again, or relax `checkpoint.signature`.",
    ),
    Reason.MEDIA_TYPE_UNKNOWN: (
        "Nobody can say which media type it has to have in its name, and without one the running release downloads it again.",
        "Remove it to reclaim its room.",
    ),
    Reason.NO_TIME: (
        "It would not have been done before the deadline.",
        "Run again, which goes on from here; give what takes longer all by itself a later deadline.",
    ),
    Reason.CONFIGURATION_UNKNOWN: (
        "The saved configuration is of a version, has a part or is of a shape that nobody here knows, and is never guessed at.",
        "Correct what the detail names, or use an engine that knows it, then run again.",
    ),
    Reason.LEADS_OUT: (
        "What is named lies outside of the root, or needs something outside.",
        "Bring it into the root, and name it there, then run again.",
    ),
    Reason.MISSING: (
        "Something that belongs to it is not there.",
        "Put it where the detail says, or say where it is, then run again.",
    ),
    Reason.DUPLICATE_IDENTITY: (
        "Two have the same identity, and nobody could tell them apart.",
        "Give one of them another identity, then run again.",
    ),
    Reason.NO_STATE: (
        "It is no state of the system, so it is not converted.",
        "Remove it to reclaim its room, unless the detail says who needs it.",
    ),
}


# What can end without a trace on the disk: a start that meets one of these must look again the next time.
PASSING = frozenset(
    {
        Reason.IN_USE,
        Reason.CHANGED_MEANWHILE,
        Reason.VAULT_MISSING,
        Reason.VAULT_LOCKED,
        Reason.VAULT_NOT_USABLE,
        Reason.NO_SPACE,
        Reason.DISK_FAILED,
        Reason.NO_TIME,
    },
)


class Outcome(StrEnum):
    """How a command ended."""

    NOTHING_TO_DO = "nothing-to-do"
    DONE = "done"
    PLANNED = "planned"
    REFUSED = "refused"
    UNFINISHED = "unfinished"
    ROLLED_BACK = "rolled-back"
    WEDGED = "wedged"
    BUSY = "busy"
    USAGE = "usage"
    DEVIATIONS = "deviations"
    INFORMATION = "information"


class ItemStatus(StrEnum):
    """What became of one step; `waiting` is done on trial."""

    PLANNED = "planned"
    WAITING = "waiting"
    DONE = "done"
    QUARANTINED = "quarantined"
    LEFT = "left"
    UNDONE = "undone"
