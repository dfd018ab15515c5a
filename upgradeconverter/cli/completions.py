"""Completions for bash, fish and zsh, made of the option table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from upgradeconverter.cli.arguments import COMMANDS
from upgradeconverter.cli.table import phase_in_words
from upgradeconverter.settings import Settings

if TYPE_CHECKING:
    from upgradeconverter.cli.table import Option, Table

_NAME = "upgradeconverter"
_FOLDERS, _FILES = ("DIR",), ("FILE", "PATH", "ID=PATH", "NAME=DIR", "NAME=PATH")


def bash(known: Table) -> str:
    """Return the completion for bash."""
    values = [f"    {'|'.join(option.names)}) {_bash_values(known, option)} ;;" for option in known.options if option.value]
    # Where readline has split `name=value`.
    pairs = {name: values for pack in known.packs.values() for name, values in pack.options.items()}
    values += [f"    {name}) _{_NAME}_of {_quoted(*chosen)} ;;" for name, chosen in pairs.items()]
    own = [f"      {pack}) options+={_quoted('', *_flags(known, pack))} ;;" for pack in known.packs]
    return _filled(_BASH, known, values="\n".join(values), own="\n".join(own), first=_quoted(*COMMANDS, *known.phases))


def _bash_values(known: Table, option: Option) -> str:
    if option.value in (*_FOLDERS, *_FILES):
        kind = "-d" if option.value in _FOLDERS else "-f"
        return f'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen {kind} -- "$cur"); return 0'
    words = known.to_choose(option)
    return f"_{_NAME}_of {_quoted(*words)}; return 0" if words else "return 0"


def fish(known: Table) -> str:
    """Return the completion for fish."""
    add, said = f"complete -c {_NAME}", f"__{_NAME}_said"
    lines = [f"{add} -n {said} -a {name} -d {_quoted(text)}" for name, text in COMMANDS.items()]
    after = " ".join(("''", *known.about_phases))
    for name, packs in known.phases.items():
        lines.append(f"{add} -n {_quoted(f'{said} {after}')} -a {name} -d {_quoted(phase_in_words(packs))}")
    lines.append(f"{add} -n {_quoted(f'{said} packs')} -a show -d 'all that there is to know of one'")
    show = f'{said} "packs show"'
    lines.append(f"{add} -n {_quoted(show)} -a {_quoted(*known.packs)}")
    for option in known.options:
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
        condition = f" -n '__{_NAME}_pack {option.pack}'" if option.pack else ""
        lines.append(f"{add}{condition} {names}{_fish_values(known, option)} -d {_quoted(option.help)}")
    return _filled(_FISH, known) + "\n".join(lines) + "\n"


def _fish_values(known: Table, option: Option) -> str:
    if not option.value:
        return ""
    if option.value in _FOLDERS:
        return " -x -a '(__fish_complete_directories)'"
    if option.value in _FILES:
        return " -r -F"
    words = known.to_choose(option)
    return f" -x -a {_quoted(*words)}" if words else " -x"


def zsh(known: Table) -> str:
    """Return the completion for zsh, for a file `_upgradeconverter` in a folder of its `fpath`."""
    own = [f"    {pack}) specs+=(\n{_zsh_options(known, pack)}\n    ) ;;" for pack in known.packs]
    rows = {**COMMANDS, **{name: phase_in_words(packs) for name, packs in known.phases.items()}}
    first = " ".join(_quoted(f"{name}:{text}") for name, text in rows.items())
    return _filled(
        _ZSH,
        known,
        common=_zsh_options(known, ""),
        own="\n".join(own),
        first=first,
        bare_phases=" ".join(known.phases),
        bare_packs=" ".join(known.packs),
    )


def _zsh_options(known: Table, pack: str) -> str:
    return "\n".join(
        f"      {_quoted(_zsh_option(known, option, name))}"
        for option in known.options
        if option.pack == pack
        for name in option.names
    )


def _zsh_option(known: Table, option: Option, name: str) -> str:
    text = re.sub(r"([]\\[:])", r"\\\1", option.help)
    if not option.value:
        return f"*{name}[{text}]"
    values = "_directories" if option.value in _FOLDERS else "_files" if option.value in _FILES else ""
    values = values or f"({' '.join(known.to_choose(option))})"
    return f"*{name}{'=' if name.startswith('--') else '+'}[{text}]:{option.value}:{values}"


def _filled(template: str, known: Table, **more: str) -> str:
    words = {
        "name": _NAME,
        "pack": Settings().pack,
        "options": _quoted(*_flags(known, "")),
        "valued": " ".join(name for option in known.options if option.value for name in option.names),
        "about": "|".join(known.about_phases),
        "phases": _quoted(*known.phases),
        "packs": _quoted(*known.packs),
        **more,
    }
    return re.sub(r"@(\w+)@", lambda found: words[found[1]], template)


def _flags(known: Table, pack: str) -> list[str]:
    return [name for option in known.options if option.pack == pack for name in option.names]


def _quoted(*words: str) -> str:
    """Return words as one word that each of the shells takes for itself."""
    return "'" + " ".join(words).replace("'", "'\"'\"'") + "'"


_BASH = """\
# bash completion for @name@; made of its option table by `python -m upgradeconverter.cli.manual bash`
_@name@_of() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_@name@() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} pack=@pack@ options i
  local -a said=()
  COMPREPLY=()
  # `=` is a word of its own here.
  if [[ $cur == "=" ]]; then
    cur=
  elif [[ $prev == "=" ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --pack) [[ ${COMP_WORDS[i+1]} != "=" ]] || ((i++)); ((i++)); pack=${COMP_WORDS[i]} ;;
      -*) if [[ " @valued@ " == *" ${COMP_WORDS[i]} "* ]]; then
            [[ ${COMP_WORDS[i+1]} != "=" ]] || ((i++))
            ((i++))
          fi ;;
      *) said+=("${COMP_WORDS[i]}") ;;
    esac
  done
  case $prev in
