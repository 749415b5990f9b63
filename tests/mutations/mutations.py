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
BRAKE = "tests/unit/workers/test_brake.py"
PAUSE = "tests/integration/test_pause.py"
HOLD = "tests/integration/test_hold.py"
GRACE = "tests/integration/test_grace.py"
BATCHES = "tests/integration/test_batches.py"
BULK = "tests/integration/test_bulk.py"
RESTORE = "tests/integration/test_restore.py"
ACTIONS = "tests/integration/test_actions.py"

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
        "workers/entry.py",
        "if other > self.replaces:",
        "if other > self.replaces + (1 << 60):",
        ("tests/unit/workers/test_account.py",),
    ),
    Mutation(
        "each acknowledgement once",
        "producer/acknowledgements.py",
        "return [unique[each] for each in unique if each not in known]",
        "return [unique[each] for each in unique]",
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
        "if link(chain, position, body) != its_hash:",
        "if False:",
        (STORE,),
    ),
    Mutation(
        "a paused node is sent nothing",
        "producer/waiting.py",
        "or_(Pause.node_id == pause.EVERY, Pause.node_id == node_id)",
        "Pause.node_id == -1",
        (PAUSE,),
    ),
    Mutation(
        "a paused worker runs no round",
        "workers/executor.py",
        "        while self.is_paused and not stop.is_set():\n",
        "        while False:\n",
        (BRAKE,),
    ),
    Mutation(
        "the brake holds after a restart",
        "workers/brake.py",
        "WHERE name = 'paused' AND value = 'yes'",
        "WHERE name = 'none'",
        (BRAKE,),
    ),
    Mutation(
        "a missed brake is told again",
        "producer/presence.py",
        '        if beat["paused"] != is_pulled and ',
        "        if False and ",
        (PAUSE,),
    ),
    Mutation(
        "the hold counts one after the other",
        "producer/hold.py",
        '    if connection.dialect.name != "sqlite":\n',
        "    if False:\n",
        (HOLD,),
    ),
    Mutation(
        "a suspension counts as destroying",
        "models/nouns/account.py",
        'bool(spec["suspended"] and not before["suspended"])',
        "False",
        (HOLD,),
    ),
    Mutation(
        "a newer wish ends a held one",
        "producer/submit.py",
        "        hold.supersede(connection, resource_id, opened.job_id, now)\n",
        "        pass\n",
        (HOLD,),
    ),
    Mutation(
        "the last stage waits out the grace time",
        "producer/stages.py",
        " or (stage + 1 == last and grace.holds_back(job, now))",
        "",
        (GRACE,),
    ),
    Mutation(
        "a removal in grace keeps its password",
        "producer/submit.py",
        "keeps_secrets=grace_until_at is not None",
        "keeps_secrets=False",
        (GRACE,),
    ),
    Mutation(
        "the password goes with the last stage",
        "producer/stages.py",
        "            grace.forget_secrets(connection, job)\n",
        "            pass\n",
        (GRACE,),
    ),
    Mutation(
        "a name made again ends the grace time",
        "producer/submit.py",
        "grace.end_of(connection, replaces) if replaces else []",
        "[]",
        (GRACE,),
    ),
    Mutation(
        "too many failures halt a rolling change",
        "producer/stages.py",
        "    if count <= job.max_fail:\n",
        "    if True:\n",
        (BATCHES,),
    ),
    Mutation(
        "offline nodes hold no batch up",
        "producer/stages.py",
        " or t.state != states.NodeState.OFFLINE) for t in targets",
        " or True) for t in targets",
        (BATCHES,),
    ),
    Mutation(
        "what is taken back leaves the digest as it was",
        "models/store/engine.py",
        "        digests.put_back(connection, kept)\n",
        "        pass\n",
        (BULK,),
    ),
    Mutation(
        "old letters in the queue are listed at the start",
        "workers/sync.py",
        "self._uncovered |= set(Digest.parse(self._said).differing(self._ledger.digest))",
        "pass",
        ("tests/unit/workers/test_sync.py",),
    ),
    Mutation(
        "a clock behind the backup is refused",
        "producer/restore.py",
        "    if behind > CLOCK_BEHIND:\n",
        "    if False:\n",
        (RESTORE,),
    ),
    Mutation(
        "a restore begins a life of its own",
        "producer/lives.py",
        "life = max(_minutes(now), above + 1, 1)",
        "life = 1",
        (RESTORE,),
    ),
    Mutation(
        "uids wait until nodes have said theirs",
        "producer/numbers.py",
        "if not (life := incarnation(connection)):",
        "if life := incarnation(connection):",
        (RESTORE,),
    ),
    Mutation(
        "nodes say their highest uid",
        "producer/resync.py",
        "numbers.at_least(connection, kind, highest[kind])",
        "pass",
        (RESTORE,),
    ),
    Mutation(
        "a raise takes all placements along",
        "producer/resync.py",
        "which = [Placement.resource_id == resource_id, Placement.wanted > 0, Placement.wanted < generation]",
        "which = [Placement.resource_id == resource_id, Placement.wanted > generation]",
        (RESTORE,),
    ),
    Mutation(
        "a raise overtakes no stage",
        "producer/resync.py",
        "which.append(Placement.node_id.not_in([node_id for _, node_id in unopened]))",
        "pass",
        (RESTORE,),
    ),
    Mutation(
        "orphans count into what is expected",
        "producer/orphans.py",
        'found.add(each["id"], each["wanted"], each["outcome"])',
        "pass",
        (RESTORE,),
    ),
    Mutation(
        "a store without its new life refuses",
        "producer/numbers.py",
        "    if found < 0:\n",
        "    if False:\n",
        (RESTORE,),
    ),
    Mutation(
        "an action is never done twice",
        "workers/actions.py",
        "ON CONFLICT DO NOTHING",
        "ON CONFLICT DO UPDATE SET state = 'waiting'",
        (ACTIONS,),
    ),
    Mutation(
        "an action is marked before it is done",
        "workers/actions.py",
        "        self._ledger.actions.start(row)\n",
        "",
        (ACTIONS,),
    ),
    Mutation(
        "an action's acknowledgement moves no placement",
        "producer/acknowledgements.py",
        'new = [(node, ack) for node, ack in taken if ack["action"] is None]',
        "new = taken",
        (ACTIONS,),
    ),
)
