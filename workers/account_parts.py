"""What an account is to have on a node, by the node's roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .entry import Entry, Spec
from .host.book import NO_PASSWORD, User
from .host.ftp_rows import FtpLogin
from .host.pool import Pool
from .host.site import Site, memory_file


@dataclass(frozen=True)
class Wanted:
    """The parts that an account is to have on one node. None: not that part."""

    user: User | None = None
    keys: tuple[str, ...] = ()
    ftp: FtpLogin | None = None
    pool: Pool | None = None
    site: Site | None = None
    #: Its files for Apache: those of the site, and its limit of memory.
    web: Mapping[str, bytes] = field(default_factory=dict)
    #: All of its sites answer with the notice, those of its further domains too.
    notice: bool = False
    home: bool = False
    #: Relative to /home/NAME/home; None if no site needs one.
    document_root: str | None = None
    suspended: bool = False


def wanted(entry: Entry) -> Wanted:
    """What the spec means for a node of the entry's roles. A removal wants nothing."""
    spec = entry.spec
    if spec is None:
        return Wanted()
    web, ssh, ftp = ("web" in entry.roles, "ssh" in entry.roles, "ftp" in entry.roles)
    uid, gid, domain, suspended = spec["uid"], spec["gid"], spec["domain"], spec["suspended"]
    password = spec["password_hash"] or NO_PASSWORD
    access = access_of(spec) if ssh and not suspended else "none"
    site = site_of(entry, spec) if web and domain else None
    memory = memory_file(entry.name, entry.id, spec.get("memory_mib")) if web else {}
    return Wanted(
        user=User(entry.id, entry.name, uid, gid, password, access, locked=suspended) if web or ssh or ftp else None,
        keys=tuple(spec["ssh_keys"]) if ssh else (),
        ftp=_ftp(entry, spec) if ftp else None,
        pool=_pool(entry, spec) if web and spec["php"] else None,
        site=site,
        web={**(site.render() if site else {}), **memory},
        notice=web and suspended,
        home="storage" in entry.roles,
        document_root=spec["document_root"] if domain else None,
        suspended=suspended,
    )


def _ftp(entry: Entry, spec: Spec) -> FtpLogin | None:
    """The account's own login; none without a password. Its being suspended locks this row like all others of it."""
    if not spec.get("ftp", True) or not spec["password_hash"]:
        return None
    return FtpLogin(entry.id, entry.name, entry.name, spec["uid"], spec["gid"], spec["password_hash"])


def access_of(spec: Spec) -> str:
    """The access that is wanted, as far as its limits allow it."""
    wanted: str = spec["access"]
    return "sftp" if wanted == "shell" and spec.get("shell") is False else wanted


def _pool(entry: Entry, spec: Spec) -> Pool:
    limits = spec.get("php_processes"), spec.get("memory_mib")
    return Pool(entry.id, entry.name, spec["uid"], spec["gid"], spec["shard"], *limits)


def site_of(entry: Entry, spec: Spec) -> Site:
    """The site of its primary domain."""
    return Site(entry.id, entry.name, entry.id, spec["domain"], spec["document_root"], spec["php"])
