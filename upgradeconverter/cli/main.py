"""From arguments to exit status: settings, pack, disk, command, report."""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from upgradeconverter import log, preflight
from upgradeconverter.cli import annexes, reporting, terminal, watching
from upgradeconverter.cli.arguments import parser, split_words
from upgradeconverter.cli.commands import ACTING, COMMANDS, Context
from upgradeconverter.disk.attributes import gives_away
from upgradeconverter.disk.dryrun import read_only
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine.places import JOURNAL
from upgradeconverter.engine.report import Report, as_text
from upgradeconverter.engine.report import as_json as as_json_text
from upgradeconverter.engine.run import outcome_of
from upgradeconverter.engine.session import Outside, Session
from upgradeconverter.engine.stopping import stopping_politely
from upgradeconverter.errors import (
    BadSettingError,
    DiskRefusedError,
    InternalError,
    PackDamagedError,
    UnknownPhaseError,
    UpgradeConverterError,
    UsageError,
)
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import EVERY_KIND
from upgradeconverter.model.layout import access
from upgradeconverter.model.outcome import Outcome
from upgradeconverter.model.plan import Trial
from upgradeconverter.packs import find
from upgradeconverter.packs.show import graph, in_words, path, table
from upgradeconverter.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upgradeconverter.packs.api import Pack


# What is said on a command line may not be said again by the next one; the file of settings is looked at by each start.
_MAY_CHANGE = ("outside", "options", "annexes")


def main(argv: list[str], *, confined: bool = False) -> int:
    """Carry out one command line; returns the exit status. Prints exactly one report on standard output.

    With `confined` the process gives up for good what it does not need of root's power.
    """
    as_json = "--output=json" in argv or ("--output", "json") in pairwise(argv)
    report = Report(command="run")
    arguments = argparse.Namespace(report=next((value for name, value in pairwise(argv) if name == "--report"), None))
    try:
        arguments = _parsed(argv)
        _carry_out(report, arguments, confined=confined)
    except UpgradeConverterError as error:
        report.fail(error, outcome_of(error))
    except OSError as error:
        # Once a wave has begun, the engine turns what the disk says into its own errors.
        failure = DiskRefusedError(str(error.filename or "the disk"), error.strerror or str(error))
        report.fail(failure, Outcome.REFUSED)
    except Exception as error:  # noqa: BLE001 - nobody ever sees a traceback
        report.fail(InternalError(f"{error!r} in {_place(error)}"), Outcome.WEDGED)
    _tell(report, arguments.report, as_json=as_json)
    return report.exit_status


def tell_failure(argv: list[str], error: UpgradeConverterError) -> int:
    """Tell of a start that another process could not bring to its end; returns the exit status."""
    report = Report(command="run")
    arguments = argparse.Namespace(report=None, output="text")
    with suppress(UpgradeConverterError):
        arguments = _parsed(argv)
        report.command, report.phase = split_words(arguments.words, deep=arguments.deep, source=arguments.source)
    report.fail(error, outcome_of(error))
    _tell(report, arguments.report, as_json=arguments.output == "json")
    return report.exit_status


def _carry_out(report: Report, arguments: argparse.Namespace, *, confined: bool) -> None:
    report.command, report.phase = split_words(arguments.words, deep=arguments.deep, source=arguments.source)
    if arguments.debug:
        log.show_details()
    settings = load(_flags(arguments), os.environ, _kernel_command_line())
    watching.told_deadline(settings.deadline)
    with stopping_politely():
        _dispatch(report, settings, deep=arguments.deep, confined=confined)
    if settings.strict:
        report.judge_strictly()


def _tell(report: Report, directory: str | None, *, as_json: bool) -> None:
    """Tell whoever started the program how it ended; the log of a boot only that, the rest is in the `directory`."""
    is_left = directory is not None and reporting.drop(report, directory)
    if directory is None or as_json:
        if as_json or not terminal.shown(report):
            _print(as_json_text(report) if as_json else (as_text(report).rstrip("\n"),))
    elif line := reporting.summary(report, directory, is_left=is_left):
        _print((line,))


def _parsed(argv: list[str]) -> argparse.Namespace:
    """Read the command line; only what no command line has for itself is looked for in the pack."""
    if not {"-h", "--help"} & set(argv):
        try:
            return parser().parse_intermixed_args(argv)
        except UsageError:
            pack = _pack_meant(argv)
            if pack is None:
                raise
            return parser(pack).parse_intermixed_args(argv)
    return parser(_pack_meant(argv)).parse_intermixed_args(argv)


def _pack_meant(argv: list[str]) -> Pack | None:
    """Return the pack that a command line is about, None where there is none."""
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    named.add_argument("--pack")
    try:
        settings = load({"pack": named.parse_known_args(argv)[0].pack}, os.environ, _kernel_command_line())
        return find.load(settings.pack, settings.pack_roots)
    except (UpgradeConverterError, argparse.ArgumentError):
        return None


def _place(error: Exception) -> str:
    """Name the function and line that an error comes from."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    return f"{where.tb_frame.f_code.co_name} line {where.tb_lineno}" if where is not None else "?"


def _print(pieces: Iterable[str]) -> None:
    """Write to standard output, whatever state that is in: nobody listening changes nothing about what was done."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout.writelines(pieces)
        print(flush=True)
    except (OSError, ValueError, AttributeError):
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _flags(arguments: argparse.Namespace) -> dict[str, object]:
    names = ("persist", "pack", "target", "dry_run", "strict", "read_back", "trial", "when_short", "outside", "options", "source")
    return {name: getattr(arguments, name) for name in (*names, "deadline", "quiet", "annexes", "on_failure", "report")}


def _kernel_command_line() -> str:
    try:
        with open("/proc/cmdline", encoding="utf-8", errors="replace") as text:
            return text.read()
    except OSError:
        return ""


