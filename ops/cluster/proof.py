"""What `ops/demo` does in a lab: the main job of onehost, by its command line, looked at from the client machine."""

import json
import secrets
import subprocess
import time
from collections.abc import Sequence

from .matrix import Matrix, Site
from .names import CHECKOUT, VIRTUAL, address_of

ACCOUNTS = CHECKOUT / "examples" / "accounts.yaml"
SITES = CHECKOUT / "examples" / "sites.yaml"
#: How long the nodes may take to say that they are synced, in seconds.
SYNC_SECONDS = 60.0
#: Client addresses that ask the virtual address.
CLIENTS = [f"198.51.100.{n}" for n in range(20, 30)]
#: A page that tells which node ran it, and as whom.
PAGE = "<?php echo gethostname(), ' ', posix_geteuid(), PHP_EOL;"
#: Where the client keeps passwords: by file, so that none stands in a process list.
VAULT = "/root/passwords"


class Proof:
    """One run. `is_good` tells whether everything looked at was as it should be."""

    def __init__(self, lab: str, nodes: int) -> None:
        self.lab = lab
        self.nodes = [f"node{n}" for n in range(1, nodes + 1)]
        self.is_good = True

    def run(self) -> str:
        """The whole demo; the sentence it ends with."""
        self._title("nodes")
        self._wait_for_nodes()
        self._manager("node", "list", show=True)
        self._title("one address in front of them")
        self._virtual_service("http", 80, "web", "http")
        self._virtual_service("ssh", 22, "ssh", "ssh")
        self._title(f"accounts of {ACCOUNTS.relative_to(CHECKOUT)}")
        self._manager("apply", "--wait", "-f", str(ACCOUNTS), show=True)
        accounts = self._json("account", "list")
        self._title(
            f"two accounts with a domain, certificate, FTP login, SSH key and cron: {SITES.relative_to(CHECKOUT)}"
        )
        matrix = self._sites()
        accounts = [each for each in accounts if each["name"] not in {site.account for site in matrix.sites}]
        passwords = self._set_passwords(accounts)
        applied = self._applied(accounts)
        self._title("each account on each node, from the client machine")
        for account in accounts:
            self._prove(account, account["name"] in passwords)
        served = self._prove_address(accounts[0])
        self._title("every way in of those two, on each node, from the client machine")
        ways, cells = matrix.show()
        self._title("who asked for what, and which node did it when")
        job = self._json("job", "list", "--kind", "account.passwd", "--limit", "1")[0]
        self._manager("job", "show", str(job["id"]), show=True)
        self._manager("audit", "list", "--resource", f"account/{accounts[0]['name']}", "--limit", "8", show=True)
        chain = self._audit()
        good = applied == len(self.nodes) and served == len(self.nodes) and ways == cells and chain == "ok"
        self.is_good = self.is_good and good
        return (f"{applied}/{len(self.nodes)} nodes applied, 1 address served by {served} nodes, "
                f"{ways}/{cells} ways in ok, audit chain {chain}")  # fmt: skip

    # ---- the manager's side

    def _wait_for_nodes(self) -> None:
        until = time.monotonic() + SYNC_SECONDS
        wanted = len(self.nodes) + 1
        while time.monotonic() < until:
            states = [node["state"] for node in self._json("status")["nodes"]]
            if states.count("online") >= wanted:
                return
            time.sleep(0.3)
        self._say(False, "all nodes are online", f"only {states.count('online')} of {wanted} after {SYNC_SECONDS:g} s")

    def _virtual_service(self, name: str, port: int, role: str, check: str) -> None:
        spec = {"address": VIRTUAL, "port": port, "role": role, "check": check}
        document = json.dumps({"noun": "virtual_service", "name": name, "spec": spec})
        self._manager("apply", "--wait", "-f", "-", stdin=document, show=True)

    def _set_passwords(self, accounts: Sequence[dict]) -> dict[str, str]:
        """A new password for each account that may log in; the client keeps it in a file."""
        self._in("client", "install", "-d", "-m", "700", VAULT)
        made = {}
        for account in accounts:
            if account["spec"]["access"] != "none":
                name, made[account["name"]] = account["name"], secrets.token_urlsafe(12)
                self._manager("account", "passwd", name, "--password", "--wait", stdin=made[name] + "\n")
                self._in("client", "sh", "-c", f"umask 077; cat >{VAULT}/{name}", stdin=made[name])
        return made

    def _sites(self) -> Matrix:
        """The accounts of SITES with a login's password, a key of the client's and the application."""
        self._manager("apply", "--wait", "-f", str(SITES), show=True)
        self._in("client", "sh", "-c", f"install -d -m 700 {VAULT}; cd {VAULT}; test -f key || "
                 "ssh-keygen -q -t ed25519 -N '' -C client -f key")  # fmt: skip
        key = self._in("client", "cat", f"{VAULT}/key.pub").stdout.strip()
        certificates = {each["name"]: each["spec"] for each in self._json("certificate", "list")}
        owners = {each["name"]: each["spec"] for each in self._json("account", "list")}
        logins = {each["spec"]["account"]: each["name"] for each in self._json("ftp-login", "list")}
        sites = []
        for domain in self._json("domain", "list"):
            name = domain["spec"]["account"]
            document = json.dumps({"noun": "ssh_key", "name": f"{name}.client", "spec": {"account": name, "key": key}})
            self._manager("apply", "--wait", "-f", "-", stdin=document)
            password = secrets.token_hex(9)
            self._manager("ftp-login", "passwd", logins[name], "--password", "--wait", stdin=password + "\n")
            sites.append(Site(name, owners[name]["uid"], domain["name"], domain["spec"]["document_root"], logins[name],
                              password, certificates[domain["name"]]["fingerprint"]))  # fmt: skip
        matrix = Matrix(self._in, self.nodes, sites, VAULT)
        matrix.place()
        return matrix

    def _applied(self, accounts: Sequence[dict]) -> int:
        """Nodes on which every account is applied."""
        done = dict.fromkeys(self.nodes, 0)
        for account in accounts:
            for placement in self._json("account", "show", account["name"])["nodes"]:
                done[placement["node"]] = done.get(placement["node"], 0) + (placement["state"] == "applied")
        return sum(done[node] == len(accounts) for node in self.nodes)

    def _audit(self) -> str:
        until = time.monotonic() + 10
        while time.monotonic() < until and self._json("status")["unsealed"]:
            time.sleep(0.3)
        done = self._manager("audit", "verify", show=True)
        return "ok" if done.returncode == 0 else "broken"

    # ---- the client's side

    def _prove(self, account: dict, can_log_in: bool) -> None:
        name, spec = account["name"], account["spec"]
        cells = []
        for node in self.nodes:
            address = address_of(node)
            if spec["domain"]:
                cells.append(("http", self._curl(spec["domain"], address).startswith("200 ")))
            if can_log_in and spec["access"] == "shell":
                cells.append(("ssh", self._login("ssh", name, address, "id -un").split() == [name]))
            elif can_log_in:
                cells.append(("sftp", "working directory: /home" in self._login("sftp", name, address, "pwd")))
        words = " ".join(f"{what} {'ok' if good else 'BAD'}" for what, good in cells)
        self._say(all(good for _, good in cells), f"{name:10} {spec['domain'] or '-':28}", words)

    def _prove_address(self, account: dict) -> int:
        """Uploads a page through the virtual address; ten clients ask for it there. Gives how many nodes answered."""
        name, domain = account["name"], account["spec"]["domain"]
        root = account["spec"]["document_root"]
        self._in("client", "sh", "-c", f"cat >{VAULT}/who.php", stdin=PAGE)
        # A login of access sftp sees its own tree alone.
        home = "/home" if account["spec"]["access"] == "sftp" else f"/home/{name}/home"
        self._login("sftp", name, VIRTUAL, f"put {VAULT}/who.php {home}/{root}/who.php")
        seen: dict[str, int] = {}
        for client in CLIENTS:
            node, _, uid = self._curl(domain, VIRTUAL, "/who.php", client).removeprefix("200 ").partition(" ")
            if uid.strip() == str(account["spec"]["uid"]):
                seen[node] = seen.get(node, 0) + 1
        spread = ", ".join(f"{node} {count}" for node, count in sorted(seen.items()))
        everybody = sum(seen.values()) == len(CLIENTS)
        self._say(everybody, f"{len(CLIENTS)} clients at {VIRTUAL}", f"answered by {spread or 'nobody'}")
        return len(seen)

    def _curl(self, domain: str, address: str, path: str = "/", client: str = "") -> str:
        """ "STATUS BODY" of a request for a domain at an address."""
        source = ["--interface", client] if client else []
        done = self._in("client", "curl", "-s", "-m", "10", *source, "-w", "\n%{http_code}", "--resolve",
                        f"{domain}:80:{address}", f"http://{domain}{path}")  # fmt: skip
        body, _, status = done.stdout.rpartition("\n")
        return f"{status} {body}"

    def _login(self, how: str, name: str, address: str, command: str) -> str:
        options = ["-o", "PreferredAuthentications=password", "-o", "LogLevel=ERROR"]
        by_file = ["sshpass", "-f", f"{VAULT}/{name}"]
        if how == "ssh":
            return self._in("client", *by_file, "ssh", *options, f"{name}@{address}", command).stdout
        # Not by -b: that forbids passwords.
        return self._in("client", *by_file, "sftp", "-q", *options, f"{name}@{address}", stdin=command + "\n").stdout

    # ---- how

    def _manager(self, *words: str, stdin: str = "", show: bool = False) -> subprocess.CompletedProcess:
        if show:
            print(f"\n$ onehost {' '.join(words)}", flush=True)
        done = self._in("manager", "onehost", *words, stdin=stdin)
        if show:
            print(done.stdout.rstrip(), flush=True)
        if done.returncode:
            self._say(False, f"onehost {' '.join(words)}", f"exit status {done.returncode}: {done.stderr.strip()}")
        return done

    def _json(self, *words: str):
        done = self._in("manager", "onehost", "-o", "json", *words)
        return json.loads(done.stdout)

    def _in(self, machine: str, *command: str, stdin: str = "") -> subprocess.CompletedProcess:
        enter = [CHECKOUT / "ops" / "lab", "exec", "--name", self.lab, machine, "--", *command]
        return subprocess.run(enter, input=stdin, capture_output=True, text=True, check=False)

    def _title(self, text: str) -> None:
        print(f"\n== {text}", flush=True)

    def _say(self, good: bool, what: str, how: str) -> None:
        self.is_good = self.is_good and good
        print(f"  {'ok ' if good else 'BAD'} {what} {how}", flush=True)
