"""What pools of one PHP shard do to one another, on a lab of one node that it makes and removes.

    .venv/bin/python tests/bench/pools.py [CHANGES] [SECONDS]        20 and 30 unless said

A request of account A takes SECONDS. Meanwhile the pool of account B, of the same shard, is changed CHANGES times, so
that the shard is handed over to a new master each time, and account C is asked 50 times a second, as it was before for
comparison. Prints what became of A's request, C's answer times, and the masters there were; asserts nothing.
"""

from __future__ import annotations

import json
import sys
import time

from onehost.tests.lab.conftest import Lab

RATE, QUIET_SECONDS = 50, 10
ADDRESS = "10.77.0.11"
#: A busy processor as an idle one: what counts is that it ends, and as whom.
SLOW = """<?php set_time_limit(300); $until = microtime(true) + {seconds};
while (microtime(true) < $until) usleep(100000);
echo 'done ', posix_getuid(), ' ', getmypid();"""
FAST = "<?php echo posix_getuid();"
MAKE = """
onehost = Onehost(actor="bench")
wishes = [onehost.wish("account", name, "create", {"domain": f"{name}.example.com"}) for name in ("aa", "bb", "cc")]
print(json.dumps([onehost.wait(receipt, seconds=60)["state"] for receipt in onehost.submit(wishes)]))
"""
CHANGE = """
onehost = Onehost(actor="bench")
changes, pause, states = int(sys.argv[1]), float(sys.argv[2]), []
for number in range(changes):
    began = time.monotonic()
    receipt = onehost.submit([onehost.wish("account", "bb", "set", {"limits": {"memory_mib": 100 + number}})])[0]
    states.append(onehost.wait(receipt, seconds=60)["state"])
    time.sleep(max(0.0, began + pause - time.monotonic()))
print(json.dumps(states))
"""
#: Asks as often as wanted, each time on a connection of its own, and gives the seconds of each answer.
ASK = """
import json, socket, sys, threading, time
address, host, rate, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
took, failed = [], []
def one():
    began = time.monotonic()
    try:
        with socket.create_connection((address, 80), timeout=20) as client:
            client.sendall(f"GET /fast.php HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
            answer = b""
            while block := client.recv(65536):
                answer += block
        (took if answer.startswith(b"HTTP/1.1 200") else failed).append(time.monotonic() - began)
    except OSError:
        failed.append(time.monotonic() - began)
start, threads = time.monotonic(), []
for number in range(int(rate * seconds)):
    time.sleep(max(0.0, start + number / rate - time.monotonic()))
    threads.append(threading.Thread(target=one))
    threads[-1].start()
for thread in threads:
    thread.join()
print(json.dumps({"took": sorted(took), "failed": len(failed)}))
"""
#: The masters of PHP that there are, process ids, each tenth of a second for so long, and how many at most at once.
MASTERS = """
import json, pathlib, sys, time
until, seen, most = time.monotonic() + float(sys.argv[1]), set(), 0
while time.monotonic() < until:
    now = set()
    for each in pathlib.Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                title = (each / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"php-fpm: master process (/etc/onehost/php/"):
                now.add(each.name)
    seen |= now
    most = max(most, len(now))
    time.sleep(0.1)
print(json.dumps({"masters": len(seen), "at once": most}))
"""


def write(lab: Lab, account: str, name: str, text: str) -> None:
    place = f"/home/{account}/home/web/{name}"
    lab.run("manager", "bash", "-c", f"cat >{place}; chown --reference=$(dirname {place}) {place}", stdin=text)


def ask(lab: Lab, seconds: float) -> dict[str, list[float] | int]:
    asked = lab.run("client", "python3", "-c", ASK, ADDRESS, "cc.example.com", str(RATE), str(seconds))
    return json.loads(asked)  # type: ignore[no-any-return]


def told(answers: dict[str, list[float]], what: str) -> None:
    took = answers["took"]
    share = [f"p{part:g} {1000 * took[min(len(took) - 1, int(len(took) * part / 100))]:.1f} ms" for part in (50, 99)]
    print(f"  C, {what}: {len(took)} answered, {answers['failed']} failed, {', '.join(share)}, "
          f"longest {1000 * took[-1]:.1f} ms")  # fmt: skip


def measure(lab: Lab, changes: int, seconds: float) -> None:
    print("accounts:", lab.python("manager", MAKE))
    lab.wait(lab.is_quiet)
    write(lab, "aa", "slow.php", SLOW.format(seconds=seconds))
    write(lab, "cc", "fast.php", FAST)
    shards = lab.run("node1", "bash", "-c", "ls -d /etc/onehost/php/shard*/live/{aa,bb,cc}.*")
    print(f"pools: {' '.join(shards.split())}")
    told(ask(lab, QUIET_SECONDS), "nothing else going on")  # type: ignore[arg-type]
    slow = lab.start("client", "curl", "-s", "-m", str(seconds + 120), "-w", " %{http_code} after %{time_total} s",
                     "-H", "Host: aa.example.com", f"http://{ADDRESS}/slow.php")  # fmt: skip
    masters = lab.start("node1", "python3", "-c", MASTERS, str(seconds + 3))
    load = lab.start("client", "python3", "-c", ASK, ADDRESS, "cc.example.com", str(RATE), str(seconds - 2))
    time.sleep(1)
    states = lab.python("manager", CHANGE, str(changes), str((seconds - 4) / changes))
    print(f"B changed {changes} times within A's request: {states.count('applied')} applied")
    told(json.loads(load.communicate(timeout=200)[0]), "meanwhile")
    print(f"  A's request of {seconds:g} s: {slow.communicate(timeout=200)[0]}")
    print(f"  masters of PHP meanwhile: {masters.communicate(timeout=200)[0].strip()}")


def main() -> None:
    changes, seconds = (int(word) for word in (sys.argv[1:] + ["20", "30"][len(sys.argv) - 1 :]))
    lab = Lab("pools")
    lab.nodes = ["node1"]
    lab.ops("up", "1")
    try:
        lab.wait(lab.is_quiet, 60)
        measure(lab, changes, seconds)
    finally:
        lab.ops("down")


main()
