"""One minute on one node: which entries are due, and a process for each that tries to be the one to start it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import syslog
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...models import schedule
from ..host import book, files
from . import entry, running


@dataclass(frozen=True)
class Due:
    """An entry that is due, where its file is, and what its account is on this node."""

    owner: int
    file: str
    account: str
    uid: int
    gid: int
    #: Every entry of the account that this node knows.
    siblings: tuple[int, ...]


def run(root: Path, now: float | None = None) -> list[int]:
    """Starts a process for each entry that is due; gives their ids. They live on when this one ends."""
    if not (root / entry.SERVING.lstrip("/")).exists():
        return []
    minute = int((time.time() if now is None else now) // 60)
    node = os.uname().nodename
    found = _apart(lambda: [asdict(each) for each in due(root, minute)])
    waiting = [Due(**{**each, "siblings": tuple(each["siblings"])}) for each in found]
    started = [_start(root, each, minute, node) for each in in_order(waiting, node)]
    return [pid for pid in started if pid]


def due(root: Path, minute: int) -> list[Due]:
    """Entries whose time it is and whose account may run something here: it is there, the same, and not locked."""
    texts = [files.read(root / f"var/lib/extrausers/{name}") or b"" for name in ("passwd", "shadow", "group")]
    users = book.parse(*(text.decode() for text in texts)).users
    known = _entries(root / entry.FOLDER.lstrip("/") / "live")
    siblings: dict[int, list[int]] = {}
    for each in known.values():
        siblings.setdefault(each.account_id, []).append(each.owner)
    moment, found = datetime.fromtimestamp(minute * 60, UTC), []
    for file, each in known.items():
        user = users.get(each.account)
        if not each.enabled or not user or user.owner != each.account_id or user.locked:
            continue
        if schedule.parse(each.schedule).matches(moment):
            ids = tuple(sorted(siblings[each.account_id]))
            found.append(Due(each.owner, file, each.account, user.uid, user.gid, ids))
    return found


def in_order(waiting: Iterable[Due], node: str) -> list[Due]:
    """In an order of the node's own, so that nodes meet at few locks and share the work."""
    return sorted(waiting, key=lambda each: hashlib.sha256(f"{node}/{each.owner}".encode()).digest())


def _entries(folder: Path) -> dict[str, entry.CronEntry]:
    """The entries of this node by file. One that cannot be read is no reason to start no other."""
    found = {}
    with suppress(FileNotFoundError):
        for file in sorted(folder.resolve(strict=True).iterdir()):
            with suppress(OSError, ValueError):
                found[str(file)] = entry.parse(file.read_bytes())
    return found


def _apart(work: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What `work` gives, done in a process of its own: this one, whose children get tenants' rights, never holds
    anybody's hashes and commands."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "w") as pipe:
                json.dump(work(), pipe)
            code = 0
        except Exception as error:
            syslog.syslog(syslog.LOG_ERR | syslog.LOG_CRON, f"onehost-cron: {type(error).__name__}: {error}")
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit("error: the entries of this node could not be read")
    answer: list[dict[str, Any]] = json.loads(said)
    return answer


def _start(root: Path, each: Due, minute: int, node: str) -> int:
    """A process for the entry; 0 if one of an earlier minute still lives here, runs or hangs on dead storage."""
    alone = os.open(root / entry.RUN.lstrip("/") / str(each.owner), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(alone)
        return 0
    child = os.fork()
    if not child:
        # The lock is held by the child's copy of the descriptor until it ends.
        running.live(root, each.file, running.Rights(each.account, each.uid, each.gid), each.siblings, minute, node)
    os.close(alone)
    return child
