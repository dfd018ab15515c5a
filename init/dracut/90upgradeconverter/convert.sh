#!/bin/sh
# Converts the state on the real root before it becomes the root; dracut sources this in its pre-pivot hook, with systemd or
# without. On the kernel command line:
#
#   rd.upgradeconverter[=DIR]            convert what lies in DIR of the real root, /persist where none is named
#   rd.upgradeconverter=0                do not
#   rd.upgradeconverter.phases=A,B       phases, one after the other; pre-vault where none is named
#   upgradeconverter=off                 as everywhere: nothing is converted
#
# DIR may be a folder of the root file system, or a file system of its own that is mounted by then, as by /etc/fstab.sys or with
# the option x-initrd.mount. It is made writable for as long as the conversion takes. What the system says of itself counts: its
# release, its settings, its configuration partition. The reports lie in /run/upgradeconverter, which the system takes over.
#
# Where the disk is half made the boot does not go on: dracut's emergency, or with `rd.emergency=reboot` a reboot, after which a
# boot loader that counts its tries falls back to the system before. Refused or taken back (statuses 3 and 7) is no reason for
# that: the old layout is whole, and the system starts with it.

# shellcheck disable=SC1091  # dracut's own
type getarg >/dev/null 2>&1 || . /lib/dracut-lib.sh

_upgradeconverter_is_read_only() {  # whether the file system that holds a directory is mounted read-only
    _best='' _is_read_only=1
    while read -r _ _mount _ _options _; do
        case $1/ in
            "${_mount%/}"/*) [ "${#_mount}" -lt "${#_best}" ] || { _best=$_mount; _how=$_options; } ;;
        esac
    done </proc/self/mounts
    case ",$_how," in *,ro,*) _is_read_only=0 ;; esac
    return "$_is_read_only"
}

_upgradeconverter_show_system() {  # what the converter asks the running system for is the real root's
    for _path in /etc/upgradeconverter.toml /etc/eve-release /config /opt/zededa/etc; do
        if [ -e "$NEWROOT$_path" ] && [ ! -e "$_path" ]; then
            mkdir -p "${_path%/*}/"
            ln -s "$NEWROOT$_path" "$_path"
        fi
    done
}

_upgradeconverter_give_up() {
    warn "upgradeconverter: $*"
    if [ "$(getarg rd.emergency)" = reboot ]; then
        # With systemd `die` halts, whatever was asked for; without it, it asks a systemd that is not there.
        if [ -n "$DRACUT_SYSTEMD" ]; then systemctl --no-block --force reboot; else reboot -f; fi
        exit 1
    fi
    die "upgradeconverter: $*"
}

_upgradeconverter_convert() {
    if [ ! -d "$1" ]; then
        info "upgradeconverter: $1 is not there, so there is nothing to convert"
        return 0
    fi
    _was_read_only=''
    if _upgradeconverter_is_read_only "$1"; then
        _was_read_only=$_best
        mount -o remount,rw "$_best" || _upgradeconverter_give_up "$_best cannot be made writable"
    fi
    _upgradeconverter_show_system
    _failed=''
    _phases=$(getarg rd.upgradeconverter.phases=),
    [ "$_phases" != , ] || _phases=pre-vault,
    while [ -n "$_phases" ]; do
        _phase=${_phases%%,*} _phases=${_phases#*,}
        # In reach of its controller rather than in the initramfs: what fails is taken back, where that is possible.
        ON_FAILURE=take-back /usr/lib/upgradeconverter/bin/upgradeconverter-boot "$_phase" -p "$1" >&2 || _failed=$_phase
        [ -z "$_failed" ] || break
    done
    [ -z "$_was_read_only" ] || mount -o remount,ro "$_was_read_only" || warn "upgradeconverter: $_was_read_only stays writable"
    [ -z "$_failed" ] || _upgradeconverter_give_up "$_failed left $1 half made"
}

if _place=$(getarg rd.upgradeconverter); then
    case $_place in
        0 | no | off) ;;
        '' | 1 | yes | on) _upgradeconverter_convert "$NEWROOT/persist" ;;
        /*) _upgradeconverter_convert "$NEWROOT$_place" ;;
        *) _upgradeconverter_give_up "expected rd.upgradeconverter=DIR with an absolute DIR, found '$_place'" ;;
    esac
fi
