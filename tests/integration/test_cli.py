"""The command line end to end: on a store of its own, on a real broker, and waiting for real workers."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import sqlite3
import stat
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from onehost.broker_config import bootstrap
from onehost.models import settings
from onehost.producer.passwords import hashed

from .command_line import CommandLine
from .conftest import Cluster, wait_until

PASSWORD = "correct-horse-4711"


@pytest.fixture
def onehost(tmp_path: Path) -> CommandLine:
    """A manager's store and settings; nothing in it."""
    made = CommandLine(tmp_path)
    made.init()
    return made


@pytest.fixture
def three(onehost: CommandLine) -> CommandLine:
    """With three nodes that nobody has heard of."""
    onehost.good("node", "add", "store1", "10.0.0.10", "--roles", "storage", "--no-broker")
    onehost.good("node", "add", "web1", "10.0.0.11", "--roles", "web", "--roles", "ssh", "--no-broker")
    onehost.good("node", "add", "web2", "10.0.0.12", "--roles", "web", "--no-broker")
    return onehost


def test_init_twice_is_the_same_as_once(onehost: CommandLine) -> None:
    before = onehost.contents()
    done = onehost.good("init", "--no-broker")
    assert "are there" in done and "store is at revision" in done
    assert onehost.contents() == before
    assert settings.manager(onehost.config).store == onehost.store
    assert "head" not in onehost.good("db", "current") and onehost.good("db", "upgrade")


def test_a_broker_out_of_reach_is_said_and_the_node_stays(onehost: CommandLine) -> None:
    done = onehost.run("node", "add", "web1", "10.0.0.11", "--roles", "web")
    assert done.exit_code == 7
    assert "the store has it" in done.stderr and "try: onehost broker apply" in done.stderr
    assert json.loads(onehost.good("get", "node", "web1", "-o", "json"))["name"] == "web1"
    assert onehost.run("init").exit_code == 7
    assert onehost.run("broker", "apply").exit_code == 7


def test_a_worker_is_given_its_settings(three: CommandLine) -> None:
    path = three.folder / "worker.toml"
    words = ("--worker-config", str(path), "--broker-host", "10.0.0.1", "--no-broker")
    three.good("node", "credentials", "web1", *words)
    found = settings.worker(path, {})
    assert (found.node, found.broker.host, found.broker.user) == ("web1", "10.0.0.1", "node-web1")
    assert len(found.broker.password()) > 30
    assert stat.S_IMODE(found.broker.password_file.stat().st_mode) == 0o600
    first = found.broker.password()
    three.good("node", "credentials", "web1", *words)
    assert found.broker.password() != first
    elsewhere = three.folder / "w3.toml"
    three.good("node", "add", "web3", "10.0.0.13", "--roles", "web", "--no-broker", "--worker-config", str(elsewhere))
    assert tomllib.loads(elsewhere.read_text())["node"] == "web3"
    with three.config.open("a") as config:
        config.write('[broker]\nfallbacks = ["10.0.0.2", "10.0.0.3:5673"]\n')
    three.good("node", "credentials", "web1", *words)
    assert settings.worker(path, {}).broker.fallbacks == ("10.0.0.2", "10.0.0.3:5673")


