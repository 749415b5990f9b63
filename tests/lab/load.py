"""Runs inside a machine: asks ADDRESS PORT HOST[,HOST ...] PATH, RATE times a second for SECONDS, a connection each.

Prints JSON: how many were answered with 200, by which answer, and what failed.
"""

from __future__ import annotations

import collections
import json
import socket
import sys
import threading
import time


def ask(address: str, port: int, host: str, path: str, source: str) -> str:
    where = (source, 0) if source else None
    with socket.create_connection((address, port), timeout=10, source_address=where) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while block := client.recv(65536):
            answer += block
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(answer[:60].decode(errors="replace") or "nothing")
    return answer.partition(b"\r\n\r\n")[2].decode(errors="replace")


def main() -> None:
    address, port, host, path, rate, seconds, *sources = sys.argv[1:]
    hosts = host.split(",")
    answers: collections.Counter[str] = collections.Counter()
    failed: list[str] = []
    lock = threading.Lock()

    def one(number: int) -> None:
        try:
            said = ask(
                address, int(port), hosts[number % len(hosts)], path, sources[number % len(sources)] if sources else ""
            )
        except (OSError, ValueError) as error:
            with lock:
                failed.append(f"{time.monotonic() - began:.3f} {type(error).__name__}: {error}")
            return
        with lock:
            answers[said] += 1

    began = time.monotonic()
    threads = []
    for number in range(int(float(rate) * float(seconds))):
        time.sleep(max(0.0, began + number / float(rate) - time.monotonic()))
        threads.append(thread := threading.Thread(target=one, args=(number,)))
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"answered": sum(answers.values()), "answers": dict(answers.most_common(10)), "failed": failed}))


if __name__ == "__main__":
    main()
