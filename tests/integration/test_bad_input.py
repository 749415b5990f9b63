"""Bad input of every kind: a clear error, the right exit code, and nothing changed in the store or on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .command_line import CommandLine

USAGE, REFUSED, NOT_FOUND, CONFLICT, UNREACHABLE = 2, 3, 4, 5, 7
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
PLANTED = "planted-secret-4711"
BOMB = "  a: &a [x, x]\n" + "".join(f"  {n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True))


@dataclass(frozen=True)
class Case:
    """What is typed, the exit code, and a word the error must say."""

    words: tuple[str, ...]
    code: int
    says: str
    stdin: str | bytes | None = None

    def __str__(self) -> str:
        shown = " ".join(self.words)[:60] + (f" < {str(self.stdin)[:30]!r}" if self.stdin is not None else "")
        return f"{shown} -> {self.code}".encode("ascii", "backslashreplace").decode()


def create(name: str, *more: str, code: int = USAGE, says: str = "", stdin: str | bytes | None = None) -> Case:
    return Case(("account", "create", name, *more), code, says, stdin)


def document(text: str | bytes, says: str, code: int = USAGE) -> Case:
    return Case(("apply", "-f", "-"), code, says, text)


def account(**spec: object) -> str:
    return json.dumps({"noun": "account", "name": "newone", "spec": spec})


NAMES = [
    create(name, says=says)
    for name, says in [
        ("", "account name"), ("a", "2 to 16"), ("Alice", "a-z"), ("alice smith", "a-z"), ("a" * 17, "2 to 16"),
        ("1alice", "letter first"), ("al.ice", "a-z"), ("alice;reboot", "a-z"), ("../../etc", "a-z"),
        ("ａｌｉｃｅ", "a-z"),
        ("alice\n", "a-z"), ("\x1b[2Jx", "a-z"), ("root", "reserved"), ("postfix", "reserved"),
        ("-rf", "No such option"),
    ]
] + [
    Case(("node", "add", name, "10.0.0.99", "--roles", "web", "--no-broker"), USAGE, "node name")
    for name in ("Web9", "web_9", "web.9", "9web", "x" * 41, "")
] + [Case(("virtual-service", "create", "HTTP", "198.51.100.77", "80"), USAGE, "virtual service name")]  # fmt: skip

DOMAINS = [
    create("newone", "--domain", domain, says="domain")
    for domain in ("nodot", "-bad.example.com", "exa mple.com", "192.0.2.1", "a" * 64 + ".com", "x.localhost",
                   "example..com", "*.example.com", "💩.com", "a." * 130 + "com", "http://example.com/", "exa_mple.com")
] + [create("newone", "--domain", suffix, says="public suffix") for suffix in ("co.uk", "github.io")]  # fmt: skip

SETTINGS = [
    *(create("newone", "--document-root", root, says="document_root")
      for root in ("/etc", "../x", "a//b", ".ssh", "a b", "", "x" * 201)),
    create("newone", "--access", "root", says="--access"),
    create("newone", "--php=maybe", says="--php"),
    Case(("account", "set", "alice"), USAGE, "nothing to set"),
    Case(("node", "add", "web9", "10.0.0.300", "--roles", "web", "--no-broker"), USAGE, "IP address"),
    Case(("node", "add", "web9", "0.0.0.0", "--roles", "web", "--no-broker"), USAGE, "cannot be an address"),
    Case(("node", "add", "web9", "224.0.0.1", "--roles", "web", "--no-broker"), USAGE, "cannot be an address"),
    Case(("node", "add", "web9", "10.0.0.9", "--no-broker"), USAGE, "--roles"),
    Case(("node", "add", "web9", "10.0.0.9", "--roles", "mail", "--no-broker"), USAGE, "--roles"),
    Case(("node", "set", "web1", "--weight", "0"), USAGE, "weight"),
    Case(("node", "set", "web1", "--weight", "257"), USAGE, "weight"),
    Case(("node", "set", "web1", "--weight", "heavy"), USAGE, "--weight"),
    Case(("node", "drain", "web1", "--drain-seconds", "-1"), USAGE, "drain_seconds"),
    Case(("virtual-service", "create", "new", "198.51.100.9", "0"), USAGE, "port"),
    Case(("virtual-service", "create", "new", "198.51.100.9", "65536"), USAGE, "port"),
    Case(("virtual-service", "create", "new", "198.51.100.9", "http"), USAGE, "PORT"),
]  # fmt: skip

KEYS = [
    create("newone", "--ssh-keys", "-", says=says, stdin=stdin)
    for says, stdin in [
        ("ssh_keys.0", "ssh-rsa AAAA"), ("ssh_keys.0", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n"),
        ("ssh_keys.0", f'command="reboot" {ED25519}'), ("ssh_keys.1", f"{ED25519}\nssh-dss AAAAB3NzaC1kc3M=\n"),
        ("base64", "ssh-ed25519 !!!!"), ("ssh_keys", "\n".join([ED25519] * 51)), ("UTF-8", b"\xff\xfe\x00"),
        ("larger", "#" * (1024 * 1024 + 1)), ("another kind", ED25519.replace("ssh-ed25519", "ssh-rsa", 1)),
    ]
] + [
    create("newone", "--ssh-keys", "/nonexistent/keys", says="No such file"),
    create("newone", "--ssh-keys", "/", says="directory"),
]  # fmt: skip

PASSWORDS = [
    *(create("newone", "--password-hash", given, says="password_hash")
      for given in ("plaintext", "$1$abc$abcdefghijklmnopqrstuv", "$6$short$x", "*", "!", "$y$j9T$x$y",
                    "$6$a:b$" + "x" * 86)),
    create("newone", "--password-hash", "-", says="password_hash", stdin=f"{PLANTED}\n"),
    create("newone", "--password", says="8 to 512", stdin="short\n"),
    create("newone", "--password", says="8 to 512", stdin="\n"),
    create("newone", "--password", says="one line", stdin=""),
    create("newone", "--password", says="8 to 512", stdin="x" * 600 + "\n"),
    create("newone", "--password", says="8 to 512", stdin="nul\0inside\n"),
    create("newone", "--password", says="UTF-8", stdin=b"\xff\xfe\xfd\xfc12345\n"),
    create("newone", "--password", PLANTED, says="more arguments"),
    create("newone", "--password", "--password-hash", "$6$x", says="together"),
    Case(("account", "passwd", "alice"), USAGE, "8 to 512", "short\n"),
]  # fmt: skip

WRONG_WORDS = [
    Case(("gadget", "list"), USAGE, "no command"),
    Case(("acount", "list"), USAGE, "did you mean account?"),
    Case(("account", "explode", "alice"), USAGE, "no command"),
    Case(("account", "suspend"), USAGE, "NAME"),
    Case(("account", "suspend", "alice", "--force"), USAGE, "--force"),
    Case(("account",), USAGE, "Usage"),
    Case(("-o", "xml", "account", "list"), USAGE, "xml"),
    Case(("job", "show", "0"), USAGE, "ID"),
    Case(("job", "show", "abc"), USAGE, "ID"),
    Case(("job", "show", str(1 << 70)), USAGE, "ID"),
    Case(("job", "list", "--state", "happy"), USAGE, "--state"),
    Case(("job", "list", "--limit", "0"), USAGE, "--limit"),
    Case(("job", "wait", "1", "--timeout", "nan"), USAGE, "--timeout"),
    Case(("audit", "list", "--since", "yesterday"), USAGE, "is no time"),
    Case(("audit", "list", "--until", "999999w"), USAGE, "is no time"),
    Case(("audit", "verify", "--head", "12:abc"), USAGE, "is no head"),
    Case(("audit", "export", "--format", "xml"), USAGE, "xml"),
    Case(("audit", "export", "--file", "/nonexistent/x.csv"), USAGE, "cannot be written"),
    Case(("account", "suspend", "alice", "--reason", "two\nlines"), USAGE, "reason"),
    Case(("account", "suspend", "alice", "--reason", "x" * 1001), USAGE, "reason"),
    Case(("account", "suspend", "alice", "--idempotency-key", "k" * 201), USAGE, "idempotency key"),
    Case(("account", "suspend", "alice", "--if-generation", "-1"), USAGE, "--if-generation"),
    Case(("--actor", "x" * 201, "account", "suspend", "alice"), USAGE, "actor"),
    Case(("account", "suspend", "\udcff"), USAGE, "UTF-8"),
    Case(("node", "add", "web9", "10.0.0.9", "--roles", "web", "--worker-config", "/nonexistent/w"), USAGE, "written"),
    Case(("node", "credentials", "web1"), USAGE, "--worker-config"),
]

UNKNOWN = [
    Case(("account", "show", "alise"), NOT_FOUND, "did you mean alice?"),
    Case(("account", "suspend", "stranger"), NOT_FOUND, "no such account"),
    Case(("account", "delete", "stranger", "--yes", "stranger"), NOT_FOUND, "no such account"),
    Case(("node", "drain", "web9"), NOT_FOUND, "no such node"),
    Case(("node", "credentials", "web9", "--worker-config", "/tmp/never-written"), NOT_FOUND, "no such node"),
    Case(("lb", "show", "nothing"), NOT_FOUND, "no such virtual_service"),
    Case(("get", "gadget"), NOT_FOUND, "unknown noun"),
    Case(("get", "acount", "alice"), NOT_FOUND, "did you mean account?"),
    Case(("delete", "gadget", "x", "--yes", "x"), NOT_FOUND, "unknown noun"),
    Case(("job", "show", "999"), NOT_FOUND, "no such job"),
    Case(("job", "wait", "999"), NOT_FOUND, "no such job"),
    Case(("job", "retry", "999"), NOT_FOUND, "no such job"),
    Case(("job", "cancel", "999"), NOT_FOUND, "no such job"),
    Case(("job", "list", "--resource", "gadget/x"), NOT_FOUND, "unknown noun"),
    Case(("audit", "show", "999"), NOT_FOUND, "no such event"),
    document('{"noun": "gadget", "name": "x", "spec": {}}', "unknown noun", NOT_FOUND),
]

CONFLICTS = [
    create("alice", code=CONFLICT, says="exists already"),
    create("newone", "--domain", "alice.example.com", code=CONFLICT, says="held by account alice"),
    create("newone", "--domain", "ALICE.example.com.", code=CONFLICT, says="held by account alice"),
    create("newone", "--domain", "www.alice.example.com", code=CONFLICT, says="held by account alice"),
    create("newone", "--if-generation", "3", code=CONFLICT, says="generation"),
    create("newone", "--idempotency-key", "setup", code=CONFLICT, says="another wish"),
    Case(("account", "set", "alice", "--no-php", "--if-generation", "7"), CONFLICT, "not 7"),
    Case(("account", "set", "alice", "--no-php", "--if-generation", "1", "--dry-run"), CONFLICT, "not 1"),
    Case(("node", "add", "web1", "10.0.0.99", "--roles", "web", "--no-broker"), CONFLICT, "exists already"),
    Case(("node", "add", "web9", "10.0.0.11", "--roles", "web", "--no-broker"), CONFLICT, "held by node web1"),
    Case(("virtual-service", "create", "other", "198.51.100.10", "80"), CONFLICT, "held by virtual_service http"),
    Case(("init", "--no-broker", "--store", "sqlite:////elsewhere.db"), CONFLICT, "store"),
]

REFUSALS = [
    Case(("account", "delete", "alice"), REFUSED, "--yes alice"),
    Case(("account", "delete", "alice", "--yes", "bob"), REFUSED, "does not name"),
    Case(("delete", "account", "alice"), REFUSED, "--yes alice"),
    Case(("node", "remove", "web2", "--no-broker"), REFUSED, "--yes web2"),
    Case(("node", "cordon", "web1"), REFUSED, "last active real server"),
    Case(("node", "drain", "web1"), REFUSED, "last active real server"),
    Case(("job", "cancel", "6"), REFUSED, "has ended"),
    Case(("job", "retry", "7"), REFUSED, "came after it"),
    document('{"noun": "node", "name": "web1", "spec": {"address": "10.0.0.11", "roles": ["ssh"]}}', "roles", REFUSED),
    document(account(uid=20001), "given by the manager", REFUSED),
]

DOCUMENTS = [
    document("", "no document"),
    document("just words", "mapping of noun, name and spec"),
    document("{broken", "neither YAML nor JSON"),
    document('{"noun": "account", "name": "newone", "spec": {', "neither YAML nor JSON"),
    document("noun: account\nspec: {}\n", "mapping of noun, name and spec"),
    document("noun: account\nname: newone\nspec: {}\nextra: 1\n", "mapping of noun, name and spec"),
    document("noun: account\nname: 4711\nspec: {}\n", "must be text"),
    document("noun: account\nname: newone\nspec: [1]\n", "spec a mapping"),
    document("noun: account\nname: newone\nspec: {domain: &d x.example.com, access: *d}\n", "aliases"),
    document(f"noun: account\nname: newone\nspec:\n{BOMB}", "aliases"),
    document("noun: account\nname: newone\nname: other\nspec: {}\n", "stands twice"),
    document('{"noun": "account", "name": "newone", "name": "other", "spec": {}}', "stands twice"),
    document("noun: account\nname: newone\n---\nnoun: account\nname: newone\n", "stands twice"),
    document("noun: account\nname: newone\nspec: {domain: !!python/object/apply:os.system [reboot]}\n", "neither YAML"),
    document("noun: account\nname: newone\nspec: {domain: !!binary aGk=}\n", "JSON does not have"),
    document("noun: account\nname: newone\nspec: {uid: .nan}\n", "not a number"),
    document('{"noun": "account", "name": "newone", "spec": {"uid": Infinity}}', "not a number"),
    document(account(uid=1 << 70), "too large a number"),
    document(account(uid=70000), "uid"),
    document(account(uid="20005"), "uid"),
    document('{"noun": "account", "name": "newone", "spec": {"domain": "\\ud800"}}', "no text"),
    document(account(domain="a\0b.com"), "no text"),
    document(account(colour="red"), "colour"),
    document(account(php="yes"), "php"),
    document(account(php=1), "php"),
    document(account(domain=["x.example.com"]), "domain"),
    document(account(ssh_keys="none"), "ssh_keys"),
    document(account(password="secret-words"), "password"),
    document("[" * 100_000, "nested too deeply"),
    document("noun: account\nname: newone\nspec: " + "{a: " * 5000, "nested too deeply"),
    document('{"noun": "account", "name": "newone", "spec": ' + '{"a":' * 30 + "1" + "}" * 31, "nested too deeply"),
    document("#" * (4 * 1024 * 1024 + 1), "larger than"),
    document(b"\xff\xfe\x00\x00", "UTF-8"),
    document("noun: account\nname: good\n---\nnoun: account\nname: Bad\n", "account name"),
    document("noun: account\nname: goodone\n---\nnoun: account\nname: bad1\nspec: {domain: nodot}\n", "domain"),
    Case(("apply", "-f", "/nonexistent/x.yaml"), USAGE, "No such file"),
    Case(("apply",), USAGE, "--file"),
]

CASES = [*NAMES, *DOMAINS, *SETTINGS, *KEYS, *PASSWORDS, *WRONG_WORDS, *UNKNOWN, *CONFLICTS, *REFUSALS, *DOCUMENTS]


@pytest.fixture(scope="module")
def onehost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A cluster as wanted: three nodes (one cordoned), an account, a virtual service; no broker, no worker."""
    made = CommandLine(tmp_path_factory.mktemp("bad"))
    made.init()
    for name, address, role in (
        ("store1", "10.0.0.10", "storage"),
        ("web1", "10.0.0.11", "web"),
        ("web2", "10.0.0.12", "web"),
    ):
        made.good("node", "add", name, address, "--roles", role, "--no-broker")  # jobs 1 to 3
    made.good("account", "create", "alice", "--domain", "alice.example.com", "--idempotency-key", "setup")  # job 4
    made.good("virtual-service", "create", "http", "198.51.100.10", "80")  # job 6: no director, so it is over
    made.good("node", "cordon", "web2")  # job 6
    made.good("node", "set", "web2", "--weight", "50")  # job 7: overtakes it
    made.good("account", "set", "alice", "--access", "none")  # job 8
    yield made


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60
    assert len(set(CASES)) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input_changes_nothing(onehost: CommandLine, case: Case) -> None:
    before = onehost.contents()
    done = onehost.run(*case.words, stdin=case.stdin)
    assert done.exit_code == case.code, (done.output, done.exception)
    assert case.says in done.stderr
    assert done.stdout == ""
    if case.words != ("account",):
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and (". try: " in line or ". did you mean " in line or len(line) > 20)
        assert line.isprintable()
    assert "Traceback" not in done.output and PLANTED not in done.output
    assert onehost.contents() == before


