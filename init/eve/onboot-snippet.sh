#!/bin/sh
# How EVE starts the conversion: `upgradeconverter-boot` with EVE's answers. One script with three words, for three callers.
#
# 1. pkg/pillar/scripts/onboot.sh, which linuxkit runs as an onboot container before every service. In the place of
#
#        echo "$(date -Ins -u) Starting upgradeconverter (pre-vault)"
#        "$BINDIR"/upgradeconverter pre-vault
#
#    so after `vaultmgr setupDeprecatedVaults`, after the room on /persist is seen to and `mkdir -p /persist/ingested`, and before
#    /run/global/DevicePortConfig:
#
#        onboot-snippet.sh pre-vault || true
#
#    Its answer is only for the record: the agents that talk to the controller come up whatever the disk looks like. What failed
#    is taken back, so that they find the layout of the release before as a whole, and that release finds it after a fallback.
#    A hardware watchdog may be armed while its daemon does not run yet; `upgradeconverter.deadline=` on the kernel command
#    line, or `deadline` in /etc/upgradeconverter.toml, keeps below it.
#
# 2. pkg/pillar/cmd/vaultmgr, in the goroutine that is started once the vault is unlocked and VaultStatus is published with
#    ConversionComplete false. In the place of RunPostVaultHandlers, after the trim and before the message to the channel
#    by which ConversionComplete becomes true:
#
#        onboot-snippet.sh post-vault
#
#    0: publish ConversionComplete. 1: do not. Volumes, domains, downloads and base OS then wait; zedagent, nim and nodeagent do
#    not, so the device stays in reach. A release under test falls back to the one before, to which an unconverted disk belongs.
#    Before the vault is unlocked it must not be called: a locked one hides its names. A device without TPM calls it too.
#
# 3. pkg/pillar/cmd/baseosmgr, once the partition under test has become active, which ends the time of testing:
#
#        onboot-snippet.sh confirm || true
#
# Exit status: 0, the readers of the state may start; 1, they should wait.

BOOT=${BOOT:-/usr/lib/upgradeconverter/bin/upgradeconverter-boot}

case ${1-} in
    # The controller first.
    pre-vault) ON_FAILURE=take-back ;;
    # Who waits for ConversionComplete must not meet a vault that looks empty.
    post-vault | confirm) ON_FAILURE=keep ;;
    *) echo "usage: ${0##*/} pre-vault|post-vault|confirm" >&2; exit 1 ;;
esac
if [ ! -x "$BOOT" ]; then
    echo "upgradeconverter $1: $BOOT is not there; nothing was converted" >&2
    exit 1
fi
export ON_FAILURE
exec "$BOOT" "$@"
