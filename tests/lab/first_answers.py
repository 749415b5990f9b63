"""Runs in the client: asks ADDRESS for each HOST over and over; prints the statuses of the answers it got, in order."""

from __future__ import annotations

import json
import socket
import sys
import time

address, seconds, *hosts = sys.argv[1:]
answers: dict[str, list[str]] = {host: [] for host in hosts}
until = time.monotonic() + float(seconds)
while time.monotonic() < until:
    for host in hosts:
        try:
            with socket.create_connection((address, 80), timeout=2) as client:
                client.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                status = client.recv(64).split(b" ")[1].decode()
        except (OSError, IndexError):
            continue
        if not answers[host] or answers[host][-1] != status:
            answers[host].append(status)
    time.sleep(0.01)
print(json.dumps(answers))
