"""What each noun accepts, fills in, claims and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from onehost.models import nouns
from onehost.models.errors import Invalid, NotFound, Refused
from onehost.models.nouns import Claim
from onehost.models.nouns.plan import LIMITS, effective

HASH = "$6$" + "a" * 16 + "$" + "b" * 86


class Around:
    """Surroundings of a wish, made up."""

    def __init__(self, **known: dict[str, dict[str, Any]]) -> None:
        self.known = known
        self.given = 20304

    def all(self, noun: str) -> dict[str, dict[str, Any]]:
        return self.known.get(noun, {})

    def number(self, kind: str, first: int, last: int) -> int:
        self.given += 1
        return self.given

    def setting(self, name: str) -> Any:
        return {"first_uid": 20000, "last_uid": 59999, "pools_per_shard": 300}[name]


@pytest.mark.parametrize("noun", nouns.nouns().values(), ids=str)
def test_a_noun_is_whole(noun: nouns.Noun) -> None:
    fields = noun.schema().fields.keys()
    assert noun.plural != noun.name and (noun.stages() or nouns.followers(noun.name))
    assert noun.following_fields <= noun.manager_fields and (noun.follows is None or {noun.follows, "limits"} <= fields)
    assert noun.secret_fields <= fields and noun.manager_fields <= fields and set(noun.columns) <= fields
    for verb in noun.verbs:
        assert {option.field for option in verb.options} <= fields and set(verb.fixed or {}) <= fields
        assert verb.help and verb.example.startswith(verb.name)
        assert not {option.field for option in verb.options} & noun.manager_fields
    assert sum(verb.makes for verb in noun.verbs) == 1 and sum(verb.removes for verb in noun.verbs) == 1
    with pytest.raises(Invalid):
        noun.check_name("../etc")


def test_a_noun_is_found_by_either_name_and_a_near_miss_is_told() -> None:
    assert nouns.noun("accounts") is nouns.noun("account")
    with pytest.raises(NotFound) as caught:
        nouns.noun("acount")
    assert caught.value.hint == "did you mean account?"


def test_an_account_is_filled_in() -> None:
    spec = nouns.noun("account").load({"domain": "Example.com"})
    assert spec == {
        "domain": "example.com", "document_root": "web", "php": True, "access": "sftp", "ftp": True, "ssh_keys": [],
        "suspended": False, "password_hash": None, "uid": None, "gid": None, "shard": None, "plan": None, "limits": {},
        "php_processes": None, "memory_mib": None, "shell": None,
    }  # fmt: skip


def test_a_limit_of_its_own_stands_before_the_plans_and_none_is_no_limit() -> None:
    plan = nouns.noun("plan").load({"domains": 5, "crons": 3, "cron": False})
    found = effective(plan, {"domains": None, "cron": True, "aliases": 0})
    assert {limit: found[limit] for limit in ("domains", "crons", "cron", "aliases", "shell", "zones")} == {
        "domains": None, "crons": 3, "cron": True, "aliases": 0, "shell": True, "zones": None,
    }  # fmt: skip
    assert set(found) == set(LIMITS) == set(plan) == set(effective({}, {}))
    every = {limit for noun in nouns.nouns().values() for limit in ([noun.limit] if noun.limit else [])}
    assert every <= set(LIMITS)


@pytest.mark.parametrize(
    "given",
    [{"domain": 1}, {"domain": "com"}, {"php": "yes"}, {"php": 1}, {"php": None}, {"access": "root"}, {"ssh_keys": "x"},
     {"ssh_keys": [None]}, {"ssh_keys": ["x"]}, {"ssh_keys": ["ssh-ed25519 AAAA"] * 51}, {"suspended": "false"},
     {"password_hash": "secret"}, {"uid": "20000"}, {"uid": 0}, {"uid": 1.5}, {"gid": 60000}, {"nonsense": 1},
     {"document_root": "../x"}, {"document_root": None}, {"": 1}, {"uid": True}],
)  # fmt: skip
def test_a_bad_account_is_refused_by_field(given: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        nouns.noun("account").load(given)
    assert next(iter(given)) in next(iter(caught.value.problems), "") or not next(iter(given))
    assert "secret" not in str(caught.value)


def test_an_account_is_numbered_once() -> None:
    account = nouns.noun("account")
    spec = account.number(account.load({}), None, Around())
    assert (spec["uid"], spec["gid"], spec["shard"]) == (20305, 20305, 1)
    again = account.number(account.load({"php": False}), spec, Around())
    assert (again["uid"], again["shard"]) == (20305, 1)


def test_an_account_claims_its_domain_and_its_uid_for_ever() -> None:
    account = nouns.noun("account")
    spec = account.load({"domain": "example.com", "uid": 20000})
    assert set(account.claims("alice", spec)) == {
        Claim("domain", "example.com"), Claim("domain", "www.example.com"), Claim("uid", "20000", forever=True),
    }  # fmt: skip
    assert [claim.kind for claim in account.claims("alice", account.load({"uid": 20000}))] == ["uid"]


def test_only_a_new_folder_needs_the_storage_first() -> None:
    account = nouns.noun("account")
    before = account.load({"domain": "example.com"})
    assert not account.ordered(before | {"suspended": True}, before)
    assert account.ordered(before | {"document_root": "other"}, before)


def test_what_must_not_wait() -> None:
    account = nouns.noun("account")
    spec = account.load({})
    assert account.urgent(None, spec) and account.urgent(None, None)
    assert account.urgent(spec | {"suspended": True}, spec) and account.urgent(spec | {"password_hash": HASH}, spec)
    assert not account.urgent(spec, None) and not account.urgent(spec | {"php": False}, spec)


def test_secrets_are_split_off() -> None:
    account = nouns.noun("account")
    plain, secrets = account.split(account.load({"password_hash": HASH}))
    assert "password_hash" not in plain and secrets == {"password_hash": HASH}
    assert "password_hash" not in account.split(account.load({}))[0]


def node(**more: Any) -> dict[str, Any]:
    return nouns.noun("node").load({"address": "10.0.0.1", "roles": ["web"], **more})


@pytest.mark.parametrize(
    "given", [{}, {"address": "10.0.0.1"}, {"address": "10.0.0.1", "roles": []},
              {"address": "10.0.0.1", "roles": ["king"]}, {"address": "0.0.0.0", "roles": ["web"]},
              {"address": "10.0.0.1", "roles": ["web"], "weight": 0},
              {"address": "10.0.0.1", "roles": ["web"], "traffic": "gone"}],
)  # fmt: skip
def test_a_bad_node_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        nouns.noun("node").load(given)


def test_the_last_active_node_of_a_service_stays() -> None:
    service = nouns.noun("virtual_service").load({"address": "10.1.0.1", "port": 80})
    alone = Around(node={"web1": node(), "web2": node(traffic="cordoned")}, virtual_service={"http": service})
    two = Around(node={"web1": node(), "web2": node()}, virtual_service={"http": service})
    for spec in (node(traffic="drained"), node(traffic="cordoned"), None):
        with pytest.raises(Refused, match="last active"):
            nouns.noun("node").check("web1", spec, node(), alone)
        nouns.noun("node").check("web1", spec, node(), two)
    nouns.noun("node").check("web1", None, node(), Around(node={"web1": node()}))
    nouns.noun("node").check("web2", node(), node(traffic="cordoned"), alone)


def test_roles_do_not_change() -> None:
    with pytest.raises(Refused, match="roles"):
        nouns.noun("node").check("web1", node(roles=["web", "ssh"]), node(), Around())


def test_a_virtual_service_claims_its_address_and_port() -> None:
    service = nouns.noun("virtual_service")
    spec = service.load({"address": "2001:DB8::1", "port": 80})
    assert [*service.claims("http", spec)] == [Claim("address:port", "2001:db8::1:80")]
    for bad in ({"address": "10.0.0.1", "port": 0}, {"address": "10.0.0.1", "port": "80"}, {"port": 80}):
        with pytest.raises(Invalid):
            service.load(bad)
