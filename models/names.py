"""Names checked hard and spelled one way: accounts, nodes, domains, SSH keys, password hashes, document roots."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import idna
from marshmallow import ValidationError

from .errors import Invalid, Refused

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

ACCOUNT = re.compile(r"[a-z][a-z0-9]{1,15}")
NODE = re.compile(r"[a-z][a-z0-9-]{0,39}")
PLAN = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
#: What belongs to an account and is no name of the net: the account, a dot, a word.
OWNED = re.compile(r"([a-z][a-z0-9]{1,15})\.[a-z0-9][a-z0-9-]{0,39}")
#: What stands in passwd and group of a stock Debian with the daemons we use, and words that must not be logins.
RESERVED = frozenset(
    """root daemon bin sys sync games man lp mail news uucp proxy www data backup list irc gnats nobody apt messagebus
    sshd systemd tss sudo adm tty disk dialout fax voice cdrom floppy tape audio dip operator src shadow utmp video
    sasl plugdev staff users nogroup input sgx kvm render crontab ssl postfix postdrop dovecot dovenull proftpd ftp
    rabbitmq postgres mysql mariadb haproxy pdns powerdns keepalived redis memcache nginx apache httpd www1 statd
    rpc nfs bind named dnsmasq ntp ntpsec chrony epmd uuidd avahi polkitd sssd munin nagios zabbix admin administrator
    onehost manager cluster localhost postmaster hostmaster webmaster abuse security test guest support info home
    lost trash quota tmp log logs web http https smtp imap pop pop3 sftp ssh telnet anonymous toor halt shutdown""".split()
)
#: Kinds of SSH keys that are taken, with the shortest length of the decoded key in bytes.
SSH_KEYS = {
    "ssh-ed25519": 51,
    "sk-ssh-ed25519@openssh.com": 60,
    "ecdsa-sha2-nistp256": 104,
    "ecdsa-sha2-nistp384": 136,
    "ecdsa-sha2-nistp521": 172,
    "ssh-rsa": 279,
}
#: sha512-crypt with an optional number of rounds, and yescrypt, as crypt(5) spells them.
HASH = re.compile(
    r"\$6\$(rounds=[0-9]{4,9}\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{86}|\$y\$[./0-9A-Za-z]+\$[./0-9A-Za-z]{1,86}\$[./0-9A-Za-z]{43}"
)


def account(name: str) -> str:
    """An account's name: 2 to 16 of a-z and 0-9, a letter first, no system name. Raises Invalid."""
    if not isinstance(name, str) or not ACCOUNT.fullmatch(name):
        raise Invalid(f"account name {name!r} must be 2 to 16 of a-z and 0-9, a letter first")
    if name in RESERVED:
        raise Invalid(f"account name {name!r} is reserved for the system", hint="choose another name")
    return name


def owned(name: str) -> str:
    """A name such as alice.backup, so that every account has names of its own. Raises Invalid."""
    if not isinstance(name, str) or not OWNED.fullmatch(name):
        raise Invalid(f"name {name!r} must be its account, a dot, and 1 to 40 of a-z, 0-9 and '-': alice.backup")
    return name


def check_owner(name: str, spec: Mapping[str, Any] | None) -> None:
    """Raises Refused if a name such as alice.backup does not begin with the account that the spec names."""
    if spec is not None and name.partition(".")[0] != spec["account"]:
        raise Refused(
            f"{name} cannot belong to account {spec['account']}", hint=f"{spec['account']}.{name.partition('.')[2]}"
        )


def node(name: str) -> str:
    """A node's name: 1 to 40 of a-z, 0-9 and hyphen, a letter first; no dot, since keys are split at dots."""
    if not isinstance(name, str) or not NODE.fullmatch(name):
        raise Invalid(f"node name {name!r} must be 1 to 40 of a-z, 0-9 and '-', a letter first")
    return name


