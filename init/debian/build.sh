#!/bin/sh
# Builds the Debian package of a checkout.
#
#   build.sh PYTHON FOLDER
#
# PYTHON is an interpreter with `build` and `pip`, of the version that the package will ask for. FOLDER receives the package; a
# copy of the checkout lies in it while it is built, under a name that no tool of Debian's can mistake for the checkout itself.
set -eu

[ $# -eq 2 ] || { echo "usage: $0 PYTHON FOLDER" >&2; exit 2; }
checkout=$(cd "$(dirname "$0")/../.." && pwd)
python=$(command -v "$1") || { echo "$0: there is no $1" >&2; exit 1; }
case $python in /*) ;; *) python=$(pwd)/$python ;; esac
mkdir -p "$2"
folder=$(cd "$2" && pwd)
stage=$folder/stage/upgradeconverter

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$checkout/pyproject.toml")
packaged=$(dpkg-parsechangelog -l "$checkout/init/debian/changelog" -S Version)
[ "$version" = "$packaged" ] || { echo "$0: pyproject.toml says $version, init/debian/changelog $packaged" >&2; exit 1; }

rm -rf "$folder/stage"
mkdir -p "$stage"
cd "$checkout"
# Without what other tools have left in these folders.
tar --create --exclude=__pycache__ --mode=u+rw,go=rX LICENSE README.md CHANGELOG.md pyproject.toml docs upgradeconverter migrations init |
  tar --extract --directory="$stage"
mv "$stage/init/debian" "$stage/debian"

# The time of the last commit in all files, so that the same commit gives the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || true)}
[ -z "$SOURCE_DATE_EPOCH" ] || export SOURCE_DATE_EPOCH
export PYTHON="$python"
cd "$stage"
dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >"$folder/build.log" 2>&1 || {
  tail -n 40 "$folder/build.log" >&2
  exit 1
}
mv "$folder"/stage/*.deb "$folder/"
rm -rf "$folder/stage"