def test_the_life_of_an_account(three: CommandLine) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice@home"
    (three.folder / "keys").write_text(f"# mine\n{key}\n")
    words = ("--domain", "Bücher.example.com", "--ssh-keys", str(three.folder / "keys"), "--reason", "order 7")
    created = three.good("account", "create", "alice", *words, "--password", stdin=f"{PASSWORD}\n")
    assert created == "account alice: job 5 for 3 nodes (onehost job wait 5)\n"
    shown = json.loads(three.good("account", "show", "alice", "-o", "json"))
    assert shown["spec"]["domain"] == "xn--bcher-kva.example.com" and shown["spec"]["uid"] == 20000
    assert "password_hash" not in shown["spec"] and shown["spec"]["ssh_keys"] == [key.rpartition(" ")[0]]
    assert [node["node"] for node in shown["nodes"]] == ["store1"], "the storage node's stage is the first"
    would = three.good("account", "set", "alice", "--access", "shell", "--no-php", "--dry-run")
    asked = "".join(f"  on {node}: was not asked: it is not online\n" for node in ("store1", "web1", "web2"))
    assert would == f"account alice: would change\n  access: sftp -> shell\n  php: yes -> no\n{asked}"
    assert "nothing would change" in three.good("account", "set", "alice", "--php", "--dry-run")
    assert three.good("account", "set", "alice", "--php") == "account alice: unchanged\n"
    receipt = json.loads(three.good("account", "suspend", "alice", "--if-generation", "1", "-o", "json"))["receipt"]
    assert receipt["generation"] == 2 and receipt["difference"] == {"suspended": "no -> yes"}
    assert three.good("account", "passwd", "alice", stdin="another-long-one\n").startswith("account alice: job")
    assert three.good("account", "passwd", "alice", "--password-hash", hashed("a third one")).startswith(
        "account alice"
    )
    assert re.search(r"alice +xn--bcher-kva.example.com +- +sftp +yes +yes +20000", three.good("account", "list"))
    three.good("account", "delete", "alice", "--yes", "alice")
    assert three.good("account", "list") == "no accounts\n"


def test_no_secret_is_written_anywhere_but_as_a_hash_in_the_store(three: CommandLine) -> None:
    secret = hashed(PASSWORD)
    said = [
        three.run("account", "create", "alice", "--password-hash", secret, "-o", form) for form in ("table", "json")
    ]
    said.append(three.run("account", "create", "bobby", "--password", "--dry-run", "-o", "yaml", stdin=PASSWORD))
    said += [three.run(*words, "-o", form) for form in ("table", "json", "yaml")
             for words in (("account", "show", "alice"), ("account", "list"), ("get", "account", "alice"),
                           ("audit", "list"), ("job", "list"), ("job", "show", "5"), ("status",))]  # fmt: skip
    said += [three.run("audit", "export", "--format", form) for form in ("csv", "jsonl")]
    assert all(PASSWORD not in done.output and "$6$" not in done.output for done in said)


def test_idempotency_key_gives_the_same_job(three: CommandLine) -> None:
    words = ("account", "create", "alice", "--idempotency-key", "k1")
    assert three.good(*words) == three.good(*words)
    assert len(json.loads(three.good("job", "list", "--kind", "account.*", "-o", "json"))) == 1


def test_documents_go_round(three: CommandLine) -> None:
    three.good("account", "create", "alice", "--domain", "alice.example.com", "--password", stdin=f"{PASSWORD}\n")
    text = three.good("get", "account", "-o", "yaml")
    assert three.good("apply", "-f", "-", stdin=text) == "account alice: unchanged\n"
    (found,) = yaml.safe_load_all(text)
    found["spec"]["access"] = "shell"
    other = {"noun": "account", "name": "bobby", "spec": {"domain": "bobby.example.com"}}
    service = {"noun": "virtual-service", "name": "http", "spec": {"address": "198.51.100.1", "port": 80}}
    file = three.folder / "cluster.yaml"
    file.write_text(yaml.safe_dump_all([found, other, service]))
    before = three.contents()
    would = three.good("apply", "-f", str(file), "--dry-run")
    assert "account alice: would change\n  access: sftp -> shell" in would and "bobby: would change" in would
    assert three.contents() == before
    told = three.good("apply", "-f", str(file)).splitlines()
    assert [line.partition(" (")[0] for line in told] == [
        "account alice: changed", "account bobby: made", "virtual_service http: made",
    ]  # fmt: skip
    with closing(sqlite3.connect(three.folder / "store.db")) as store, store:
        kept = store.execute("SELECT resource_id, generation, secrets FROM revision WHERE secrets NOT NULL").fetchall()
    store.close()
    hashes = [row for row in kept if b"$6$" in row[2]]
    assert [row[1] for row in hashes] == [2], (
        "the password that the file leaves out is kept, in the newest revision alone"
    )
    again = three.good("apply", "-f", "-", stdin=json.dumps([found, other]))
    assert again.count("unchanged") == 2
    three.good("delete", "account", "bobby", "--yes", "bobby")
    assert three.run("get", "account", "bobby").exit_code == 4


