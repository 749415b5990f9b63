"""An account is suspended while others work: when it showed a page or let somebody in for the last time, on each node,
and whether all is as it was after it was let in again."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

from onehost.tests.lab.conftest import Lab

ACCOUNT, DOMAIN, PASSWORD = "held", "held.example.org", "correct-horse-1"
WAYS = ("http", "https", "ftp", "ssh", "sftp")
#: How long it is tried before the suspension is asked for and after it was committed, in seconds.
BEFORE_SECONDS, AFTER_SECONDS = 4.0, 6.0
MAKE = """
onehost = Onehost(actor="bench")
receipts = [onehost.account_create(NAME, domain=f"{NAME}.example.com", access="shell", password=WORD)]
print(json.dumps(onehost.wait(receipts[0], seconds=60)["state"]))
receipts.append(onehost.submit([onehost.wish("domain", DOMAIN, "create", {"account": NAME})])[0])
print(json.dumps(onehost.wait(receipts[1], seconds=60)["state"]))
"""
OPTIONS = ("-o", "LogLevel=QUIET", "-o", "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1",
           "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")  # fmt: skip
#: Every way in on every node, again and again, each in a thread of its own; what counts is the end of a try that went
#: well, so each time is a little late.
TRY = """
import ftplib, json, os, socket, ssl, subprocess, sys, threading, time
NAME, DOMAIN, WORD = sys.argv[1:4]
ends, last, lock = {}, {}, threading.Lock()
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
SSH = OPTIONS
def page(client):
    client.sendall(f"GET / HTTP/1.1\\r\\nHost: {DOMAIN}\\r\\nConnection: close\\r\\n\\r\\n".encode())
    return client.recv(20).startswith(b"HTTP/1.1 200")
def http(address):
    with socket.create_connection((address, 80), timeout=10) as client:
        return page(client)
def https(address):
    with socket.create_connection((address, 443), timeout=10) as plain, \\
            context.wrap_socket(plain, server_hostname=DOMAIN) as client:
        return page(client)
def ftp(address):
    with ftplib.FTP(address, timeout=10) as client:
        return client.login(NAME, WORD).startswith("230")
def said(*words, stdin=""):
    done = subprocess.run(["sshpass", "-p", WORD, *words], input=stdin, capture_output=True, text=True, timeout=20)
    return done.stdout if not done.returncode else ""
def ssh(address):
    return NAME in said("ssh", *SSH, f"{NAME}@{address}", "id -un")
def sftp(address):
    return "web" in said("sftp", "-o", "BatchMode=no", *SSH, "-b", "-", f"{NAME}@{address}", stdin="ls")
def again(way, address):
    while not os.path.exists("/tmp/enough"):
        try:
            good = way(address)
        except (OSError, EOFError, ftplib.Error, subprocess.SubprocessError):
            good = False
        with lock:
            key = f"{way.__name__} {address}"
            ends.setdefault(key, []).append(time.time())
            if good:
                last[key] = ends[key][-1]
        time.sleep(0.02 if way in (http, https) else 0.2)
threads = [threading.Thread(target=again, args=(way, address))
           for way in (http, https, ftp, ssh, sftp) for address in sys.argv[4:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"last": last, "ends": ends}))
