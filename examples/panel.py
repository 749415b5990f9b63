#!/usr/bin/env python3
"""A panel has sold an account: it asks for it, waits, says which nodes lack it, and asks the audit log who did what.

Run on the manager as a user who may read the store. Exit status: 0 all nodes have it, 1 some lack it, else why not.
"""

import sys

from onehost.models.errors import OnehostError
from onehost.producer import Onehost


def main() -> int:
    """Safe to run again: the same order gives the same job."""
    with Onehost(actor="panel:example") as onehost:
        receipt = onehost.account_create(
            "paula", domain="paula.example.com", reason="order 4711", idempotency_key="order-4711"
        )
        job = onehost.wait(receipt, seconds=30)
        print(f"account {receipt.name}: {job['state']} on {job['applied']} of {job['targets']} nodes")
        missing = [node for node in job["nodes"] if node["state"] != "applied"]
        for node in missing:
            print(f"  missing on {node['node']} ({node['node_state']}): {node['reason'] or node['state']}")
        for event in onehost.history("account", receipt.name):
            print(f"  {event['at'][:19]}Z {event['kind']} by {event['actor']}: {event['outcome']}")
        return 1 if missing else 0


try:
    sys.exit(main())
except OnehostError as error:
    print(f"error: {error.what}", file=sys.stderr)
    sys.exit(error.exit_code)
