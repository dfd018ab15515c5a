"""What the command line may say, as data: read off the parser itself, for what shows it to people and to their shells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from upgradeconverter.cli.arguments import _WHOLE, COMMANDS, parser
from upgradeconverter.packs import find

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from upgradeconverter.packs.api import Pack

# By what an option calls its value: what there is to choose of.
_LAYOUTS, _PACKS, _PAIRS = "LAYOUT", "NAME", "NAME=VALUE"


class Option(Struct, frozen=True, kw_only=True):
    """One option of the table.

    Attributes:
        names: as they are written, with their dashes.
        value: what its value is called, empty where it has none.
        choices: all that the value may be, empty where that is open.
        help: one sentence.
        pack: whose it is, empty for everybody's.
    """

    names: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str
    pack: str = ""


class Table(Struct, frozen=True, kw_only=True):
    """All that the command line may say: words, options, and the packs by their names."""

    packs: dict[str, Pack]
    options: tuple[Option, ...]

    @property
    def phases(self) -> dict[str, tuple[str, ...]]:
        """The packs of each phase; `all` is everybody's."""
        found: dict[str, tuple[str, ...]] = {}
        for pack in self.packs.values():
            for phase in pack.phases:
                found[phase.name] = (*found.get(phase.name, ()), pack.name)
        return {**found, "all": ()}

    @property
    def about_phases(self) -> tuple[str, ...]:
        """Commands that a phase may follow."""
        return tuple(name for name in COMMANDS if name not in _WHOLE)

    def to_choose(self, option: Option) -> tuple[str, ...]:
        """Return what is offered for the value of an option, beyond files."""
        if option.choices or option.value not in (_LAYOUTS, _PACKS, _PAIRS):
            return option.choices
        if option.value == _PACKS:
            return tuple(self.packs)
        if option.value == _PAIRS:
            return tuple(f"{name}={each}" for pack in self.packs.values() for name in pack.options for each in pack.options[name])
        return ("latest", *dict.fromkeys(label for pack in self.packs.values() for label in pack.layouts))


def table(packs: Iterable[Pack] | None = None) -> Table:
    """Return what the parser knows, with the flags of the packs that come with the program, or of those given."""
    loaded = tuple(find.load(name) for name in find.names()) if packs is None else tuple(packs)
    common = _options(parser())
    known = {name for option in common for name in option.names}
    own = [_of_pack(option, pack) for pack in loaded for option in _options(parser(pack)) if not known.intersection(option.names)]
    return Table(packs={pack.name: pack for pack in loaded}, options=(*common, *own))


def _options(made: argparse.ArgumentParser) -> list[Option]:
    actions = (action for action in made._actions if action.option_strings)  # noqa: SLF001 - argparse has no other way
    return [
        Option(
            names=tuple(action.option_strings),
            value="" if action.nargs == 0 else str(action.metavar or "WORD"),
            choices=tuple(map(str, action.choices or ())),
            # In argparse a percent sign is doubled.
            help=(action.help or "").replace("%%", "%"),
        )
        for action in actions
    ]


def _of_pack(option: Option, pack: Pack) -> Option:
    name = option.names[0].removeprefix("--")
    choices = pack.options.get(name, ()) if option.value else ()
    return Option(names=option.names, value=option.value, choices=choices, help=option.help, pack=pack.name)


def phase_in_words(packs: tuple[str, ...]) -> str:
    """Return what a phase of these packs is, of everybody where there are none."""
    return f"a phase of pack {', '.join(packs)}" if packs else "every phase whose conditions hold"
