#!/bin/sh
# How EVE starts the conversion. Three callers:
#
#   onboot.sh, once /persist is mounted and the deprecated vaults are unlocked, where it started the converter before:
#       onboot-snippet.sh pre-vault || true
#
#   the vault manager, once the vault is unlocked, before it publishes ConversionComplete:
#       onboot-snippet.sh post-vault
#
#   the base OS manager, once the partition under test has become active, which ends the time of testing:
#       onboot-snippet.sh confirm || true
#
# Both phases convert on trial: what the release before left stays as it is until the third call. A release that fails its test
# is followed by the one before, which finds all of it.
#
# Exit status: 0, the readers of the state may start; 1, they should wait.
#
# Before the vault a 1 is only for the record: the agents that talk to the controller have to come up whatever the disk
# looks like. After the vault a 1 means: do not publish ConversionComplete. Who waits for it then does not start on a half
# known disk, and a release under test falls back to the one before, to which an unconverted disk belongs.

# Like the units: with nothing to do, -I -S saves a fifth of the start, and nothing of the caller's Python gets in.
PYTHON=${PYTHON:-/usr/lib/upgradeconverter/bin/python3 -I -S}
CONVERTER=${CONVERTER:-/usr/lib/upgradeconverter/bin/upgradeconverter}
CMDLINE=${CMDLINE:-/proc/cmdline}
BUSY_TRIES=60   # another instance: wait so many times ...
BUSY_SECONDS=5  # ... so many seconds
KILLED_TRIES=2  # ended by a signal: the next start finishes or undoes what was begun

say() {
    echo "upgradeconverter $phase: $*" >&2
}

is_switched_off() {
    [ -r "$CMDLINE" ] || return 1
    case " $(tr '\n\t' '  ' <"$CMDLINE") " in
        *" upgradeconverter=off "*) return 0 ;;
        *) return 1 ;;
    esac
}

phase=${1-}
case $phase in
    pre-vault | post-vault) words="$phase --trial" ;;
    confirm) words=confirm ;;
    *) echo "usage: $0 pre-vault|post-vault|confirm" >&2; exit 1 ;;
esac

if is_switched_off; then
    say "switched off on the kernel command line"
    exit 0
fi
if [ ! -x "$CONVERTER" ]; then
    say "$CONVERTER is not there; nothing was converted"
    exit 1
fi

while :; do
    status=0
    # shellcheck disable=SC2086 # they are words
    $PYTHON "$CONVERTER" $words --output json || status=$?
    case $status in
        0) exit 0 ;;
        1) say "done; some items were left as they are, the report names them"; exit 0 ;;
        2) say "called wrongly; nothing was written"; exit 1 ;;
        3) say "refused before anything was converted"; exit 1 ;;
        4) say "failed, or out of time; what was under way was put back"; exit 1 ;;
        5)
            BUSY_TRIES=$((BUSY_TRIES - 1))
            [ "$BUSY_TRIES" -gt 0 ] || { say "another instance is still at work"; exit 1; }
            sleep "$BUSY_SECONDS"
            ;;
        6) say "stopped half way, nothing is lost; the report says what is needed"; exit 1 ;;
        *)
            KILLED_TRIES=$((KILLED_TRIES - 1))
            [ "$KILLED_TRIES" -gt 0 ] || { say "ended with unknown status $status"; exit 1; }
            say "ended with unknown status $status; once more"
            ;;
    esac
done