def plan(name: str) -> str:
    """A plan's name: 1 to 40 of a-z, 0-9 and hyphen. Raises Invalid."""
    if not isinstance(name, str) or not PLAN.fullmatch(name):
        raise Invalid(f"plan name {name!r} must be 1 to 40 of a-z, 0-9 and '-', no hyphen first")
    return name


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def domain(text: str) -> str:
    """The A-label spelling of a domain (UTS 46 mapping, IDNA 2008). Raises ValidationError; refuses public suffixes."""
    if not isinstance(text, str) or len(text) > 253:
        raise ValidationError("is not a domain")
    try:
        name = idna.encode(text.removesuffix("."), uts46=True, std3_rules=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise ValidationError(f"{text!r} is not a domain: {error}") from None
    if "." not in name or len(name) > 253 or re.fullmatch(r"[0-9.]+", name) or name.endswith((".localhost", ".local")):
        raise ValidationError(f"{text!r} is not a domain of the public name space")
    if _suffixes().privatesuffix(name) is None:
        raise ValidationError(f"{text!r} is a public suffix; nobody may own it")
    return name


def parents(domain: str) -> list[str]:
    """The domains above one, nearest first, as far as somebody may own them."""
    labels = domain.split(".")
    above = [".".join(labels[at:]) for at in range(1, len(labels))]
    return [name for name in above if _suffixes().privatesuffix(name) is not None]


def folder_of(domain: str) -> str:
    """The folder below a home that a domain shows where nobody said which."""
    return domain[:63].rstrip(".-")


def ssh_key(line: str) -> str:
    """One line of authorized_keys without options, its comment dropped. Raises ValidationError."""
    parts = line.split() if isinstance(line, str) and "\n" not in line.strip("\n") and "\r" not in line else []
    if len(parts) < 2 or parts[0] not in SSH_KEYS:
        raise ValidationError(f"is not an SSH public key; known kinds: {', '.join(SSH_KEYS)}")
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):
        raise ValidationError("is not an SSH public key: its base64 is damaged") from None
    kind = parts[0].encode()
    # RFC 4253 section 6.6: the blob begins with the kind as a length-prefixed string.
    if blob[: 4 + len(kind)] != len(kind).to_bytes(4, "big") + kind or len(blob) < SSH_KEYS[parts[0]]:
        raise ValidationError("is not an SSH public key: it is cut short or of another kind than it says")
    return f"{parts[0]} {parts[1]}"


def network(text: str) -> str:
    """An address or a network in its shortest spelling, such as 10.0.0.0/8. Raises ValidationError."""
    try:
        # A scope (fe80::1%eth0) may hold anything.
        found = ipaddress.ip_network(text if "%" not in text else "")
    except (TypeError, ValueError):
        raise ValidationError(f"{text!r} is not an IP address or network, such as 192.0.2.7 or 10.0.0.0/8") from None
    return str(found.network_address) if found.num_addresses == 1 else str(found)


def command(text: str) -> str:
    """One line for a shell: printable, so no control and no bidirectional character. Raises ValidationError."""
    if (
        not isinstance(text, str)
        or not text.strip()
        or len(text.encode(errors="replace")) > 1000
        or not text.isprintable()
    ):
        raise ValidationError("must be one line of at most 1000 bytes without control characters")
    return text


def password_hash(text: str) -> str:
    """A sha512-crypt or yescrypt hash. Raises ValidationError; the text is never repeated in the message."""
    if not isinstance(text, str) or not HASH.fullmatch(text):
        raise ValidationError("must be a sha512-crypt ($6$) or yescrypt ($y$) hash")
    return text


def document_root(text: str) -> str:
    """A path below the home, spelled without doubled dots or slashes. Raises ValidationError."""
    parts = text.split("/") if isinstance(text, str) else []
    if (
        not parts
        or len(text) > 200
        or ".." in text
        or any(not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", part) for part in parts)
    ):
        raise ValidationError(
            "must be a path below the home of letters, digits, '_', '-' and '.', such as web or sites/main"
        )
    return text


def address(text: str) -> str:
    """An IPv4 or IPv6 address in its shortest spelling. Raises ValidationError."""
    try:
        # A scope (fe80::1%eth0) may hold anything, and ends at the machine that gave it.
        found = ipaddress.ip_address(text if "%" not in text else "")
    except (TypeError, ValueError):
        raise ValidationError(f"{text!r} is not an IP address") from None
    if found.is_unspecified or found.is_multicast:
        raise ValidationError(f"{text!r} cannot be an address of a machine")
    return str(found)