def test_the_whole_cluster_as_a_file(three: CommandLine) -> None:
    for name in ("alice", "bobby", "carol"):
        three.good("account", "create", name)
    three.good("cron", "create", "alice.one", "alice", "* * * * *", "true")
    three.good("cron", "create", "bobby.one", "bobby", "@daily", "true")
    text = three.good("get", "-o", "yaml")
    nouns = [document["noun"] for document in yaml.safe_load_all(text)]
    assert nouns.index("node") < nouns.index("account") < nouns.index("cron") and "uid" not in text
    assert {line.rpartition(" ")[2] for line in three.good("apply", "-f", "-", stdin=text).splitlines()} == {
        "unchanged"
    }
    kept = [each for each in yaml.safe_load_all(text) if each["name"] not in ("bobby", "bobby.one", "alice.one")]
    kept.append({"noun": "cron", "name": "carol.one",
                 "spec": {"account": "carol", "schedule": "@daily", "command": "true"}})  # fmt: skip
    file = three.folder / "cluster.yaml"
    file.write_text(yaml.safe_dump_all(kept))
    before = three.contents()
    would = three.good("apply", "-f", str(file), "--prune", "--dry-run")
    assert would.index("carol.one: would change") < would.index("account bobby") and "alice.one" in would
    refused = three.run("apply", "-f", str(file), "--prune", "--prune-limit", "1", "--yes", "2")
    assert refused.exit_code == 3 and "would remove 2 resources, more than 1" in refused.stderr
    refused = three.run("apply", "-f", str(file), "--prune", "--yes", "1")
    assert refused.exit_code == 3 and "--yes 2" in refused.stderr and three.contents() == before
    told = three.good("apply", "-f", str(file), "--prune", "--yes", "2")
    assert "account bobby: removed" in told and "cron alice.one: removed" in told and "cron carol.one: made" in told
    assert json.loads(three.good("get", "cron", "-o", "json"))[0]["name"] == "carol.one"
    assert three.run("get", "account", "bobby").exit_code == 4


def test_applied_nodes_get_credentials_at_the_broker(onehost: CommandLine) -> None:
    text = json.dumps({"noun": "node", "name": "web1", "spec": {"address": "10.0.0.11", "roles": ["web"]}})
    assert onehost.run("apply", "-f", "-", stdin=text).exit_code == 7, "there is no broker"
    with closing(sqlite3.connect(onehost.folder / "store.db")) as store, store:
        assert store.execute("SELECT count(*) FROM node_status WHERE password_hash IS NOT NULL").fetchone() == (1,)
    store.close()


def test_load_balancer(three: CommandLine) -> None:
    three.good("lb", "create", "http", "198.51.100.10", "80", "--check", "http")
    three.good("node", "cordon", "web2")
    shown = three.good("lb", "show")
    assert "http  198.51.100.10:80 wrr, check http, persistence 300 s" in shown
    assert re.search(r"web1 +10.0.0.11 +100 +active", shown) and re.search(r"web2 +10.0.0.12 +0 +cordoned", shown)
    (service,) = json.loads(three.good("lb", "show", "http", "-o", "json"))
    assert [real["node"] for real in service["real_servers"]] == ["web1", "web2"]


def test_jobs(three: CommandLine) -> None:
    three.good("account", "create", "alice")
    three.good("account", "set", "alice", "--no-php")
    jobs = json.loads(three.good("job", "list", "--resource", "account/alice", "-o", "json"))
    assert [(job["id"], job["state"]) for job in jobs] == [(6, "running"), (5, "running")]
    assert json.loads(three.good("job", "list", "--limit", "1", "--before", "3", "-o", "json"))[0]["id"] == 2
    assert three.good("job", "list", "--actor", "nobody") == "no jobs\n"
    shown = three.good("job", "show", "6")
    assert re.search(r"asked by +tester \(command line\)", shown) and re.search(r"store1 +1 +waiting +- +new", shown)
    late = three.run("job", "wait", "6", "--timeout", "0")
    assert late.exit_code == 6 and "job 6 goes on" in late.stderr and "try: onehost job wait 6" in late.stderr
    late = three.run("account", "suspend", "alice", "--wait", "--timeout", "0", "-o", "json")
    assert late.exit_code == 6 and json.loads(late.stdout)["job"]["state"] == "running"
    three.good("job", "retry", "7", "--reason", "again")
    assert three.good("job", "cancel", "8", "--reason", "enough").startswith("account alice: ")


