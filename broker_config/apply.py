"""`onehost broker apply` and `onehost broker check`: makes the broker what it should be, or says how it differs.

Compares first and changes only what differs, so a second run changes nothing. The relay calls it too, when the broker
says 403 or 404.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..models.errors import NotFound
from ..models.settings import Manager, read_secret
from . import credentials, definitions
from .carry_out import apply
from .desired import desired
from .leaders import LOOKS, LOOKS_IN_CLUSTER, leaderless, made_anew, suspects
from .management import Management
from .observe import observe
from .permissions import MANAGER_USERS, TOPOLOGY_USER
from .policies import OLDEST
from .replicas import missing_replicas, running_brokers
from .routing import node_user
from .state import Kind, State, Step, Verb, difference

__all__ = ["apply", "check", "desired", "difference", "observe", "prepare", "synchronise"]


def synchronise(settings: Manager, nodes: Mapping[str, str]) -> list[Step]:
    """Make the broker fit for these nodes (name to password hash of its broker user); the steps that were needed.

    Makes missing secrets and rewrites the definitions file first, so that a broker wiped meanwhile comes back right.
    Raises Unreachable, Refused, or Invalid for a name that cannot be a node's.
    """
    for user in MANAGER_USERS:
        credentials.secret(settings.secrets / user)
    management = _management(settings)
    wanted, steps = _compare(settings, management, nodes)
    if any(step.kind is Kind.DEFINITIONS for step in steps):
        definitions.write(settings.definitions, definitions.render(wanted))
    apply(management, (step for step in steps if step.kind is not Kind.DEFINITIONS))
    return steps


def check(settings: Manager, nodes: Mapping[str, str]) -> list[Step]:
    """The steps that synchronise() would take; changes nothing. Raises as it does; NotFound without a secret."""
    return _compare(settings, _management(settings), nodes)[1]


def prepare(settings: Manager, nodes: Mapping[str, str]) -> None:
    """Make the secrets and a definitions file without any broker, for one that starts for the first time.

    It then boots with all of onehost and without `guest`. In the form that every version takes.
    """
    passwords = {user: credentials.secret(settings.secrets / user) for user in MANAGER_USERS}
    wanted = desired(nodes, _hashes(passwords, nodes, State({})), OLDEST)
    definitions.write(settings.definitions, definitions.render(wanted))


def _management(settings: Manager) -> Management:
    return Management(settings.management, TOPOLOGY_USER, read_secret(settings.secrets / TOPOLOGY_USER))


def _compare(settings: Manager, management: Management, nodes: Mapping[str, str]) -> tuple[State, list[Step]]:
    version = management.version()
    observed = observe(management)
    try:
        passwords = {user: read_secret(settings.secrets / user) for user in MANAGER_USERS}
    except NotFound as error:
        raise NotFound(error.what, hint="onehost broker apply") from error
    wanted = desired(nodes, _hashes(passwords, nodes, observed), version)
    steps = difference(wanted, observed)
    touched = {step.name for step in steps if step.kind is Kind.QUEUE}
    untouched = [queue for queue in wanted.of(Kind.QUEUE) if queue not in touched]
    brokers = running_brokers(management)
    # Whoever lacks rights of its own cannot ask; the next comparison can.
    if not any(step.name == TOPOLOGY_USER for step in steps):
        looks = LOOKS if len(brokers) == 1 else LOOKS_IN_CLUSTER
        silent = leaderless(settings.as_user(TOPOLOGY_USER), suspects(observed, untouched, brokers), looks)
        steps += made_anew(wanted, silent)
    steps += missing_replicas(observed, untouched, brokers)
    if not definitions.is_current(settings.definitions, definitions.render(wanted)):
        verb = Verb.CHANGE if settings.definitions.exists() else Verb.CREATE
        steps.insert(0, Step(verb, Kind.DEFINITIONS, str(settings.definitions)))
    return wanted, steps


def _hashes(passwords: Mapping[str, str], nodes: Mapping[str, str], observed: State) -> dict[str, str]:
    """Nodes' hashes as given. The manager's are salted anew only where the broker's does not fit the password."""
    hashes = {node_user(node): hashed for node, hashed in nodes.items()}
    for user, password in passwords.items():
        found = str(observed.of(Kind.CREDENTIAL).get(user, {}).get("password_hash", credentials.NO_PASSWORD))
        hashes[user] = found if credentials.matches(password, found) else credentials.password_hash(password)
    return hashes
