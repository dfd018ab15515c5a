"""What keeps a benchmark from being run."""

from __future__ import annotations


class BenchmarkError(Exception):
    """Something that a person has to see to before anything can be measured."""


class UnknownWordError(BenchmarkError):
    """The command line names what there is not."""

    def __init__(self, *, what: str, word: str, known: list[str]) -> None:
        super().__init__(f"there is no {what} {word!r}; there are {', '.join(known)}")


class NoRoomError(BenchmarkError):
    """The disk images do not fit where they would lie."""

    def __init__(self, *, where: str, needed: int, free: int) -> None:
        super().__init__(
            f"{where} has {free >> 20} MiB free and the case may need {needed >> 20}; name another place (TMPDIR), or set SCALE"
        )


class MissingError(BenchmarkError):
    """A program, or a right, is missing."""

    def __init__(self, what: str) -> None:
        super().__init__(f"missing: {what}")


class BrokenError(BenchmarkError):
    """What was to be measured did not do what it was measured for."""

    def __init__(self, *, what: str, found: str) -> None:
        super().__init__(f"{what} did not work: {found.strip()[-500:]}")
