"""Each safeguard of the bus, and how it is taken away: the text that carries it, what stands there, who notices.

A mutation is a replacement in one file. The tests named are those that are meant to fail then; they are run in order.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One safeguard taken away."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


PUBLISHER = "tests/integration/test_publisher.py"
AUDIT = "tests/integration/test_audit_rules.py"
WALK = "tests/integration/test_walk.py"
LEDGER = "tests/unit/workers/test_ledger.py"
STORE = "tests/integration/test_store.py"
SIMULATION = "tests/simulation"

MUTATIONS = (
    Mutation("mandatory", "broker_config/publisher.py", "mandatory=True", "mandatory=False", (PUBLISHER,)),
    Mutation(
        "confirms",
        "broker_config/publisher.py",
        "        while len(self._confirms):\n            self._wait(patience)\n",
        "        self._confirms.settle(1 << 60, multiple=True, accepted=True)\n",
        (PUBLISHER,),
    ),
    Mutation(
        "upsert if newer",
        "workers/ledger.py",
        'if old is not None and old["wanted"] >= letter["generation"]:',
        'if old is not None and old["wanted"] == letter["generation"]:',
        (LEDGER, SIMULATION),
    ),
    Mutation(
        "a name made again waits for the old one",
        "workers/ledger.py",
        "AND o.id < e.id\n         AND o.done < o.wanted)",
        "AND o.id < e.id\n         AND o.done < o.wanted AND 0)",
        (LEDGER, SIMULATION),
    ),
    Mutation(
        "a name made again replaces no orphan",
        "workers/reconcilers/account.py",
        "> entry.replaces",
        "> entry.replaces + (1 << 60)",
        ("tests/unit/workers/test_account.py",),
    ),
    Mutation(
        "each acknowledgement once",
        "producer/audit.py",
        "return [unique[each] for each in keys if each not in known]",
        "return [unique[each] for each in keys]",
        (AUDIT, SIMULATION),
    ),
    Mutation(
        "no round before hello is covered",
        "workers/executor.py",
        "        self._wait_for_manager(stop)\n        self._ready()",
        "        self._ready()",
        ("tests/unit/workers/test_executor.py", WALK, SIMULATION),
    ),
    Mutation(
        "the seal chains",
        "producer/seal.py",
        'b"%s\\n%d\\n%s\\n" % (before.encode(), position, body)',
        'b"%d\\n%s\\n" % (position, body)',
        (STORE,),
    ),
    Mutation(
        "the seal is looked at",
        "producer/seal.py",
        "if link(chain, position, body) != row.hash:",
        "if False:",
        (STORE,),
    ),
)
