"""Reads a trace of a worker's calls (strace -f -y): what happened between a letter's arrival and its settlement.

The bytes of each socket are put together again and read as AMQP frames, so that a settlement is tied to the deliveries
that it settles.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Thread, and what it did.
LINE = re.compile(r"(?P<thread>\d+) +(?P<call>.*)")
UNFINISHED = " <unfinished ...>"
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<rest>.*)")
TRAFFIC = re.compile(r'(?P<way>recvfrom|sendto)\(\d+<(?P<socket>[^>]*)>, ?"(?P<data>(?:[^"\\]|\\.)*)"')
METHOD, BODY = 1, 3
DELIVER, SETTLE = (60, 60), (60, 80)


def letter(path: Path, name: str) -> list[str]:
    """What became of the first letter about a resource, from its "arrived" to its "settled", by the receiving thread.

    Between them each "written" (to the ledger's log) and "durable" (a good sync that began after that).
    """
    story: list[str] = []
    wanted, receiver = 0, ""
    for thread, what, tag, body in _events(path):
        if not story and what == "arrived" and f'"name":"{name}"'.encode() in body:
            story, wanted, receiver = ["arrived"], tag, thread
        elif not story or thread != receiver:
            continue
        elif what == "settled" and tag >= wanted:
            return [*story, "settled"]
        elif what == "written" or (what == "durable" and "written" in story):
            story.append(what)
    return story


def _events(path: Path) -> Iterator[tuple[str, str, int, bytes]]:
    """(thread, what, delivery tag, body) in the order of the trace."""
    streams: dict[tuple[str, str], _Frames] = defaultdict(_Frames)
    for thread, call in _calls(path):
        if traffic := TRAFFIC.match(call):
            data = traffic["data"].encode("latin1").decode("unicode_escape").encode("latin1")
            for what, tag, body in streams[traffic["way"], traffic["socket"]].more(data):
                yield thread, what, tag, body
        elif ".ledger-wal>" in call and call.startswith("pwrite64("):
            yield thread, "written", 0, b""
        elif ".ledger-wal>" in call and call.startswith("fdatasync(") and call.endswith("= 0"):
            yield thread, "durable", 0, b""


def _calls(path: Path) -> Iterator[tuple[str, str]]:
    """(thread, call), a call that others interrupted in one piece: sent when it began, anything else when it ended."""
    begun: dict[str, str] = {}
    for line in path.read_text(errors="replace").splitlines():
        match = LINE.match(line)
        if not match:
            continue
        thread, call = match["thread"], match["call"]
        if call.endswith(UNFINISHED):
            begun[thread] = call.removesuffix(UNFINISHED)
            if call.startswith("sendto"):
                yield thread, begun[thread]
        elif resumed := RESUMED.match(call):
            start = begun.pop(thread, "")
            if not start.startswith("sendto"):
                yield thread, start + resumed["rest"]
        else:
            yield thread, call


@dataclass
class _Frames:
    """The frames of one direction of a connection."""

    data: bytes = b""
    tag: int = 0
    body: bytes = field(default=b"")

    def more(self, data: bytes) -> Iterator[tuple[str, int, bytes]]:
        """Deliveries and settlements that are complete now."""
        self.data += data
        if self.data.startswith(b"AMQP"):
            self.data = self.data[8:]
        while len(self.data) >= 8:
            kind, _, size = struct.unpack_from(">BHI", self.data)
            if len(self.data) < size + 8:
                return
            payload, self.data = self.data[7 : size + 7], self.data[size + 8 :]
            if kind == METHOD:
                method = struct.unpack_from(">HH", payload)
                if method == DELIVER:
                    (self.tag,) = struct.unpack_from(">Q", payload, 5 + payload[4])
                elif method == SETTLE:
                    yield "settled", struct.unpack_from(">Q", payload, 4)[0], b""
            elif kind == BODY and self.tag:
                # A letter is smaller than a frame.
                yield "arrived", self.tag, payload