def test_audit(three: CommandLine) -> None:
    three.good("account", "create", "alice", "--reason", "=HYPERLINK(1)")
    listed = json.loads(three.good("audit", "list", "--resource", "account/alice", "--since", "5m", "-o", "json"))
    assert [(event["kind"], event["actor"]) for event in listed] == [("account.create", "tester")]
    assert three.good("audit", "list", "--until", "1h") == "no events\n"
    assert "account.create" in three.good("audit", "show", str(listed[0]["id"]))
    lines = three.good("audit", "export").splitlines()
    assert [json.loads(line)["id"] for line in lines] == sorted(
        (json.loads(line)["id"] for line in lines), reverse=True
    )
    three.good("--actor", "@evil", "account", "suspend", "alice")
    rows = list(csv.DictReader(io.StringIO(three.good("audit", "export", "--format", "csv", "--actor", "@evil"))))
    assert [row["actor"] for row in rows] == ["'@evil"]
    file = three.folder / "events.csv"
    assert three.good("audit", "export", "--format", "csv", "--file", str(file)) == ""
    assert file.read_text().count("\n") == 1 + len(lines) + 1
    assert three.good("audit", "head") == "0:\n"
    assert re.fullmatch(r"audit chain ok: 0 events, head 0:, \d not sealed yet\n", three.good("audit", "verify"))


def test_audit_verify_names_the_first_bad_row(three: CommandLine) -> None:
    from onehost.models.store import connect, writing
    from onehost.producer import seal

    engine = connect(three.store)
    with writing(engine) as connection:
        assert seal.seal(connection) == 5
    engine.dispose()
    head = three.good("audit", "head").strip()
    assert "5 events" in three.good("audit", "verify", "--head", head)
    with closing(sqlite3.connect(three.folder / "store.db")) as store, store:
        store.execute("DELETE FROM seal WHERE position = 5")
    done = three.run("audit", "verify", "--head", head)
    assert done.exit_code == 1 and "its end was cut off" in done.stdout
    with closing(sqlite3.connect(three.folder / "store.db")) as store, store:
        store.execute("UPDATE seal SET hash = 'x' WHERE position = 2")
    store.close()
    done = three.run("audit", "verify", "-o", "json")
    assert done.exit_code == 1 and "position 2" in json.loads(done.stdout)["problem"]


def test_status_of_silent_nodes(three: CommandLine) -> None:
    done = three.run("status")
    assert done.exit_code == 2 and done.stdout.startswith("bad: none of 3 nodes is online")
    assert json.loads(three.run("status", "-o", "json").stdout)["level"] == "bad"


def test_as_a_program(three: CommandLine) -> None:
    done = three.process("account", "list", "-o", "json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    for shell in ("bash", "zsh", "fish"):
        assert b"_ONEHOST_COMPLETE" in three.process("completion", shell).stdout
    (three.folder / "store.db").unlink()
    done = three.process("account", "list")
    assert done.returncode == 7 and not (three.folder / "store.db").exists(), "no empty file is left behind"


@pytest.mark.parametrize(
    ("words", "offered"),
    [("account set ", ["alice", "albert"]), ("account show ali", ["alice"]), ("account create ", []),
     ("node drain w", ["web1", "web2"]), ("ssh-key show ", [])],
)  # fmt: skip
def test_the_shell_completes_names_that_are_there(three: CommandLine, words: str, offered: list[str]) -> None:
    three.good("account", "create", "alice", "--no-wait")
    three.good("account", "create", "albert", "--no-wait")
    asked = {"_ONEHOST_COMPLETE": "bash_complete", "COMP_WORDS": f"onehost {words}",
             "COMP_CWORD": str(words.count(" ") + 1)}  # fmt: skip
    said = three.process(**asked).stdout.decode().split()
    assert sorted(said) == sorted(f"plain,{name}" for name in offered)
    (three.folder / "store.db").unlink()
    done = three.process(**asked)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"", b"")


