#!/bin/sh
# Sees to it that the programs which the tests call are there, with Debian's packages where they are not.
#
#   install-tools.sh                the tools of the test suite
#   install-tools.sh --venv PYTHON  what PYTHON needs to make a virtual environment
#   install-tools.sh --make         make itself
#   install-tools.sh --machine      what starts a whole machine, for the long proof only
#
# Needs root or a sudo that asks for no password only when something is missing; without either it names the command.
set -eu

PATH=$PATH:/usr/sbin:/sbin

# program:package, for Debian 12 and later and the Ubuntus of that time
TEST_TOOLS='strace:strace mkfs.ext4:e2fsprogs getfattr:attr setfattr:attr getfacl:acl setfacl:acl
  losetup:mount mount:mount mkfs.xfs:xfsprogs xfs_io:xfsprogs mkfs.btrfs:btrfs-progs rsync:rsync unshare:util-linux systemd-analyze:systemd
  dash:dash busybox:busybox-static shellcheck:shellcheck dracut:dracut-core cpio:cpio man:man-db groff:groff-base
  fish:fish zsh:zsh systemd-sysusers:systemd systemd-tmpfiles:systemd
  dpkg-buildpackage:dpkg-dev dh:debhelper lintian:lintian mmdebstrap:mmdebstrap systemd-nspawn:systemd-container
  pgrep:procps setpriv:util-linux'
MACHINE_TOOLS='qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap gpgv:gpgv busybox:busybox-static cpio:cpio debugfs:e2fsprogs'

missing_packages() {  # the packages of all given program:package pairs whose program is not there, each once
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || echo "${pair#*:}"
  done | sort -u | tr '\n' ' '
}

missing_venv_package() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null || "$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
}

missing() {
  case $mode in
    --venv) missing_venv_package "$python" ;;
    --make) missing_packages make:make ;;
    --machine) # shellcheck disable=SC2086  # a list of words on purpose
      missing_packages $MACHINE_TOOLS ;;
    *) # shellcheck disable=SC2086  # a list of words on purpose
      missing_packages $TEST_TOOLS ;;
  esac
}

give_up() {
  echo "Missing: $packages" >&2
  echo "$1 Install by hand:" >&2
  echo "    sudo apt-get update && sudo apt-get install --yes --no-install-recommends $packages" >&2
  exit 1
}

mode=${1-}
python=${2-}
case $mode in
  '' | --make | --machine) ;;
  --venv) [ -n "$python" ] || { echo "usage: $0 --venv PYTHON" >&2; exit 2; } ;;
  *) echo "usage: $0 [--make | --machine | --venv PYTHON]" >&2; exit 2 ;;
esac

packages=$(missing)
[ -n "$packages" ] || exit 0

command -v apt-get >/dev/null 2>&1 || give_up "This system has no apt-get."
if [ "$(id -u)" -eq 0 ]; then
  as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
  as_root='sudo -n'
else
  give_up "Neither root nor sudo without a password."
fi

echo "Installing: $packages"
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq"
# A stale list is no reason to stop: the next command tells.
$apt update || echo "apt-get update failed; going on with the lists at hand" >&2
# shellcheck disable=SC2086  # a list of words on purpose
$apt install --yes --no-install-recommends $packages >/dev/null </dev/null || give_up "apt-get could not install them."

packages=$(missing)
[ -z "$packages" ] || give_up "Installed, and still not found."
