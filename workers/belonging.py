"""What a resource that belongs to an account asks of the account on this node."""

from __future__ import annotations

from ..models.errors import Temporary
from .entry import View
from .host import Host


def expect_account(name: str, account_id: int, host: Host, view: View) -> None:
    """Raises Temporary unless the account has the name here, or comes with this round.

    Nothing may be given to whoever had the name before.
    """
    user = host.users.get(name)
    if user and user.owner == account_id:
        return
    if user is None and any(each.id == account_id for each in view.all("account")):
        return
    raise Temporary(f"account {name} of id {account_id} is not on this node yet")
