"""An SSH key on a node: its section in the key file of its account."""

from __future__ import annotations

from ..belonging import expect_account
from ..entry import Difference, Entry, Spec, View
from ..host import Host

_SSH = frozenset({"ssh"})
#: What a key for files alone is held to in an account with a shell; other accounts are held to it anyway.
SFTP_ONLY = 'restrict,command="internal-sftp -u 0027"'


def line(name: str, spec: Spec) -> str:
    """The line of authorized_keys, which ends in the key's name."""
    options = [f'from="{",".join(spec["from_networks"])}"'] if spec["from_networks"] else []
    options += [SFTP_ONLY] if spec["sftp_only"] else []
    return " ".join([*([",".join(options)] if options else []), spec["key"], name])


class SshKey:
    """Makes SSH keys real."""

    noun = "ssh_key"

    def compare(self, entry: Entry, host: Host, view: View) -> Difference:
        """See Reconciler."""
        is_, to_be = host.ssh.get(_account(entry), entry.id), _lines(entry)
        return {} if is_ == to_be else {"key": "changed" if is_ and to_be else "made" if to_be else "removed"}

    def prepare(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Raises Temporary while the account is not here."""
        if entry.spec is not None and entry.roles & _SSH:
            host.require(_SSH)
            expect_account(entry.spec["account"], entry.spec["account_id"], host, view)

    def stage(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler."""
        if entry.replaces:
            host.ssh.drop(_account(entry), entry.replaces)
        if entry.spec is not None and _lines(entry):
            host.ssh.put(_account(entry), entry.id, _lines(entry), entry.spec["account_id"])
        else:
            host.ssh.drop(_account(entry), entry.id)

    def finish(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. Whoever is in stays in: `account logout` ends sessions."""

    def verify(self, entry: Entry, host: Host, view: View) -> None:
        """See Reconciler. What sshd does with the file is the account's to prove."""


def _account(entry: Entry) -> str:
    """The account's name stands in the key's own name, also when it is to be removed."""
    return entry.name.partition(".")[0]


def _lines(entry: Entry) -> tuple[str, ...]:
    return (line(entry.name, entry.spec),) if entry.spec is not None and entry.roles & _SSH else ()


RECONCILER = SshKey()
