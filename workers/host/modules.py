"""Apache's modules, set as a2enmod would: what sites need, and nothing that leads out of an account."""

from __future__ import annotations

import re

from . import files
from .machine import Machine

_ENABLED = "/etc/apache2/mods-enabled"
MODULES = (
    "access_compat alias auth_basic authn_core authn_file authz_core authz_host authz_user deflate dir env expires "
    "filter headers mime mpm_event negotiation proxy proxy_fcgi reqtimeout rewrite setenvif"
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


def settle(machine: Machine) -> bool:
    """Enables what is needed and removes what is forbidden or in the way. Returns whether anything changed."""
    enabled, changed = machine.path(_ENABLED), False
    enabled.mkdir(parents=True, exist_ok=True)
    for module in MODULES:
        for suffix in ("load", "conf"):
            link = enabled / f"{module}.{suffix}"
            available = machine.path(f"/etc/apache2/mods-available/{module}.{suffix}")
            if available.exists() and not link.exists() and f"{_ENABLED}/{link.name}" not in REMOVED:
                files.link(link, f"../mods-available/{link.name}")
                changed = True
    forbidden = [link for link in enabled.iterdir() if link.stem in FORBIDDEN or re.fullmatch(r"php[\d.]+", link.stem)]
    for path in [*forbidden, *(machine.path(name) for name in REMOVED)]:
        if path.is_symlink() or path.exists():
            files.remove(path)
            changed = True
    return changed
