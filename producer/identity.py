"""The cluster's identity: made once, before the first node, so that no client ever sees another one."""

from __future__ import annotations

from ..models import host_keys
from ..models.errors import Conflict, NotFound
from ..models.nouns.identity import NAME, publics
from .client import Onehost

#: A client meets SSH at a virtual service with this role.
_SSH = "ssh"


def ensure(onehost: Onehost) -> bool:
    """Makes the identity if there is none. Returns whether it did."""
    try:
        onehost.get("identity", NAME)
    except NotFound:
        try:
            onehost.do("identity", NAME, "create")
        except Conflict:  # somebody else was quicker
            return False
        return True
    return False


def known_hosts(onehost: Onehost, names: tuple[str, ...] = ()) -> list[str]:
    """Lines of known_hosts: for these names; for none, for the cluster's name, its addresses for SSH and its nodes.

    Raises NotFound if there is no identity.
    """
    spec = onehost.get("identity", NAME)["spec"]
    places = [(name, 22) for name in names] or [
        *([(spec["host_name"], 22)] if spec["host_name"] else []),
        *((each["spec"]["address"], each["spec"]["port"]) for each in onehost.list("virtual_service")
          if each["spec"]["role"] == _SSH),
        *((each["spec"]["address"], 22) for each in onehost.list("node") if _SSH in each["spec"]["roles"]),
    ]  # fmt: skip
    return [*host_keys.known_hosts(places, publics(spec))] if places else []


def sshfp(onehost: Onehost, names: tuple[str, ...] = ()) -> list[str]:
    """SSHFP records for these names; for none, for the cluster's name. Raises NotFound if there is no identity."""
    spec = onehost.get("identity", NAME)["spec"]
    hosts = names or ((spec["host_name"],) if spec["host_name"] else ())
    return [record for host in hosts for record in host_keys.sshfp(host, publics(spec))]