def test_the_long_running_processes_start(three: CommandLine) -> None:
    path = three.folder / "worker.toml"
    path.write_text("colour = 1\n")
    done = three.process("worker", "run", "--worker-config", str(path))
    assert done.returncode == 2 and b"unknown setting 'colour'" in done.stderr
    for name in ("relay", "audit"):
        command = [sys.executable, "-c", "from onehost.producer.cli import main; main()", name, "run"]
        environment = {"PATH": "/usr/bin:/bin", "ONEHOST_CONFIG": str(three.config)}
        child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        try:
            assert child.stderr is not None
            first = json.loads(child.stderr.readline())
            assert first["action"] == "start" and name in first.values()
            child.terminate()
            assert child.wait(10) == 0
        finally:
            child.kill()
            child.communicate()


@pytest.mark.broker
def test_init_and_nodes_on_a_real_broker(rabbitmq: Any, tmp_path: Path) -> None:
    onehost = CommandLine(tmp_path)
    base = rabbitmq.settings(tmp_path)
    words = ["--store", onehost.store, "--secrets", str(base.secrets), "--definitions", str(base.definitions)]
    words += ["--management", base.management, "--broker-port", str(base.broker.port)]
    # Another test may have taken `guest` away, and `init` knows only the machine's own rabbitmqctl.
    bootstrap.bootstrap(base, lambda arguments, stdin: rabbitmq.ctl(arguments, stdin))
    onehost.good("init", *words)
    assert "broker is in line" in onehost.good("init")
    worker = tmp_path / "worker.toml"
    onehost.good("node", "add", "web1", "10.0.0.11", "--roles", "web", "--worker-config", str(worker))
    assert onehost.good("broker", "check") == "broker: no drift\n"
    own = settings.worker(worker, {}).broker
    rabbitmq.ctl(["authenticate_user", own.user, own.password()])
    rabbitmq.ctl(["delete_user", "node-web1"])
    drift = onehost.run("broker", "check", "-o", "json")
    assert drift.exit_code == 1 and {"create"} == {step["verb"] for step in json.loads(drift.stdout)}
    assert "create user node-web1" in onehost.good("broker", "apply")
    onehost.good("node", "remove", "web1", "--yes", "web1")
    assert onehost.good("broker", "check") == "broker: no drift\n"


@pytest.mark.broker
def test_waiting_for_real_nodes(cluster: Cluster, tmp_path: Path) -> None:
    onehost = CommandLine(tmp_path)
    names = ("store", "management", "secrets")
    onehost.config.write_text("".join(f'{name} = "{getattr(cluster.settings, name)}"\n' for name in names))
    done = onehost.run("account", "create", "alice", "--wait", "--timeout", "20")
    assert done.exit_code == 0, done.output
    assert re.search(r"account alice: applied on 4 of 4 nodes in [0-9.]+ s \(job \d+\)", done.stdout)
    assert re.search(r"web3: applied in [0-9.]+ s", done.stderr)
    wait_until(lambda: onehost.run("status").exit_code == 0)
    assert onehost.good("status").startswith("ok: 4 of 4 nodes online")

    def fail(entry: Any) -> None:
        if entry.name == "carol":
            raise RuntimeError("the disk is on fire")

    cluster.recorders["web3"]["account"].fail = fail
    done = onehost.run("account", "create", "carol", "--wait", "-o", "json")
    assert done.exit_code == 1 and json.loads(done.stdout)["job"]["state"] == "partial"
    job = json.loads(done.stdout)["receipt"]["job_id"]
    assert re.search(r"web3 +2 +failed .* RuntimeError: the disk is on fire", onehost.good("job", "show", str(job)))
    cluster.recorders["web3"]["account"].fail = lambda entry: None
    assert onehost.run("job", "retry", str(job), "--wait").exit_code == 0
    text = "".join(f"---\nnoun: account\nname: many{n}\n" for n in range(5))
    done = onehost.run("apply", "-f", "-", "--wait", stdin=text)
    assert done.exit_code == 0 and done.stdout.count("applied on 4 of 4 nodes") == 5


