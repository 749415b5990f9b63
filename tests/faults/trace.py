"""Reads a trace of a worker's calls (strace -f -y): what happened between a letter's arrival and its settlement."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

#: A method frame of AMQP: class 60 (basic), method 80 (ack, our "settle").
SETTLE = r'"\\1\\0\\1\\0\\0\\0\\r\\0<\\0P'
#: Thread, and what it did.
LINE = re.compile(r"(?P<thread>\d+) +(?P<call>.*)")


def settlement(path: Path, name: str) -> list[str]:
    """From the arrival of the first letter about `name`: writes to the ledger's log that it holds, syncs, settlement.

    Words: "written", "durable" (an fdatasync that began after the write has returned 0), "settled". Ends with the
    first settlement.
    """
    story: list[str] = []
    has_arrived, started = False, set[str]()
    for thread, call in _calls(path):
        if call.startswith("recvfrom") and f'\\"name\\":\\"{name}\\"' in call:
            has_arrived = True
        elif not has_arrived:
            continue
        elif call.startswith("pwrite64") and ".ledger-wal>" in call and name in call:
            story.append("written")
        elif call.startswith("fdatasync(") and ".ledger-wal>" in call:
            if "written" in story:
                started.add(thread)
            if call.endswith("= 0") and thread in started:
                story.append("durable")
        elif "fdatasync resumed" in call and call.endswith("= 0") and thread in started:
            story.append("durable")
        elif call.startswith("sendto") and re.search(SETTLE, call):
            return [*story, "settled"]
    return story


def _calls(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(errors="replace").splitlines():
        if match := LINE.match(line):
            yield match["thread"], match["call"]
