"""Who owns what else lies in `/persist` and is never converted, so that its room is somebody's.

Source: lf-edge/eve, as of 17.1.0: the agents that publish, write or make each of these, and `volumemgr`'s lists of directories.
"""

from __future__ import annotations

from upgradeconverter.packs.api import Slot, Zone

_OWNERS = {
    "containerd": ("containerd-system-root",),
    "domainmgr": ("vault/ovmf", "vault/active-app-instance-config", "vault/gop", "vault/qemu-trace"),
    "downloader": ("netdump",),
    "kube": ("vault/kube", "vault/manifests", "vault/kube-save-var-lib", "kubelog", "kube-save-var-lib", "etcd-storage"),
    "memory-monitor": ("memory-monitor",),
    "msrv": ("patchEnvelopesUsageCache",),
    "newlogd": ("newlog", "log", "rsyslog"),
    "nim": ("nettrace",),
    "pubsub": ("pubsub-large",),
    "scepclient": ("vault/pnac",),
    "scripts": ("agentdebug", "kcrashes", "installer", "tmp", "eve-info", "IMGA", "IMGB", "coverage"),
    "tpmmgr": ("certs",),
    "upgradeconverter": ("ingested",),
    "vaultmgr": (".fscrypt", "vault"),
    "vtpm": ("swtpm",),
    "watchdog": ("hw_watchdog_bootstatus",),
    "zedagent": ("checkpoint", "config", "patchEnvelopesCache"),
    "zedmanager": ("snapshots",),
}
# Each directory in `status` is the agent's of that name.
_AGENTS = (
    *("baseosmgr", "client", "diag", "domainmgr", "downloader", "edgeview", "executor", "monitor", "msrv", "nim", "nodeagent"),
    *("scepclient", "tpmmgr", "vaultmgr", "verifier", "volumemgr", "watcher", "wwan", "zedagent", "zedclient", "zedkube"),
    *("zedmanager", "zedrouter", "zfsmanager"),
)
_FILES = {
    "client": ("status/uuid", "status/hardwaremodel"),
    "nodeagent": ("status/restartcounter",),
    "zedagent": ("status/rebootConfig", "status/shutdownConfig", "status/lastdevcmdtimestamp"),
    "baseosmgr": ("status/current_retry_update_counter", "status/config_retry_update_counter"),
    "vaultmgr": ("status/sealingpcrs", "status/policy-pcr.json", "status/boot_vars", "status/allow-vault-clean"),
    "agentlog": ("reboot-reason", "boot-reason", "reboot-image", "reboot-stack"),
}


def _place(owner: str, path: str) -> Slot:
    zone = Zone.VAULT if path.startswith("vault") else Zone.PLAIN
    return Slot(name=f"place {path}", directory=path, owner=owner, mode=0o700, zone=zone)


OTHERS = tuple(
    _place(owner, path)
    for owner, paths in (
        *_OWNERS.items(),
        *((agent, (f"status/{agent}",)) for agent in _AGENTS),
        *_FILES.items(),
    )
    for path in paths
)
