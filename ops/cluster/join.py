"""Run inside the manager by `boot`: makes the manager of a lab, its nodes, and the files with which each node joins.

join.py NODE=ADDRESS=ROLE,ROLE ...      safe to run again: nodes that are there are left as they are
"""

import sys
from pathlib import Path

from onehost import migrations
from onehost.broker_config import apply, bootstrap
from onehost.models import settings
from onehost.models.errors import NotFound
from onehost.producer import Onehost, identity, nodes

#: Where the manager keeps what each node is to be given; the lab carries it there.
JOINING = Path("/etc/onehost/nodes")
#: What the lab's client is to know of all nodes' keys.
KNOWN_HOSTS = Path("/etc/onehost/known_hosts")


def write_joining(node: str, password: str, manager_address: str) -> None:
    """The worker's settings and its broker password, for one node."""
    folder = JOINING / node
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    (folder / "worker.toml").write_text(
        f'node = "{node}"\nbeat_seconds = 2.0\nmetrics_port = {settings.WORKER_METRICS_PORT}\n\n'
        f'[broker]\nhost = "{manager_address}"\nuser = "node-{node}"\n'
    )
    (folder / "node.password").touch(mode=0o600)
    (folder / "node.password").write_text(password)


def main() -> None:
    """Makes what is missing."""
    if not settings.MANAGER_FILE.exists():
        settings.MANAGER_FILE.parent.mkdir(parents=True, exist_ok=True)
        settings.MANAGER_FILE.touch(mode=0o600)
        settings.MANAGER_FILE.write_text(
            'store = "sqlite:////var/lib/onehost/store.db"\noffline_after_seconds = 8.0\n'
            # Tests remove and suspend a lot, and look at once at what became of it.
            "grace_seconds = 0\nheld_beyond_per_hour = 0\n"
            f"relay_metrics_port = {settings.RELAY_METRICS_PORT}\naudit_metrics_port = {settings.AUDIT_METRICS_PORT}\n"
        )
    config = settings.manager()
    migrations.upgrade(config.store)
    bootstrap.bootstrap(config, bootstrap.local_ctl)
    with Onehost(config, actor="lab", source="ops/lab") as onehost:
        identity.ensure(onehost)
        KNOWN_HOSTS.write_text("\n".join(identity.known_hosts(onehost, ("*",))) + "\n")
        for given in sys.argv[1:]:
            node, address, roles = given.split("=")
            try:
                onehost.get("node", node)
            except NotFound:
                onehost.node_add(node, address, roles.split(","))
            if not (JOINING / node / "node.password").exists():
                write_joining(node, nodes.credentials(onehost.engine, node), "10.77.0.1")
        apply.synchronise(config, nodes.hashes(onehost.engine))


main()
