"""A new noun is two files: with them alone it has a command line, travels, is applied and is audited."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onehost.broker_config import bootstrap
from onehost.models import settings

TREE = Path(__file__).parents[2]

#: What a programmer writes: the words …
NOUN = '''
"""A toy: a thing to play with on every web node."""

from marshmallow import Schema, fields
from marshmallow.validate import OneOf

from ..errors import Invalid, Refused
from .fields import integer
from .noun import Claim, Noun, Option, Stage, Verb

COLOURS = ("red", "green", "blue")


class ToySchema(Schema):
    """The spec of a toy."""

    colour = fields.String(required=True, validate=OneOf(COLOURS))
    wheels = integer(0, 8, load_default=4)
    owner = fields.String(load_default=None, allow_none=True)
    code = fields.String(load_default=None, allow_none=True)
    serial = integer(1, 99, load_default=None, allow_none=True)


OPTIONS = (
    Option("wheels", "How many wheels.", "number"),
    Option("owner", "Whose only toy it is."),
    Option("code", "The code that unlocks it."),
)


class Toy(Noun):
    """See the module."""

    name = "toy"
    plural = "toys"
    schema = ToySchema
    secret_fields = frozenset({"code"})
    manager_fields = frozenset({"serial"})
    columns = ("colour", "wheels", "owner", "serial")
    order = 60
    verbs = (
        Verb("create", "Make a toy.", "create car red --wheels 4", makes=True,
             options=(Option("colour", "Its colour.", "choice", COLOURS, required=True, positional=True), *OPTIONS)),
        Verb("set", "Change a toy.", "set car --wheels 3", options=OPTIONS),
        Verb("unwheel", "Take its wheels off.", "unwheel car", fixed={"wheels": 0}),
        Verb("bin", "Throw a toy away.", "bin car --yes car", removes=True, asks=True),
    )

    def check_name(self, name):
        if not name.isalpha() or not name.islower() or not name.isascii():
            raise Invalid(f"toy name {name!r} must be small letters")
        return name

    def check(self, name, spec, before, around):
        if spec and spec["wheels"] == 7:
            raise Refused("nothing has seven wheels")

    def number(self, spec, before, around):
        return spec | {"serial": before["serial"] if before else around.number("toy serial", 1, 99)}

    def claims(self, name, spec):
        if spec["owner"]:
            yield Claim("toy owner", spec["owner"])

    def stages(self):
        return (Stage(frozenset({"web"}), waits_for_all=False),)


NOUN = Toy()
'''
#: … and the hands.
RECONCILER = '''
"""Keeps each toy as a file of its own."""

import json

from ...models.errors import Permanent
from ..host import files


class Toy:
    """See the module."""

    noun = "toy"

    def _path(self, entry, host):
        return host.machine.path(f"/srv/toys/{entry.name}")

    def _text(self, entry):
        return None if entry.spec is None else json.dumps([entry.id, entry.spec["colour"], entry.spec["wheels"]])

    def compare(self, entry, host, view):
        is_, to_be = files.read(self._path(entry, host)), self._text(entry)
        if (is_ or b"").decode() == (to_be or ""):
            return {}
        return {"toy": "removed" if to_be is None else "changed" if is_ else "made"}

    def prepare(self, entry, host, view):
        if entry.spec and entry.spec["wheels"] == 8:
            raise Permanent("it does not fit on the shelf")
        self._path(entry, host).parent.mkdir(parents=True, exist_ok=True)

    def stage(self, entry, host, view):
        pass

    def finish(self, entry, host, view):
        if (text := self._text(entry)) is None:
            self._path(entry, host).unlink(missing_ok=True)
        else:
            files.write(self._path(entry, host), text)

    def verify(self, entry, host, view):
        if self.compare(entry, host, view):
            raise Permanent("the file is not what was written")


RECONCILER = Toy()
'''


class Copy:
    """A copy of the tree with a manager, and one worker whose machine is a folder; each process is a real one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "onehost"
        self.machine = folder / "machine"
        self.processes: list[subprocess.Popen[bytes]] = []
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=TREE, check=True,
                                capture_output=True).stdout.decode()  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (TREE / name).is_file() and not (TREE / name).is_symlink():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(TREE / name, self.tree / name)
        self.before = self.files()

    def files(self) -> set[str]:
        return {str(path.relative_to(self.tree)) for path in self.tree.rglob("*.*") if "__pycache__" not in path.parts}

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1",
            "ONEHOST_CONFIG": f"{self.folder}/onehost.toml", "ONEHOST_ACTOR": "tester",
            "ONEHOST_WORKER_CONFIG": f"{self.folder}/worker.toml",
        }  # fmt: skip

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", "from onehost.producer.cli import main; main()", *words]

    def run(self, *words: str, code: int = 0, stdin: str = "") -> str:
        """What a command says; on standard error if it is refused."""
        done = subprocess.run(self.command(*words), env=self.environment, cwd=self.folder, input=stdin.encode(),
                              capture_output=True, timeout=60)  # fmt: skip
        assert done.returncode == code, (words, done.stdout.decode(), done.stderr.decode())
        return (done.stderr if code else done.stdout).decode()

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "-o", "json"))

    def wait_until(self, true: Callable[[Any], bool]) -> None:
        """Waits for a condition of what `onehost status` says; its exit code is a verdict on the cluster."""
        until = time.monotonic() + 20
        while True:
            done = subprocess.run(self.command("status", "-o", "json"), env=self.environment, capture_output=True)
            if true(json.loads(done.stdout)):
                return
            assert time.monotonic() < until, done.stdout.decode()
            time.sleep(0.1)

    def start(self, *words: str) -> None:
        with (self.folder / f"{words[0]}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(self.command(*words), env=self.environment, cwd=self.folder, stdout=log, stderr=log)
            )

    def stop(self) -> list[int]:
        """Ends every process as supervisor would; gives their exit codes."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        try:
            return [process.wait(5) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def toy(self, name: str) -> Any:
        path = self.machine / "srv/toys" / name
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def copy(rabbitmq: Any, tmp_path: Path) -> Iterator[Copy]:
    made = Copy(tmp_path)
    (made.tree / "models/nouns/toy.py").write_text(NOUN)
    (made.tree / "workers/reconcilers/toy.py").write_text(RECONCILER)
    made.run("init", "--no-broker", "--store", f"sqlite:///{tmp_path}/store.db", "--broker-port", str(rabbitmq.port),
             "--management", rabbitmq.management, "--secrets", f"{tmp_path}/secrets",
             "--definitions", f"{tmp_path}/definitions.json")  # fmt: skip
    bootstrap.bootstrap(settings.manager(tmp_path / "onehost.toml", {}), rabbitmq.ctl)
    made.run("broker", "apply")
    made.run(
        "node", "add", "web1", "10.0.0.11", "--roles", "web", "--worker-config", f"{tmp_path}/worker.toml", "--no-wait"
    )
    config = tmp_path / "worker.toml"
    top = f'rehearse = "{made.machine}"\nledger = "{tmp_path}/ledger.db"\nbeat_seconds = 0.5\n'
    config.write_text(top + config.read_text())
    try:
        for words in (("relay", "run"), ("audit", "run"), ("worker", "run")):
            made.start(*words)
        yield made
    finally:
        codes = made.stop()
    assert codes == [0, 0, 0], "a process ends cleanly on SIGTERM within 5 s"


def test_a_noun_is_two_files(copy: Copy) -> None:
    where = subprocess.run([sys.executable, "-c", "import onehost; print(onehost.__file__)"], env=copy.environment,
                           cwd=copy.folder, capture_output=True, check=True).stdout.decode()  # fmt: skip
    assert where.strip() == str(copy.tree / "__init__.py"), "the copy is what runs, not the tree"
    assert copy.files() - copy.before == {"models/nouns/toy.py", "workers/reconcilers/toy.py"}
    the_command_line_knows_it(copy)
    it_travels_and_is_applied(copy)
    rules_are_kept(copy)
    it_is_audited(copy)
    it_is_removed(copy)


def the_command_line_knows_it(copy: Copy) -> None:
    assert "A thing to play with on every web node." in copy.run("--help")
    helped = copy.run("toy", "--help")
    assert all(verb in helped for verb in ("create", "set", "unwheel", "bin", "list", "show"))
    assert "--wheels" in copy.run("toy", "create", "--help") and "--serial" not in copy.run("toy", "create", "--help")
    copy.wait_until(lambda status: status["nodes"][0]["state"] == "online")


def it_travels_and_is_applied(copy: Copy) -> None:
    before = copy.run("toy", "create", "car", "red", "--dry-run")
    assert "made" in before and copy.json("toy", "list") == [] and copy.toy("car") is None
    said = copy.run(
        "toy", "create", "car", "red", "--wheels", "3", "--owner", "tim", "--code", "planted-4711", "--wait"
    )
    assert "planted" not in said
    (toy,) = copy.json("toy", "list")
    assert (toy["spec"]["colour"], toy["spec"]["serial"], toy["placements"], toy["open"]) == ("red", 1, 1, 0)
    assert copy.toy("car") == [toy["id"], "red", 3]
    copy.run("toy", "unwheel", "car", "--wait")
    assert copy.toy("car") == [toy["id"], "red", 0]
    document = json.dumps({"noun": "toy", "name": "truck", "spec": {"colour": "blue", "wheels": 6}})
    copy.run("apply", "-f", "-", "--wait", stdin=document)
    assert copy.toy("truck")[1:] == ["blue", 6]
    copy.run("toy", "set", "truck", "--wheels", "8", "--wait", code=1)
    assert copy.toy("truck")[1:] == ["blue", 6]
    job = copy.json("job", "list", "--state", "failed")[0]
    (node,) = copy.json("job", "show", str(job["id"]))["nodes"]
    assert (node["node"], node["state"], node["reason"]) == ("web1", "failed", "it does not fit on the shelf")


def rules_are_kept(copy: Copy) -> None:
    assert "small letters" in copy.run("toy", "create", "CAR", "red", code=2)
    copy.run("toy", "create", "bike", "pink", code=2)
    assert "seven wheels" in copy.run("toy", "create", "bike", "red", "--wheels", "7", code=3)
    assert "did you mean car" in copy.run("toy", "show", "caar", code=4)
    assert "toy owner tim is held by toy car" in copy.run("toy", "create", "bike", "red", "--owner", "tim", code=5)


def it_is_audited(copy: Copy) -> None:
    events = copy.json("audit", "list", "--resource", "toy/car")
    kinds = [event["kind"] for event in events]
    assert kinds[-1] == "toy.create" and {"toy.unwheel", "acknowledgement", "job.end"} <= set(kinds)
    applied = next(event for event in events if event["kind"] == "acknowledgement")
    assert (applied["node"], applied["outcome"], applied["detail"]["difference"]) == (
        "web1",
        "applied",
        {"toy": "changed"},
    )
    assert events[-1]["actor"] == "tester" and "planted" not in json.dumps(events)
    copy.wait_until(lambda status: not status["unsealed"])
    copy.run("audit", "verify")


def it_is_removed(copy: Copy) -> None:
    copy.run("toy", "bin", "car", "--wait", code=3)
    copy.run("toy", "bin", "car", "--yes", "car", "--wait")
    assert copy.toy("car") is None and [toy["name"] for toy in copy.json("toy", "list")] == ["truck"]
    copy.run("toy", "create", "bike", "red", "--owner", "tim", "--wait")
    assert copy.toy("bike")[1:] == ["red", 4]
    copy.run("toy", "create", "car", "green", "--wait")
    assert copy.toy("car")[1:] == ["green", 4]