def _dispatch(report: Report, settings: Settings, *, deep: bool, confined: bool) -> None:
    if report.command == "packs":
        report.outcome = Outcome.INFORMATION
        report.details |= _show(settings, report) if report.phase != "all" else {"packs": _packs(settings, report)}
        return
    if settings.switched_off and report.command == "run" and not settings.dry_run:
        report.warnings.append("switched off on the kernel command line")
        return
    pack = find.load(settings.pack, settings.pack_roots)
    if report.phase not in ("all", *(phase.name for phase in pack.phases)):
        raise UnknownPhaseError(report.phase, pack.name, tuple(phase.name for phase in pack.phases))
    with ExitStack() as opened:
        disk = opened.enter_context(closing(PosixDisk.at(settings.persist or pack.default_persist)))
        places = annexes.named(settings, pack, disk, goes_back=report.command == "rollback")
        parts, where = annexes.annexed(places, pack, disk.root_path)
        if parts:
            disk = opened.enter_context(closing(PosixDisk.at(disk.root_path, parts)))
        release, release_file = preflight.read_release(pack.release_files)
        session = Session(
            disk=disk,
            pack=pack,
            agents=_agents(settings, pack),
            asked=settings.target or "",
            release=release,
            release_file=release_file,
            config=preflight.signature(settings.file),
            trial=Trial() if settings.trial or _is_to_be_kept(places, pack) else None,
            annexes=annexes.record(places, pack),
            annexed=where,
            outside=_outside(settings, pack, opened),
            options=_options(settings, pack),
            is_lasting=all(settings.origins.get(name, settings.file).endswith(settings.file) for name in _MAY_CHANGE),
        )
        session.check_own_folder()
        report.concealer = session.concealer() if settings.report is not None else None
        report.warn(*settings.unknown, *session.unknown_agents())
        if not gives_away() and report.command == "run":
            report.warn("not started as root: owners stay as they are, and not everything can be read and kept")
        context = Context(session=session, settings=settings, report=report, root_fd=disk.root_fd, deep=deep)
        if confined:
            _confine(context)
        COMMANDS[report.command](context)


def _confine(context: Context) -> None:
    """Give up what a command, in its phases, has no use for."""
    from upgradeconverter.disk import privileges

    session, report = context.session, context.report
    if report.command not in ACTING or context.settings.dry_run:
        privileges.keep_only(privileges.LOOKING)
        return
    carries = report.command != "run" or any(phase.moves_trees for phase in session.phases(report.phase))
    # What an earlier start left open may be of any phase.
    is_open = session.disk.find(JOURNAL) is not None and Journal(session.disk, JOURNAL).read(repair=False, brief=EVERY_KIND).open
    privileges.keep_only(privileges.CARRYING if carries or is_open else privileges.MOVING)


def _is_to_be_kept(places: Iterable[str], pack: Pack) -> bool:
    return any(pack.annexes[name.partition(".")[0]].keeps for name in places)


def _outside(settings: Settings, pack: Pack, opened: ExitStack) -> dict[str, Outside]:
    """Open the directories outside of the root that a pack reads, as far as they are there."""
    for name in settings.outside:
        if name not in pack.outside:
            raise BadSettingError(f"outside.{name}", settings.origins["outside"], f"one of {', '.join(pack.outside)}", name)
    found = {}
    for name, usual in pack.outside.items():
        path = settings.outside.get(name, usual)
        disk = opened.enter_context(closing(PosixDisk.at(path))) if os.path.isdir(path) else None
        found[name] = Outside(path=path, disk=read_only(disk) if disk is not None else None)
    return found


def _options(settings: Settings, pack: Pack) -> Mapping[str, str]:
    for name, value in settings.options.items():
        if value not in pack.options.get(name, ()):
            wanted = " or ".join(pack.options.get(name, ())) or f"one of {', '.join(pack.options)}"
            raise BadSettingError(f"options.{name}", settings.origins["options"], wanted, value)
    return settings.options


def _agents(settings: Settings, pack: Pack) -> Mapping[str, tuple[int, int]]:
    """Return who owns what; for somebody else than root it is themselves, unless the settings say otherwise."""
    for slot in (slot for layout in pack.layouts.values() for slot in layout.slots):
        try:
            access(slot, settings.agents)
        except ValueError as error:
            raise BadSettingError("agents", f"file {settings.file}", str(error), "several") from error
    if gives_away():
        return settings.agents
    owners = {slot.owner for layout in pack.layouts.values() for slot in layout.slots}
    return {**dict.fromkeys(owners, (os.geteuid(), os.getegid())), **settings.agents}


def _show(settings: Settings, report: Report) -> dict[str, Any]:
    """Show one pack, or the way of a disk from one of its layouts to another."""
    pack = find.load(report.phase, settings.pack_roots)
    report.phase = "all"
    if settings.source is None:
        return {"layouts": list(pack.order.labels), "migrations": table(pack), "graph": graph(pack).split("\n")}
    source, target = (pack.order.label_of(word) for word in (settings.source, settings.target or pack.order.labels[-1]))
    report.source, report.target = source, target
    return {"path": path(pack, source, target)}


def _packs(settings: Settings, report: Report) -> list[str]:
    lines = []
    for name in find.names(settings.pack_roots):
        try:
            pack = find.load(name, settings.pack_roots)
        except PackDamagedError as error:
            report.warn(error.message)
            continue
        default = f"default {pack.default_target} where the system names no release"
        lines.append(f"{name}: {pack.summary} Layouts: {', '.join(pack.order.labels)} ({default}).")
        lines += [f"{name}: {m.id} ({m.phase}, {in_words(m.targets)}): {m.summary}" for m in pack.migrations]
    return lines