@values@
  esac
  [[ -z ${COMPREPLY[*]} ]] || return 0
  if [[ $cur == -* ]]; then
    options=@options@
    case $pack in
@own@
    esac
    _@name@_of "$options"
    return 0
  fi
  case ${said[*]} in
    "") _@name@_of @first@ ;;
    @about@) _@name@_of @phases@ ;;
    packs) _@name@_of show ;;
    "packs show") _@name@_of @packs@ ;;
  esac
}
complete -F _@name@ @name@
"""

_FISH = """\
# fish completion for @name@; made of its option table by `python -m upgradeconverter.cli.manual fish`
function __@name@_said
    set -l said
    set -l is_value 0
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if test $is_value = 1
            set is_value 0
        else if contains -- $word @valued@
            set is_value 1
        else if not string match -q -- '-*' $word
            set -a said $word
        end
    end
    test (count $argv) -gt 0; or set argv ''
    contains -- "$said" $argv
end
function __@name@_pack
    set -l pack @pack@
    set -l words (commandline -opc)
    for i in (seq (count $words))
        if test "$words[$i]" = --pack; and test (count $words) -gt $i
            set pack $words[(math $i + 1)]
        else if string match -q -- '--pack=*' $words[$i]
            set pack (string replace -- --pack= '' $words[$i])
        end
    end
    test "$pack" = $argv[1]
end
complete -c @name@ -f
"""

_ZSH = """\
#compdef @name@
# Made of the option table by `python -m upgradeconverter.cli.manual zsh`.
_@name@() {
  local curcontext=$curcontext state pack=@pack@ i
  local -a line specs rows
  for ((i = 2; i < CURRENT; i++)); do
    case $words[i] in
      --pack) pack=$words[i+1] ;;
      --pack=*) pack=${words[i]#--pack=} ;;
    esac
  done
  specs=(
@common@
  )
  case $pack in
@own@
  esac
  _arguments -C -s : $specs '1: :->first' '2: :->second' '3: :->third' && return 0
  case $state in
    first) rows=(@first@); _describe word rows ;;
    second)
      case $line[1] in
        @about@) compadd -- @bare_phases@ ;;
        packs) compadd -- show ;;
      esac ;;
    third) [[ "$line[1] $line[2]" != "packs show" ]] || compadd -- @bare_packs@ ;;
  esac
}
_@name@ "$@"
"""