def typed(onehost: CommandLine, words: list[str], *dialogue: tuple[bytes, bytes]) -> tuple[int, bytes]:
    """Runs the program on a terminal, answering each prompt; its exit code and all that was shown."""
    ours, theirs = pty.openpty()
    environment = {"PATH": "/usr/bin:/bin", "ONEHOST_CONFIG": str(onehost.config), "TERM": "xterm", "LANG": "C.UTF-8"}
    command = [sys.executable, "-c", "from onehost.producer.cli import main; main()", *words]
    child = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    shown, waiting = b"", list(dialogue)
    try:
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # Linux says so when the last one has closed the terminal.
                break
            if waiting and waiting[0][0] in shown:
                os.write(ours, waiting.pop(0)[1])
        return child.wait(30), shown
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def test_on_a_terminal(three: CommandLine) -> None:
    answers = ((b"Password: ", f"{PASSWORD}\n".encode()), (b"The same again: ", f"{PASSWORD}\n".encode()))
    code, shown = typed(three, ["account", "create", "alice", "--password", "--timeout", "1"], *answers)
    assert code == 6, shown
    assert PASSWORD.encode() not in shown and b"never heard of" in shown and b"job 5 goes on" in shown
    asked = b"Type its name to go on: "
    code, shown = typed(three, ["account", "delete", "alice", "--no-wait"], (asked, b"alise\n"))
    assert code == 3 and b"the name is another one" in shown
    code, shown = typed(three, ["account", "delete", "alice", "--no-wait"], (asked, b"alice\n"))
    assert code == 0, shown
    code, shown = typed(three, ["node", "list"])
    assert code == 0 and b"web2" in shown and b"\x1b[" in shown
    code, shown = typed(three, ["--no-color", "node", "list"])
    assert code == 0 and b"web2" in shown and b"\x1b[3" not in shown


def test_identity(three: CommandLine) -> None:
    before = json.loads(three.good("identity", "show", "cluster", "-o", "json"))["spec"]
    assert len(json.dumps(before)) < 2000 and "PRIVATE" not in json.dumps(before)
    known = three.good("identity", "known-hosts").splitlines()
    assert known[0] == f"10.0.0.11 {before['ssh_ed25519_public']}" and len(known) == 3
    three.good("virtual-service", "create", "ssh", "198.51.100.10", "2222", "--role", "ssh")
    assert three.good("identity", "known-hosts").startswith("[198.51.100.10]:2222,10.0.0.11 ssh-ed25519 ")
    refused = three.run("identity", "sshfp")
    assert refused.exit_code == 3 and "onehost identity set cluster --host-name" in refused.stderr
    named = re.search(r"job (\d+) for", three.good("identity", "set", "cluster", "--host-name", "other.example.com"))
    assert named and three.good("job", "cancel", named[1])
    three.good("identity", "set", "cluster", "--host-name", "cp.example.com")
    assert three.good("identity", "sshfp").splitlines()[0].startswith("cp.example.com. IN SSHFP 4 2 ")
    assert three.run("identity", "create", "other").exit_code == 2
    assert three.run("identity", "renew", "cluster").exit_code == 3, "nobody has confirmed it"
    renewed = three.good("identity", "renew", "cluster", "--yes", "cluster")
    job = re.search(r"job (\d+) for 2 nodes", renewed)
    assert job
    after = json.loads(three.good("identity", "show", "cluster", "-o", "json"))["spec"]
    assert after["ssh_rsa_public"] != before["ssh_rsa_public"] and after["host_name"] == "cp.example.com"
    undone = three.run("job", "cancel", job[1])
    assert undone.exit_code == 3 and "what it replaced is kept nowhere" in undone.stderr
    assert "PRIVATE" not in three.good("audit", "export") + three.good("job", "show", job[1])
