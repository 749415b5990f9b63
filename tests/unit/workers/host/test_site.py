"""The text of a site: sealed, answering for itself, and never letting .htaccess out."""

from __future__ import annotations

from dataclasses import replace

from onehost.workers.host.pool import Pool
from onehost.workers.host.site import Site, default, described

SITE = Site(812, "alice", "example.com", "web", php=True)


def test_the_seal_stands_in_the_text_and_follows_every_change() -> None:
    assert f'X-Onehost "812 {SITE.seal}"'.encode() in SITE.render()
    changes = (replace(SITE, domain="b.example"), replace(SITE, document_root="x"), replace(SITE, php=False))
    seals = {site.seal for site in (SITE, *changes)}
    assert len(seals) == 4
    assert SITE.seal == Site(812, "alice", "example.com", "web", php=True).seal


def test_the_question_is_the_owners_and_comes_before_the_notice() -> None:
    assert SITE.question != replace(SITE, owner=813).question
    text = SITE.render().decode()
    assert text.index("R=204") < text.index("suspended/812 -f") < text.index("<Directory")


def test_php_goes_to_the_own_socket_or_nowhere() -> None:
    assert b"proxy:unix:/run/onehost/php/alice.sock|fcgi://localhost" in SITE.render()
    assert b"proxy:" not in replace(SITE, php=False).render()


def test_htaccess_cannot_name_what_leads_out() -> None:
    allowed = next(line for line in SITE.render().decode().splitlines() if "AllowOverrideList" in line).split()
    assert not {"Options", "ProxyFCGISetEnvIf", "Include", "Action", "Alias", "ScriptAlias", "Use"} & set(allowed)
    override = next(line for line in SITE.render().decode().splitlines() if "AllowOverride " in line).split()
    assert override == ["AllowOverride", "AuthConfig", "Limit", "Indexes", "Nonfatal=Override"]


def test_described() -> None:
    assert described(SITE.render()) == ("example.com", "/home/alice/home/web")
    assert described(b"") == ("", "")


def test_the_default_tells_its_tree() -> None:
    assert b'X-Onehost-Tree "7"' in default(7)


def test_a_pool_names_users_by_number_and_is_confined() -> None:
    text = Pool(812, "alice", 20001, 20001, 0).render().decode()
    assert "user = 20001\n" in text and "group = 20001\n" in text
    assert "php_admin_value[open_basedir] = /home/alice/:/usr/share/php/\n" in text
    assert "listen = /run/onehost/php/private/alice.812.sock\n" in text
