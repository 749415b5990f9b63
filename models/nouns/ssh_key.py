"""An SSH key: one public key that lets its holder into an account, on every node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from marshmallow import fields
from marshmallow.validate import Length

from .. import host_keys
from ..errors import Refused
from .fields import Network, SshKey, YesNo
from .noun import Claim, Noun, Option, Spec, Stage, Surroundings, Verb, delete
from .owned import OWNER, NamedInAccount, OfAccountSchema


class SshKeySchema(OfAccountSchema):
    """The spec of an SSH key."""

    key = SshKey(required=True)
    from_networks = fields.List(Network(), load_default=list, validate=Length(max=20))
    sftp_only = YesNo(load_default=False)


OPTIONS = (
    Option("from_networks", "Takes it only from this address or network; may be given again.", "list"),
    Option("sftp_only", "Lets transfer files, and nothing else.", "yes_no"),
)
KEY = Option("key", "The public key, as it stands in a .pub file.")


class SshKeyNoun(NamedInAccount):
    """See the module."""

    name = "ssh_key"
    plural = "ssh_keys"
    schema = SshKeySchema
    limit = "ssh_keys"
    columns = ("account", "key", "from_networks", "sftp_only")
    order = 45
    verbs = (
        Verb(
            "create",
            "Let the holder of a key into an account.",
            'create alice.laptop alice "$(cat id_ed25519.pub)" --from-networks 192.0.2.0/24',
            options=(
                OWNER,
                Option("key", KEY.help, required=True, positional=True),
                *OPTIONS,
            ),
            makes=True,
        ),
        Verb("set", "Change the key, or its limits.", "set alice.laptop --sftp-only", options=(KEY, *OPTIONS)),
        delete("Take the key away.", "alice.laptop"),
    )

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        super().check(name, spec, before, around)
        owner = around.owner("account", spec["account"]) if spec else None
        if spec and owner and spec["key"] in owner[1]["ssh_keys"]:
            raise Refused(f"the key stands in the list of account {spec['account']} already",
                          hint=f"onehost account set {spec['account']} --ssh-keys FILE")  # fmt: skip

    def claims(self, name: str, spec: Spec) -> Iterable[Claim]:
        yield Claim("ssh key", f"{spec['account']} {host_keys.fingerprint(spec['key'])}")

    def urgent(self, spec: Spec | None, applied: object) -> bool:
        # A key that is changed or limited may be a stolen one.
        return True

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"ssh"}), waits_for_all=False),)


NOUN: Noun = SshKeyNoun()