"""
SUSPEND = """
onehost = Onehost(actor="bench")
called = time.time()
receipt = onehost.account_suspend(NAME, reason="bench")
committed = time.time()
job = onehost.wait(receipt, seconds=60)
print(json.dumps({"called": called, "committed": committed, "state": job["state"], "ended": time.time()}))
"""
#: A shell that is open; the last of its lines is when it was ended.
SHELL = "while sleep 0.1; do date +%s.%N; done"
#: The account's home: names, modes, owners, sizes, times of files, contents.
HOME = "cd /home/NAME && find . -printf '%P %y %m %U %G %l\\n' | sort; find . -type f -printf '%P %s %T@\\n' | sort; " \
       "find . -type f -print0 | sort -z | xargs -0 sha256sum"  # fmt: skip
#: What the account has on a node: its files, and its rows.
CONFIGURATION = "cd /etc/onehost; find -L . -type f -path '*/live/*' \\( -name 'NAME.*' -o -name 'DOMAIN.*' \\) | " \
                "sort | xargs sha256sum; sha256sum ssh/keys/NAME; ls apache/suspended ftp/locked; " \
                "grep -h NAME /var/lib/extrausers/* ftp/users"  # fmt: skip


def _filled(script: str) -> str:
    return script.replace("NAME", ACCOUNT).replace("DOMAIN", DOMAIN)


def make(lab: Lab) -> None:
    """The account that is to be suspended."""
    values = f"NAME, DOMAIN, WORD = {ACCOUNT!r}, {DOMAIN!r}, {PASSWORD!r}\n"
    assert lab.python("manager", values + MAKE) == "applied"


def _looks(lab: Lab) -> dict[str, str]:
    """All of it that somebody can see."""
    found = {"home": lab.run("manager", "bash", "-c", _filled(HOME))}
    for number, node in enumerate(lab.nodes, 1):
        found[f"configuration on {node}"] = lab.run(node, "bash", "-c", _filled(CONFIGURATION), check=False)
        to = f"--resolve {DOMAIN}:80:10.77.0.1{number} --resolve {DOMAIN}:443:10.77.0.1{number}"
        pages = "; ".join(f"curl -sk -w '%{{http_code}}' {to} {scheme}://{DOMAIN}/" for scheme in ("http", "https"))
        found[f"pages of {node}"] = lab.run("client", "bash", "-c", pages)
    return found


def _start(lab: Lab) -> Any:
    lab.run("client", "rm", "-f", "/tmp/enough")
    addresses = [f"10.77.0.1{number}" for number, _ in enumerate(lab.nodes, 1)]
    return lab.start(
        "client",
        "python3",
        "-c",
        TRY.replace("OPTIONS", repr(OPTIONS)),
        ACCOUNT,
        DOMAIN,
        PASSWORD,
        *addresses,
    )


def _end(lab: Lab, trying: Any) -> Any:
    lab.run("client", "touch", "/tmp/enough")
    return json.loads(trying.communicate(timeout=90)[0].splitlines()[-1])


def measure(lab: Lab) -> dict[str, str]:
    """Suspends it. Gives how everything looked before."""
    before = _looks(lab)
    shells = [lab.start("client", "sshpass", "-p", PASSWORD, "ssh", *OPTIONS, f"{ACCOUNT}@10.77.0.1{number}", SHELL)
              for number, _ in enumerate(lab.nodes, 1)]  # fmt: skip
    trying = _start(lab)
    time.sleep(BEFORE_SECONDS)
    said = lab.python("manager", f"NAME = {ACCOUNT!r}\n" + SUSPEND)
    time.sleep(max(0.0, said["committed"] + AFTER_SECONDS - time.time()))
    tried = _end(lab, trying)
    print(f"a suspension meanwhile: committed after {said['committed'] - said['called']:.2f} s, {said['state']} on all "
          f"nodes after {said['ended'] - said['called']:.2f} s; last good try after the commit:")  # fmt: skip
    for way in WAYS:
        keys = [key for key in sorted(tried["ends"]) if key.split()[0] == way]
        words = [
            f"{tried['last'][key] - said['committed']:+.2f} s" if key in tried["last"] else "never" for key in keys
        ]
        pause = max(later - earlier for key in keys for earlier, later in pairwise(tried["ends"][key]))
        since = sum(end > said["committed"] for key in keys for end in tried["ends"][key])
        tries = sum(len(tried["ends"][key]) for key in keys)
        print(
            f"  {way:5} " + ", ".join(f"{node} {word}" for node, word in zip(lab.nodes, words, strict=True))
            + f"  ({tries} tries, {since} of them after the commit, at most {pause:.1f} s apart)"
        )  # fmt: skip
    lines = [[line for line in shell.communicate(timeout=60)[0].splitlines() if line[:1].isdigit()] for shell in shells]
    ended = [float(its[-1]) - said["committed"] for its in lines]
    print("  a shell that was open ended: " + ", ".join(
        f"{node} {at:+.2f} s" for node, at in zip(lab.nodes, ended, strict=True)))  # fmt: skip
    return before


def undo(lab: Lab, before: dict[str, str]) -> None:
    """Lets it in again, and holds all of it against how it was."""
    lab.onehost("account", "unsuspend", ACCOUNT, "--wait")
    after = _looks(lab)
    differ = [what for what in before if before[what] != after[what]]
    lines = sum(text.count("\n") for text in before.values())
    print(f"unsuspended: home, configuration and pages of {len(lab.nodes)} nodes ({lines} lines of hashes, modes, rows "
          f"and pages) are byte for byte as before: {'no: ' + ', '.join(differ) if differ else 'yes'}")  # fmt: skip
    trying = _start(lab)
    time.sleep(3)
    tried = _end(lab, trying)
    print(f"  ways in that are open again: {len(tried['last'])} of {len(tried['ends'])}")
