"""Every way into an account, tried on every node by a real client: in this matrix a cell is ok or has a reason."""

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .names import CHECKOUT, address_of

#: The application that `Matrix.place` puts on each site, below its document root.
APPLICATION = CHECKOUT / "examples" / "notes.php"
#: An entry of each minute may take this long to be seen, in seconds.
CRON_SECONDS = 75.0
_SSH = "-o BatchMode=yes -o IdentitiesOnly=yes -o LogLevel=ERROR -o ConnectTimeout=10"
_LFTP = "set net:max-retries 1; set net:timeout 10; set cmd:fail-exit yes"
_FTP = "set ftp:ssl-allow false"
#: The client asks for an address, which no certificate names; that it is the right one is looked at under HTTPS.
_FTPS = "set ftp:ssl-force true; set ftp:ssl-protect-data true; set ssl:verify-certificate false"


@dataclass(frozen=True)
class Site:
    """An account with what it is reached by: `root` is below its home, `fingerprint` its certificate's SHA-256."""

    account: str
    uid: int
    domain: str
    root: str
    login: str
    password: str
    fingerprint: str


class Bad(Exception):
    """Why a cell is not ok."""


class Matrix:
    """`run` runs a command in a machine; `folder` is the client's, with the private key `key` in it."""

    def __init__(
        self, run: Callable[..., subprocess.CompletedProcess], nodes: Sequence[str], sites: Sequence[Site], folder: str
    ) -> None:
        self._run = run
        self.nodes, self.sites, self.folder = nodes, sites, folder
        self._mark = f"{time.time_ns():x}"

    def place(self) -> None:
        """Puts a page and the application on each site by SFTP; takes away what cron wrote for an earlier run."""
        for site in self.sites:
            root, page = f"/home/{site.account}/home/{site.root}", self._given(site, "index")
            commands = (
                f"put {page} {root}/index.html",
                f"put {APPLICATION} {root}/notes.php",
                f"-rm {root}/minutes.txt",
            )
            self._sftp(site, self.nodes[0], "\n".join(commands) + "\n")

    def show(self) -> tuple[int, int]:
        """Tries every cell and prints each row. Gives how many cells were ok, and how many there are."""
        good = 0
        rows = {
            "HTTP": self.http, "HTTPS": self.https, "PHP": self.php, "session": self.session, "SSH": self.ssh,
            "SFTP": self.sftp, "FTP up": self.ftp_up, "FTP down": self.ftp_down, "FTPS up": self.ftps_up,
            "FTPS down": self.ftps_down, "cron": self.cron,
        }  # fmt: skip
        print("\n            " + " ".join(f"{node:8}" for node in self.nodes).rstrip(), flush=True)
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            for name, look in rows.items():
                reasons = list(pool.map(lambda node, look=look: self._cell(look, node), self.nodes))
                words = [f"{'BAD' if reason else 'ok':8}" for reason in reasons]
                print(f"  {name:9} {' '.join(words)}".rstrip(), flush=True)
                for node, reason in zip(self.nodes, reasons, strict=True):
                    if reason:
                        print(f"            {node}: {reason}", flush=True)
                good += reasons.count("")
        return good, len(rows) * len(self.nodes)

    def _cell(self, look: Callable[[Site, str], None], node: str) -> str:
        """Empty if it is ok for every site, else why not."""
        for site in self.sites:
            try:
                look(site, node)
            except Bad as bad:
                return f"{site.account}: {bad}"
        return ""

    # ---- the rows

    def http(self, site: Site, node: str) -> None:
        """The site's first page."""
        said = self._curl(site, node, "/")
        _expect(said == self._line(site, "index"), said)

    def https(self, site: Site, node: str) -> None:
        """The same by HTTPS; the certificate shown is the one the cluster made, and its name fits."""
        file = f"{self.folder}/{site.account}.{node}.pem"
        connect = f"-connect {address_of(node)}:443 -servername {site.domain}"
        said = self._client(f"openssl s_client {connect} </dev/null 2>&1 | openssl x509 -out {file} && "
                            f"openssl x509 -in {file} -noout -fingerprint -sha256")  # fmt: skip
        shown = said.rpartition("=")[2].strip().replace(":", "")
        _expect(shown.lower() == site.fingerprint.replace(":", "").lower(), f"another certificate: {shown}")
        said = self._curl(site, node, "/", f"--cacert {file}", scheme="https", port=443)
        _expect(said == self._line(site, "index"), said)

    def php(self, site: Site, node: str) -> None:
        """The application runs on this node with the account's uid, and writes a file."""
        note = f"{self._mark} {node}"
        self._sign_in(site, node)
        answer = self._ask(site, node, f"--data-urlencode {shlex.quote(f'note={note}')}")
        _expect(answer["node"] == node, f"answered by {answer['node']}")
        _expect(answer["uid"] == site.uid, f"ran as uid {answer['uid']}, not {site.uid}")
        _expect(f"{node} guest: {note}" in answer["notes"], "the file it wrote is not there")

    def session(self, site: Site, node: str) -> None:
        """Who logs in on this node is logged in on the others, and nobody without the cookie is."""
        self._sign_in(site, node)
        for other in self.nodes:
            _expect(self._ask(site, other, jar=node)["user"] == f"{node} guest", f"not logged in on {other}")
        _expect(json.loads(self._curl(site, node, "/notes.php"))["user"] is None, "logged in without a cookie")

    def ssh(self, site: Site, node: str) -> None:
        """A shell, by key, on this node, with a host key that is known."""
        said = self._client(f"ssh {_SSH} -i {self.folder}/key {site.account}@{address_of(node)} 'id -u; hostname'")
        _expect(said.split() == [str(site.uid), node], said)

    def sftp(self, site: Site, node: str) -> None:
        """A file put on this node and fetched on the next."""
        file = f"/home/{site.account}/home/{site.root}/sftp-{node}.txt"
        mine, back = self._given(site, node), f"{self.folder}/{site.account}.{node}.back"
        self._sftp(site, node, f"put {mine} {file}\n")
        self._sftp(site, self._next(node), f"get {file} {back}\n")
        self._client(f"cmp {mine} {back}")

    def ftp_up(self, site: Site, node: str) -> None:
        """A file put on this node, in the clear."""
        self._lftp(site, node, _FTP, f"put {self._given(site, node)} -o ftp-{node}.txt")

    def ftp_down(self, site: Site, node: str) -> None:
        """The file that was put on the next node."""
        self._fetch(site, node, _FTP, "ftp")

    def ftps_up(self, site: Site, node: str) -> None:
        """A file put on this node, words and data by TLS."""
        self._lftp(site, node, _FTPS, f"put {self._given(site, node)} -o ftps-{node}.txt")

    def ftps_down(self, site: Site, node: str) -> None:
        """The file that was put on the next node."""
        self._fetch(site, node, _FTPS, "ftps")

    def cron(self, site: Site, node: str) -> None:
        """What one of the nodes has run by the clock is seen on this one, and no minute twice."""
        until = time.monotonic() + CRON_SECONDS
        while True:
            try:
                minutes = self._curl(site, node, "/minutes.txt").split()
                return _expect(len(set(minutes)) == len(minutes), f"run twice in a minute: {' '.join(minutes)}")
            except Bad as bad:
                if time.monotonic() > until:
                    raise Bad(f"nothing was run in {CRON_SECONDS:g} s: {bad}") from None
            time.sleep(0.5)  # the clock tells nobody that a minute is over

    # ---- how

    def _next(self, node: str) -> str:
        return self.nodes[(self.nodes.index(node) + 1) % len(self.nodes)]

    def _client(self, script: str, stdin: str = "") -> str:
        """What a script prints on the client. Raises Bad with its last words if it fails."""
        done = self._run("client", "bash", "-o", "pipefail", "-c", script, stdin=stdin)
        if done.returncode:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise Bad(words[-1] if words else f"{script.split()[0]}: exit status {done.returncode}")
        return done.stdout

    def _curl(self, site: Site, node: str, path: str, options: str = "", scheme: str = "http", port: int = 80) -> str:
        resolve = f"--resolve {site.domain}:{port}:{address_of(node)}"
        return self._client(f"curl -sS -f -m 15 {resolve} {options} {scheme}://{site.domain}{path}")

    def _sign_in(self, site: Site, node: str) -> None:
        self._client(f"rm -f {self.folder}/{site.account}.{node}.jar")
        answer = self._ask(site, node, f"-d 'user={node} guest'")
        _expect(answer["user"] == f"{node} guest", "not logged in")

    def _ask(self, site: Site, node: str, options: str = "", jar: str = "") -> dict:
        """The application's answer; cookies are kept by account and the node where they began."""
        file = f"{self.folder}/{site.account}.{jar or node}.jar"
        said = self._curl(site, node, "/notes.php", f"-b {file} -c {file} {options}")
        try:
            return json.loads(said)
        except ValueError:
            raise Bad(f"the application says: {said[:100]!r}") from None

    def _line(self, site: Site, what: str) -> str:
        return f"{self._mark} {site.account} {what}\n"

    def _given(self, site: Site, what: str) -> str:
        """A file of the client's that is unlike any other of this or an earlier run."""
        file = f"{self.folder}/{site.account}.{what}.given"
        self._client(f"cat >{file}", stdin=self._line(site, what))
        return file

    def _sftp(self, site: Site, node: str, commands: str) -> None:
        self._client(f"sftp -q {_SSH} -i {self.folder}/key -b - {site.account}@{address_of(node)}", stdin=commands)

    def _fetch(self, site: Site, node: str, settings: str, name: str) -> None:
        other, back = self._next(node), f"{self.folder}/{site.account}.{node}.back"
        self._client(f"rm -f {back}")
        self._lftp(site, node, settings, f"get {name}-{other}.txt -o {back}")
        self._client(f"cmp {self.folder}/{site.account}.{other}.given {back}")

    def _lftp(self, site: Site, node: str, settings: str, command: str) -> None:
        # By its input: a password does not belong into a process list.
        enter = f"open -u {site.login},{site.password} {address_of(node)}"
        self._client("lftp", stdin=f"{_LFTP}; {settings}\n{enter}\n{command}\n")


def _expect(is_so: bool, reason: str) -> None:
    if not is_so:
        raise Bad(" ".join(reason.split())[:200] or "no answer")
