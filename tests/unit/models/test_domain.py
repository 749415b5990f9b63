"""What a domain accepts, fills in, claims and refuses, and whose consent it needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from onehost.models import names, nouns, php_settings, sites
from onehost.models.errors import Invalid, Refused
from onehost.models.nouns import Claim

NOUN = nouns.noun("domain")
BCRYPT = "$2y$10$" + "a" * 53


class Around:
    """Surroundings of a wish: who holds which domain."""

    def __init__(self, php: bool = True, **holders: str) -> None:
        self.holders = {name.replace("_", "."): account for name, account in holders.items()}
        self.php = php

    def all(self, noun: str) -> dict[str, dict[str, Any]]:
        return {}

    def owner(self, noun: str, name: str) -> tuple[int, dict[str, Any]]:
        return 7, {"php": self.php}

    def holder(self, kind: str, value: str) -> str | None:
        return self.holders.get(value)

    def number(self, kind: str, first: int, last: int) -> int:
        return first

    def setting(self, name: str) -> Any:
        return 0


def spec(**given: Any) -> dict[str, Any]:
    return NOUN.load({"account": "alice", **given})


def test_a_domain_is_filled_in() -> None:
    assert spec() == {
        "account": "alice", "account_id": None, "uid": None, "gid": None, "document_root": None, "aliases": [],
        "redirect": None, "redirect_status": 301, "php": True, "php_settings": [], "protected_paths": [],
        "protected_users": [], "override": [], "consent_of": None, "suspended": False,
    }  # fmt: skip
    assert NOUN.check_name("Bücher.Example.com.") == "xn--bcher-kva.example.com"


def test_hashes_are_secrets() -> None:
    plain, secret = NOUN.split(spec(protected_paths=["/a"], protected_users=[f"ann:{BCRYPT}"]))
    assert BCRYPT not in str(plain) and BCRYPT in str(secret)


def test_it_claims_each_name_with_www_once() -> None:
    claims = list(NOUN.claims("a.example", spec(aliases=["b.example", "a.example"])))
    wanted = ["a.example", "www.a.example", "b.example", "www.b.example"]
    assert claims == [Claim("domain", name) for name in wanted]


@pytest.mark.parametrize("wrong", [
    {"account": "root"}, {"document_root": "../b"}, {"aliases": ["com"]}, {"redirect": "ftp://a.example"},
    {"redirect": "https://a.example/?a=b"}, {"redirect": "https://u:p@a.example"}, {"redirect": "https://a.example/%0a"},
    {"redirect": "https://a.example/\u202e"}, {"redirect": "https:///a"}, {"redirect_status": 200},
    {"redirect": "https://a.example", "protected_paths": ["/a"], "protected_users": [f"a:{BCRYPT}"]},
    {"php_settings": ["memory_limit=2048M"]}, {"php_settings": ["open_basedir=/"]}, {"php_settings": ["memory_limit"]},
    {"php_settings": ["memory_limit=64M", "memory_limit=32M"]}, {"php_settings": ["upload_max_filesize=64M"]},
    {"php_settings": ["max_execution_time=0"]}, {"php_settings": ["memory_limit=64M\nopen_basedir=/"]},
    {"protected_paths": ["/a"]},
    {"protected_paths": ["/a b"], "protected_users": [f"a:{BCRYPT}"]},
    {"protected_paths": ["/../a"], "protected_users": [f"a:{BCRYPT}"]},
    {"protected_paths": ["/a"], "protected_users": ["a:plain"]},
    {"protected_paths": ["/a"], "protected_users": [f"a:{BCRYPT.replace('$10$', '$20$')}"]},
    {"protected_paths": ["/a"], "protected_users": [f"a:{BCRYPT}", f"a:{BCRYPT}"]},
    {"override": ["Header set A b\nRequire all granted"]}, {"override": ["Header set A \u202eb"]},
])  # fmt: skip
def test_what_is_wrong_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        spec(**wrong)
    assert "plain" not in str(caught.value) and BCRYPT not in str(caught.value)


def test_spellings() -> None:
    assert spec(redirect="HTTPS://Bücher.Example:8443/a%20b")["redirect"] == "https://xn--bcher-kva.example:8443/a%20b"
    assert spec(redirect="http://[2001:DB8::1]/")["redirect"] == "http://[2001:db8::1]/"
    assert spec(protected_paths=["/a/"], protected_users=[f"a:{BCRYPT}"])["protected_paths"] == ["/a"]
    given = ["Memory_Limit = 0256m", "display_errors=Yes", "upload_max_filesize=9M", "post_max_size=1g"]
    wanted = ["memory_limit=256M", "display_errors=on", "upload_max_filesize=9M", "post_max_size=1024M"]
    assert spec(php_settings=given)["php_settings"] == wanted
    assert php_settings.effective(wanted)["max_input_vars"] == "1000"


def test_nobody_takes_a_name_below_anothers_without_consent() -> None:
    around = Around(example_com="bob", deep_bob_com="alice", bob_com="bob")
    with pytest.raises(
        Refused, match=r"shop.example.com lies below example.com, which belongs to account bob"
    ) as caught:
        NOUN.check("shop.example.com", spec(), None, around)
    assert "--consent-of bob" in caught.value.hint
    NOUN.check("shop.example.com", spec(consent_of="bob"), None, around)
    with pytest.raises(Refused):
        NOUN.check("shop.example.com", spec(consent_of="carol"), None, around)
    with pytest.raises(Refused):
        NOUN.check("free.example", spec(aliases=["a.b.example.com"]), None, around)
    # The nearest domain above is asked, and one's own needs none.
    NOUN.check("more.deep.bob.com", spec(), None, around)
    # What it has already is not judged again.
    NOUN.check("shop.example.com", spec(suspended=True), spec(), around)
    NOUN.check("shop.example.com", None, spec(), around)


def test_the_primary_domain_of_an_account_needs_consent_as_well() -> None:
    account = nouns.noun("account")
    with pytest.raises(Refused, match="belongs to account bob"):
        account.check("alice", account.load({"domain": "shop.example.com"}), None, Around(example_com="bob"))
    account.check("alice", account.load({"domain": "shop.example.com"}), None, Around(example_com="alice"))


def test_php_needs_the_accounts_php() -> None:
    with pytest.raises(Refused, match="account alice has PHP off"):
        NOUN.check("a.example", spec(), None, Around(php=False))
    NOUN.check("a.example", spec(php=False), None, Around(php=False))
    NOUN.check("a.example", spec(redirect="https://b.example"), None, Around(php=False))


def test_only_a_new_folder_needs_the_storage_node_first() -> None:
    assert not NOUN.ordered(spec(aliases=["b.example"]), spec())
    assert NOUN.ordered(spec(document_root="b"), spec()) and NOUN.ordered(spec(), spec(redirect="https://b.example"))
    assert NOUN.destroys(spec(suspended=True), spec()) and not NOUN.destroys(spec(), spec(suspended=True))
    assert NOUN.urgent(spec(suspended=True), spec()) and not NOUN.urgent(spec(php=False), spec())


def test_folders_and_parents() -> None:
    assert names.parents("a.b.example.co.uk") == ["b.example.co.uk", "example.co.uk"]
    assert names.parents("example.com") == []
    long = ".".join(["a" * 60] * 3) + ".example"
    for domain in ("shop.example.com", long, "xn--bcher-kva.example"):
        assert names.document_root(names.folder_of(domain))


@given(st.text(max_size=30))
def test_a_checked_text_stays_as_it_is(text: str) -> None:
    for check in (sites.redirect, sites.path, sites.user, sites.directive, php_settings.setting):
        try:
            once = check(text)
        except ValidationError:
            continue
        assert check(once) == once
