"""Apache's modules, set as a2enmod would: what sites need, and nothing that leads out of an account."""

from __future__ import annotations

import re

from . import files
from .machine import Machine
from .owned import Finding

_ENABLED = "/etc/apache2/mods-enabled"
MODULES = (
    "access_compat alias auth_basic authn_core authn_file authz_core authz_host authz_user deflate dir env expires "
    "filter headers mime mpm_event negotiation proxy proxy_fcgi reqtimeout rewrite setenvif socache_shmcb ssl"
).split()
#: Modules that lead out of an account, show others' requests, or run code as Apache's user. Lua is loaded by us, last.
FORBIDDEN = (
    "actions asis authn_dbd authnz_ldap autoindex cgi cgid dav dav_fs dav_lock dbd ext_filter imagemap include info "
    "ldap lua mpm_prefork mpm_worker php proxy_ajp proxy_balancer proxy_connect proxy_express proxy_fdpass proxy_ftp "
    "proxy_http proxy_http2 proxy_scgi proxy_uwsgi proxy_wstunnel status suexec userdir vhost_alias"
).split()
#: Debian's own that would come before or beside ours: a site, a second log, an alias that hides each site's /icons.
REMOVED = (
    "/etc/apache2/sites-enabled/000-default.conf",
    "/etc/apache2/conf-enabled/other-vhosts-access-log.conf",
    "/etc/apache2/mods-enabled/alias.conf",
)


def wrong(machine: Machine, daemon: str) -> list[Finding]:
    """What `settle` would change. A module whose link was taken away, or one that leads out of an account."""
    missing, unwanted = _differences(machine)
    return [Finding("content", "is missing", name, daemon=daemon) for name in missing] + [
        Finding("stranger", "is not allowed here", name, daemon=daemon) for name in unwanted
    ]


def settle(machine: Machine) -> bool:
    """Enables what is needed and removes what is forbidden or in the way. Returns whether anything changed."""
    machine.path(_ENABLED).mkdir(parents=True, exist_ok=True)
    missing, unwanted = _differences(machine)
    for name in missing:
        files.link(machine.path(name), f"../mods-available/{name.rpartition('/')[2]}")
    for name in unwanted:
        files.remove(machine.path(name))
    return bool(missing or unwanted)


def _differences(machine: Machine) -> tuple[list[str], list[str]]:
    """Links that are missing, and files that must go."""
    places = [f"{_ENABLED}/{module}.{suffix}" for module in MODULES for suffix in ("load", "conf")]
    available = {place: machine.path(place.replace("mods-enabled", "mods-available")) for place in places}
    missing = [place for place in places
               if place not in REMOVED and available[place].exists() and not machine.path(place).exists()]  # fmt: skip
    enabled = machine.path(_ENABLED)
    links = sorted(enabled.iterdir()) if enabled.is_dir() else []
    forbidden = [f"{_ENABLED}/{link.name}" for link in links
                 if link.stem in FORBIDDEN or re.fullmatch(r"php[\d.]+", link.stem)]  # fmt: skip
    there = [name for name in REMOVED if machine.path(name).is_symlink() or machine.path(name).exists()]
    return missing, list(dict.fromkeys([*forbidden, *there]))
