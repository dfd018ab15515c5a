#!/bin/bash
# dracut module: the converter in the initramfs, for state that is read before the system's own units could convert it.
#
# Copy this folder to /usr/lib/dracut/modules.d/, and say in /etc/dracut.conf.d/upgradeconverter.conf:
#
#     add_dracutmodules+=" upgradeconverter "
#     upgradeconverter_tree=/usr/lib/upgradeconverter  # where the program is installed; this is the usual place
#
# It does nothing unless `rd.upgradeconverter` is on the kernel command line, see convert.sh.

# shellcheck disable=SC2154  # initdir and moddir are dracut's
_tree() {
    echo "${dracutsysrootdir-}${upgradeconverter_tree:-/usr/lib/upgradeconverter}"
}

check() {
    [[ -x $(_tree)/bin/python3 && -e $(_tree)/bin/upgradeconverter && -x $(_tree)/bin/upgradeconverter-boot ]] || return 1
    # Only where somebody asks for it.
    return 255
}

depends() {
    echo base
}

install() {
    local tree place=/usr/lib/upgradeconverter python library unused
    tree=$(_tree)
    python=$(readlink -f "$tree/bin/python3")
    library=$("$tree/bin/python3" -I -S -c 'import os; print(os.path.dirname(os.__file__))') || return 1

    # The environment with all that was installed in it but what only installs; links to other places become what they lead to.
    mkdir -p "$initdir$place/bin"
    cp "$tree/bin/upgradeconverter" "$tree/bin/upgradeconverter-boot" "$initdir$place/bin/"
    chmod 755 "$initdir$place/bin/"*
    ln -s "$python" "$initdir$place/bin/python3"
    cp "$tree/pyvenv.cfg" "$initdir$place/"
    _copy "$tree" "$initdir$place" lib --dereference --exclude='site-packages/pip' --exclude='site-packages/pip-*' \
        --exclude='site-packages/setuptools*' --exclude='site-packages/upgradeconverter/init'

    # The standard library, without what no program at boot has a use for.
    unused=(test tests idlelib tkinter turtledemo turtle.py lib2to3 ensurepip pydoc_data distutils site-packages dist-packages
        'config-*' '__pycache__/turtle.*' '*.a' '_test*.so' '_tkinter*.so' '*.opt-?.pyc')
    mkdir -p "$initdir$library"
    _copy "$library" "$initdir$library" . "${unused[@]/#/--exclude=}"
    # Some modules are programs for interpreters that nobody has here.
    find "$initdir$library" -name '*.py' -exec chmod a-x {} +

    # Interpreter, extensions and whatever they are linked with.
    inst "$python"
    _libraries "$python" "$initdir$place" "$initdir$library" | sort -u | while read -r library; do inst "$library"; done

    inst_multiple env mkdir rm sleep mount ln
    inst_multiple -o reboot
    inst_hook pre-pivot 90 "$moddir/convert.sh"
}

_copy() {  # from where, to where, what, and more words for tar
    local from=$1 to=$2 what=$3
    shift 3
    tar -C "$from" -cf - "$@" "$what" | tar -C "$to" -xf -
}

_libraries() {
    local interpreter=$1
    shift
    { echo "$interpreter"; find "$@" -name '*.so*' -type f; } | while read -r file; do
        ldd "$file" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p'
    done | grep -v "^$initdir"
}
