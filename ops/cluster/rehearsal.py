"""`ops/demo` where namespaces are forbidden: real store, broker and workers, but each node's machine is a folder.

    rehearsal.py run | down

Rehearsed only: no daemon is started or asked, no user can log in, nothing listens.
Real: the wish, the job, the bus, the ledgers, the files each node would have, the acknowledgements, the audit store.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".lab" / "rehearsal"
BIN = CHECKOUT / ".venv" / "bin"
PORT, MANAGEMENT, DISTRIBUTION, EPMD = 25672, 25673, 25674, 25675
NODES = ("node1", "node2", "node3")
READY_SECONDS = 60.0


def run() -> int:
    """Starts everything below FOLDER, makes what the examples say, shows what each node would have."""
    print("This machine forbids namespaces (ops/lab check says why), so this is a rehearsal.", flush=True)
    print(__doc__.split("\n\n")[2], flush=True)
    down()
    FOLDER.mkdir(parents=True)
    environment = os.environ | {"ONEHOST_CONFIG": str(FOLDER / "onehost.toml")}
    _broker()
    _settings()
    subprocess.run([BIN / "python", __file__, "prepare"], env=environment, check=True)
    for process in ("relay", "audit"):
        _start(process, [BIN / "python", "-m", "onehost.producer", process], environment)
    for node in NODES:
        own = environment | {"ONEHOST_WORKER_CONFIG": str(FOLDER / node / "worker.toml")}
        _start(node, [BIN / "python", "-m", "onehost.workers"], own)
    files = [str(CHECKOUT / "examples" / name) for name in ("accounts.yaml", "sites.yaml")]
    applying = [["apply", "--wait", "-f", file] for file in files]
    for words in (*applying, ["account", "list"], ["job", "list"], ["node", "list"]):
        print(f"\n$ onehost {' '.join(words)}", flush=True)
        subprocess.run([BIN / "onehost", *words], env=environment, check=False)
    applied = sum(bool(list((FOLDER / node / "machine/etc/onehost/apache").rglob("*.conf"))) for node in NODES)
    time.sleep(2)  # the sealer works once a second
    chain = subprocess.run([BIN / "onehost", "audit", "verify"], env=environment, check=False).returncode == 0
    print("\nThe files each node would have are below .lab/rehearsal/NODE/machine. ops/demo --down removes it all.")
    print(f"demo: {applied}/{len(NODES)} nodes rehearsed, nothing served, audit chain {'ok' if chain else 'broken'}")
    return 0 if chain and applied == len(NODES) else 1


def prepare() -> None:
    """In the project's own environment: store, broker topology, nodes and their settings."""
    from onehost import migrations
    from onehost.broker_config import apply, bootstrap
    from onehost.models import settings
    from onehost.producer import Onehost, nodes

    config = settings.manager()
    migrations.upgrade(config.store)
    bootstrap.bootstrap(config, bootstrap.local_ctl)
    with Onehost(config, actor="demo") as onehost:
        for number, node in enumerate(NODES, 11):
            roles = ["web", "ssh", "ftp", "storage"] if node == "node1" else ["web", "ssh", "ftp"]
            onehost.node_add(node, f"10.77.0.{number}", roles)
            folder = FOLDER / node
            (folder / "machine").mkdir(parents=True)
            # All nodes share one /home.
            (FOLDER / "home").mkdir(exist_ok=True)
            (folder / "machine" / "home").symlink_to(FOLDER / "home")
            (folder / "password").touch(mode=0o600)
            (folder / "password").write_text(nodes.credentials(onehost.engine, node))
            (folder / "worker.toml").write_text(
                f'node = "{node}"\nledger = "{folder}/ledger.db"\nrehearse = "{folder}/machine"\n[broker]\n'
                f'port = {PORT}\nuser = "node-{node}"\npassword_file = "{folder}/password"\n'
            )
        apply.synchronise(config, nodes.hashes(onehost.engine))


def down() -> None:
    """Ends what an earlier run started, by its own records, and removes the folder."""
    for record in FOLDER.glob("*.pid") if FOLDER.exists() else ():
        pid = int(record.read_text())
        with contextlib.suppress(OSError):
            if str(FOLDER).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                os.killpg(pid, signal.SIGTERM)
                while Path(f"/proc/{pid}").exists() and b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().split()[2:3]:
                    time.sleep(0.05)
    shutil.rmtree(FOLDER, ignore_errors=True)


def _settings() -> None:
    (FOLDER / "onehost.toml").write_text(
        f'store = "sqlite:///{FOLDER}/store.db"\nsecrets = "{FOLDER}/secrets"\n'
        f'management = "http://127.0.0.1:{MANAGEMENT}"\ndefinitions = "{FOLDER}/definitions.json"\n'
        f"[broker]\nport = {PORT}\n"
    )


def _start(name: str, command: list, environment: dict) -> None:
    with (FOLDER / f"{name}.log").open("ab") as log:
        made = subprocess.Popen(command, env=environment | {"ONEHOST_REHEARSAL": str(FOLDER)}, stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log, start_new_session=True)  # fmt: skip
    (FOLDER / f"{name}.pid").write_text(str(made.pid))


def _broker() -> None:
    folder = FOLDER / "rabbitmq"
    folder.mkdir()
    (folder / "plugins").write_text("[rabbitmq_management].\n")
    (folder / "rabbitmq.conf").write_text(f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {MANAGEMENT}\n")
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_NODENAME": "rehearsal@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(PORT), "RABBITMQ_DIST_PORT": str(DISTRIBUTION), "ERL_EPMD_PORT": str(EPMD),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"), "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"), "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder), "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
    }  # fmt: skip
    _start("epmd", ["epmd", "-port", str(EPMD), "-address", "127.0.0.1"], environment)
    _start("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], environment)
    until = time.monotonic() + READY_SECONDS
    while subprocess.run(
        ["curl", "-sf", f"http://127.0.0.1:{MANAGEMENT}/"], capture_output=True, check=False
    ).returncode:
        if time.monotonic() > until:
            sys.exit(f"error: RabbitMQ did not start, see {FOLDER}/rabbitmq.log")
        time.sleep(0.2)


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word not in ("run", "prepare", "down"):
        sys.exit(__doc__)
    sys.exit({"run": run, "prepare": prepare, "down": down}[word]())