SOME = [
    (("account", "create", "Bad"), b"", USAGE),
    ((b"account", b"create", b"\xff\xfe"), b"", USAGE),
    (("account", "create", "newone", "--password"), b"short\n", USAGE),
    (("apply", "-f", "-"), b"[" * 100_000, USAGE),
    (("account", "show", "nobody"), b"", NOT_FOUND),
    (("account", "create", "alice"), b"", CONFLICT),
    (("node", "cordon", "web1"), b"", REFUSED),
    (("broker", "check"), b"", UNREACHABLE),
]


@pytest.mark.parametrize(("words", "stdin", "code"), SOME)
def test_bad_input_as_a_process(onehost: CommandLine, words: tuple[str, ...], stdin: bytes, code: int) -> None:
    before = onehost.contents()
    done = onehost.process(*words, stdin=stdin)
    assert done.returncode == code, done.stderr
    assert done.stdout == b"" and done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    assert onehost.contents() == before


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, USAGE, "does not exist"),
        ("store = [", USAGE, "settings file"),
        ('colour = "red"', USAGE, "unknown setting"),
        ("first_uid = 'many'", USAGE, "not of type int"),
        ('store = "nonsense"', USAGE, "store"),
        ('store = "oracle9://x"', USAGE, "store"),
        ('store = "sqlite:////nonexistent/store.db"', UNREACHABLE, "does not exist"),
    ],
)
def test_bad_settings(tmp_path: Path, content: str | None, code: int, says: str) -> None:
    onehost = CommandLine(tmp_path)
    if content is not None:
        onehost.config.write_text(content)
    done = onehost.run("account", "list")
    assert (done.exit_code, says in done.stderr) == (code, True), done.output
    assert [path for path in tmp_path.iterdir() if path != onehost.config] == []
