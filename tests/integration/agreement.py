"""What must be true of a little cluster at rest: nodes hold what the store wants, and did nothing twice."""

from __future__ import annotations

from .conftest import Cluster, wait_until


def is_settled(cluster: Cluster) -> bool:
    status = cluster.onehost.status()
    return bool(not status["placements_open"] and not status["jobs_running"])


def agree(cluster: Cluster) -> None:
    """Every node holds what the store wants, and the audit store holds together."""
    wanted = {row["name"]: row for row in cluster.onehost.list("account")}
    for name, recorders in cluster.recorders.items():
        state = recorders["account"].state
        assert state.keys() == wanted.keys(), name
        for account, (held, spec) in state.items():
            assert held == wanted[account]["id"]
            assert {key: value for key, value in spec.items() if key != "password_hash"} == wanted[account]["spec"]
    for name, recorders in cluster.recorders.items():
        changes = recorders["account"].changes
        assert len(changes) == len(set(changes)), f"{name} changed a generation twice"
    wait_until(lambda: cluster.onehost.status()["unsealed"] == 0)
    assert cluster.onehost.verify().problem == ""
