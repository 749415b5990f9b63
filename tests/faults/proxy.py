"""A TCP proxy between a process and the broker that breaks the network on purpose, per link and per direction.

Whatever it does is said by a `Rule`; where a rule needs chance, the proxy's seed decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Literal

CHUNK = 65536
Direction = Literal["up", "down"]


@dataclass(frozen=True)
class Rule:
    """What happens to bytes of one direction ("up": to the broker)."""

    #: Seconds each piece is held back, and how much more by chance.
    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    #: Bytes a second; 0: as fast as it goes.
    rate: int = 0
    #: After so many bytes, counted from when the rule was set, the connection is cut with a reset.
    cut_after: int | None = None
    #: Nothing passes. The bytes wait, as a network's own retransmission would have it.
    hole: bool = False
    #: Everything is swallowed: the other side is thought to be there and is not.
    half_open: bool = False


@dataclass
class Link:
    """One port of the proxy and the connections through it."""

    name: str
    port: int
    server: asyncio.Server | None = None
    rules: dict[Direction, Rule] = field(default_factory=lambda: {"up": Rule(), "down": Rule()})
    passed: dict[Direction, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: Connections cut by a rule.
    cuts: int = 0


class Proxy:
    """Links from local ports to one target; an event loop on a thread of its own."""

    def __init__(self, target: int, seed: object) -> None:
        self.target = target
        self.links: dict[str, Link] = {}
        self._chance = random.Random(str(seed))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def link(self, name: str) -> int:
        """Opens a link; its port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self.links[name] = Link(name, port)
        self.up(name)
        return port

    def set(self, name: str, up: Rule | None = None, down: Rule | None = None) -> None:
        """Sets the rules of a link, for connections that stand and those to come. None: nothing is broken."""

        async def act() -> None:
            link = self.links[name]
            link.rules = {"up": up or Rule(), "down": down or Rule()}
            link.passed = {"up": 0, "down": 0}
            link.changed.set()
            link.changed = asyncio.Event()

        self._do(act())

    def heal(self) -> None:
        """Nothing is broken any more."""
        for name in self.links:
            self.set(name)
            self.up(name)

    def down(self, name: str) -> None:
        """The link is down: what stands is reset, what comes is refused."""

        async def act() -> None:
            link = self.links[name]
            if link.server:
                link.server.close()
                link.server = None
            for pair in list(link.pairs):
                self._cut(link, pair)

        self._do(act())

    def up(self, name: str) -> None:
        """The link takes connections again."""

        async def act() -> None:
            link = self.links[name]
            if link.server is None:
                link.server = await asyncio.start_server(lambda r, w: self._serve(link, r, w), "127.0.0.1", link.port)

        self._do(act())

    def close(self) -> None:
        for name in self.links:
            self.down(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, act: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(act, self._loop).result(10)

    async def _serve(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        link.pairs.add(pair)
        pumps = [asyncio.ensure_future(self._pump(link, pair, "up", reader, far_writer)),
                 asyncio.ensure_future(self._pump(link, pair, "down", far_reader, writer))]  # fmt: skip
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._cut(link, pair)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, link: Link, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter], way: Direction,
                    reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # fmt: skip
        with contextlib.suppress(OSError):
            while data := await self._read(link, way, reader):
                rule = link.rules[way]
                while rule.hole:
                    await link.changed.wait()
                    rule = link.rules[way]
                if rule.delay_seconds or rule.jitter_seconds:
                    await asyncio.sleep(rule.delay_seconds + rule.jitter_seconds * self._chance.random())
                if rule.cut_after is not None and link.passed[way] + len(data) >= rule.cut_after:
                    writer.write(data[: max(0, rule.cut_after - link.passed[way])])
                    # The next connection starts whole: a cut happens once.
                    link.rules[way] = replace(rule, cut_after=None)
                    link.cuts += 1
                    await asyncio.sleep(0.01)
                    return
                link.passed[way] += len(data)
                if not rule.half_open:
                    writer.write(data)
                    await writer.drain()
                if rule.rate:
                    await asyncio.sleep(len(data) / rule.rate)

    async def _read(self, link: Link, way: Direction, reader: asyncio.StreamReader) -> bytes:
        rate = link.rules[way].rate
        data = await reader.read(max(1, rate // 20) if rate else CHUNK)
        while not data and link.rules[way].half_open:
            # The far end is gone and nobody is told.
            await link.changed.wait()
        return data

    def _cut(self, link: Link, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        link.pairs.discard(pair)
        for writer in pair:
            if sock := writer.get_extra_info("socket"):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
