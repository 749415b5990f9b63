"""The text of a site: sealed, answering for itself, never letting .htaccess out, and holding only what was meant."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from onehost.models import names, php_settings, sites
from onehost.models.errors import Permanent
from onehost.workers.host.machine import rehearsal
from onehost.workers.host.pool import Pool
from onehost.workers.host.server import DEFAULT, SERVER, default, settle_certificate
from onehost.workers.host.site import Site, domain_of, label, memory_file

PRIMARY = Site(812, "alice", 812, "example.com", "web", php=True)
SITE = Site(900, "alice", 812, "shop.example", "shop", php=True, aliases=("laden.example",))


def text(site: Site) -> str:
    return site.render()[f"{site.label}.{site.owner}.conf"].decode()


def said(site: Site, directive: str) -> list[str]:
    """Everything that a text says with one directive, unquoted."""
    found = re.findall(rf"^\s*{directive} (.*)$", text(site), re.MULTILINE)
    return [each.strip().strip('"') for each in found]


def test_the_seal_stands_in_the_text_and_follows_every_change() -> None:
    assert said(SITE, "Header always set X-Onehost") == [f"900 {SITE.seal}"] * 2
    changes: list[dict[str, Any]] = [
        {"domain": "b.example"}, {"document_root": "x"}, {"php": False}, {"aliases": ()}, {"account_id": 813},
        {"php_settings": ("memory_limit=64M",)}, {"protected_paths": ("/a",), "protected_users": ("a:$6$b",)},
        {"override": ("Header set A b",)}, {"override": ("Header set A c",)},
        {"redirect": "https://a.example", "document_root": None},
    ]  # fmt: skip
    seals = {site.seal for site in (SITE, *(replace(SITE, **each) for each in changes))}
    assert len(seals) == 1 + len(changes)
    assert SITE.seal == replace(SITE).seal
    # Users are read at each request: they need no new text.
    protected = replace(SITE, protected_paths=("/a",), protected_users=("a:$6$b",))
    assert protected.seal == replace(protected, protected_users=("a:$6$c",)).seal


def test_the_question_is_the_owners_and_comes_before_the_notice() -> None:
    assert SITE.question != replace(SITE, owner=901).question
    assert text(SITE).index("R=204") < text(SITE).index("suspended/900 -f") < text(SITE).index("<Directory")


def test_a_site_is_suspended_with_its_account_and_a_primary_with_itself() -> None:
    flags = ["/etc/onehost/apache/suspended/900 -f [OR]", "/etc/onehost/apache/suspended/812 -f"]
    assert [each.removeprefix("%{") for each in said(SITE, "RewriteCond")] == flags * 2
    assert said(PRIMARY, "RewriteCond") == flags[1:] * 2


def test_both_ports_say_the_same() -> None:
    plain, secure = text(SITE).split("<VirtualHost ")[1:]
    tls = re.compile(r"    <IfFile .*?</IfFile>\n    SetEnv HTTPS on\n", re.DOTALL)
    secure = tls.sub("", secure).replace("ServerName https://", "ServerName ")
    assert plain.removeprefix("*:80") == secure.removeprefix("*:443")
    assert said(SITE, "SSLCertificateFile") == [f"/etc/onehost/tls/live/shop.example.{SITE.account_id}.pem"]


def test_php_goes_to_the_own_socket_or_nowhere() -> None:
    assert "proxy:unix:/run/onehost/php/alice.sock|fcgi://localhost" in text(SITE)
    assert "proxy:" not in text(replace(SITE, php=False))


def test_every_setting_is_sent_with_every_request() -> None:
    sent = re.findall(r'PHP_VALUE "%\{unescape:(.*)\}"', text(replace(SITE, php_settings=("memory_limit=64M",))))[0]
    pairs = dict(each.split("=") for each in sent.split("%0a"))
    assert pairs.keys() == php_settings.KNOWN.keys() and pairs["memory_limit"] == "64M"
    assert pairs["post_max_size"] == "8M"
    # What a tenant put there is dropped before.
    assert text(SITE).index("!PHP_VALUE") < text(SITE).index("!PHP_ADMIN_VALUE") < text(SITE).index('PHP_VALUE "')


def test_htaccess_cannot_name_what_leads_out() -> None:
    allowed = said(SITE, "AllowOverrideList")[0].split()
    assert not {"Options", "ProxyFCGISetEnvIf", "Include", "Action", "Alias", "ScriptAlias", "Use"} & set(allowed)
    assert said(SITE, "AllowOverride") == ["AuthConfig Limit Indexes Nonfatal=Override"] * 2


def test_a_redirect_shows_no_folder() -> None:
    moved = replace(SITE, document_root=None, redirect="https://new.example/shop/", redirect_status=307)
    assert said(moved, "Redirect") == ['307 / "https://new.example/shop/'] * 2
    assert "/home/" not in text(moved) and "proxy:" not in text(moved)
    for wrong in (replace(moved, redirect=None), replace(SITE, redirect="https://new.example")):
        with pytest.raises(Permanent, match="either a document root or a redirect"):
            wrong.render()


def test_users_and_overrides_are_files_of_their_own() -> None:
    site = replace(SITE, override=("Header set A b", "# c"), protected_paths=("/in",), protected_users=("ann:$6$x",))
    files = site.render()
    assert set(files) == {f"shop.example.900.{suffix}" for suffix in ("conf", "override", "users")}
    assert files["shop.example.900.override"] == b"Header set A b\n# c\n"
    assert "$6$x" not in text(site) and said(site, "Include")[1::2] == ["${ONEHOST_TREE}/shop.example.900.override"] * 2


def test_an_accounts_limit_of_memory_is_a_file_that_its_sites_read() -> None:
    assert memory_file("alice", 812, None) == {}
    ((name, content),) = memory_file("alice", 812, 64).items()
    assert name == "alice.812.memory" and content.count(b"64") == 2
    for site in (SITE, PRIMARY):
        assert said(site, "Include") == [f"${{ONEHOST_TREE}}/{name}"] * 2


def test_a_long_domain_has_a_short_label_of_its_own() -> None:
    long, other = (".".join([letter * 60] * 4) for letter in "ab")
    assert label("example.com") == "example.com" and len(label(long)) < 200 and label(long) != label(other)


def test_the_domain_of_files() -> None:
    assert (domain_of(SITE.render()), domain_of({})) == ("shop.example", "")


def test_the_default_tells_its_tree_and_is_read_on_both_ports() -> None:
    words = default(7).decode()
    assert words.count('X-Onehost-Tree "7"') == 2 and "*:80>" in words and f"SSLCertificateFile {DEFAULT}" in words
    assert "Define ONEHOST_TREE /etc/onehost/apache/live" in SERVER


def test_a_rehearsed_machine_needs_no_certificate(tmp_path: Path) -> None:
    settle_certificate(rehearsal(tmp_path))
    assert not (tmp_path / DEFAULT.lstrip("/")).exists()


def test_a_pool_names_users_by_number_and_is_confined() -> None:
    text = Pool(812, "alice", 20001, 20001, 0).render().decode()
    assert "user = 20001\n" in text and "group = 20001\n" in text
    assert "php_admin_value[open_basedir] = /home/alice/:/usr/share/php/\n" in text
    assert "listen = /run/onehost/php/private/alice.812.sock\n" in text
    assert "\npm.max_children = 8\n" in text
    assert "\npm.max_children = 3\n" in Pool(812, "alice", 20001, 20001, 0, 3).render().decode()


#: Text as an attacker would write it: control characters, line ends, bidi, quotes, and what Apache expands.
HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\n\r\t\0\x0b\x1b\x7f\x85\u2028\u202e\u2066\u200b\"'\\<>${}%#;|`= /.-_:@"),
        st.characters(codec="utf-8"),
        st.sampled_from("abcxyz019"),
    ),
    max_size=40,
)
NEAR = {
    "domain": st.one_of(HOSTILE, HOSTILE.map(lambda part: f"{part}.example"), HOSTILE.map(lambda part: f"a.{part}")),
    "document_root": st.one_of(HOSTILE, HOSTILE.map(lambda part: f"web/{part}")),
    "aliases": st.lists(st.one_of(HOSTILE, HOSTILE.map(lambda part: f"{part}.example")), max_size=3).map(tuple),
    "redirect": st.one_of(HOSTILE, HOSTILE.map(lambda part: f"https://a.example/{part}")),
    "php_settings": st.lists(HOSTILE.map(lambda part: f"date.timezone={part}"), max_size=1).map(tuple),
    "protected_paths": st.lists(HOSTILE.map(lambda part: f"/{part}"), max_size=2).map(tuple),
    "override": st.lists(HOSTILE, max_size=3).map(tuple),
    "account": HOSTILE,
}


def parsed(site: Site, field: str) -> Any:
    """What a field is, read back from the files."""
    if field == "override":
        content = site.render().get(f"{site.label}.{site.owner}.override", b"").decode()
        return tuple(content.split("\n")[:-1])
    if field == "account":
        return re.findall(r"/run/onehost/php/(.*)\.sock", text(site))[0]
    if field == "php_settings":
        sent = re.findall(r"unescape:(.*)\}", text(site))[0].split("%0a")
        return tuple(each for each in site.php_settings if each in sent)
    directive = {
        "domain": "ServerName", "document_root": "DocumentRoot", "aliases": "ServerAlias", "redirect": "Redirect 301 /",
        "protected_paths": "<Location",
    }[field]  # fmt: skip
    found = said(site, directive)
    found = found[: len(found) // 2]  # the same again for port 443
    match field:
        case "document_root":
            return found[0].removeprefix("/home/alice/home/")
        case "aliases":
            return tuple(each for each in found if not each.startswith("www."))
        case "protected_paths":
            paths = [each.removesuffix('">') for each in found]
            return tuple(each for each in paths if each != "/" and "well-known" not in each)
        case _:
            return found[0]


@pytest.mark.parametrize("field", NEAR)
@given(data=st.data())
def test_a_hostile_value_is_refused_or_read_back_equal(field: str, data: st.DataObject) -> None:
    value = data.draw(NEAR[field])
    more: dict[str, Any] = {"document_root": None, "php": False} if field == "redirect" else {}
    if field == "protected_paths":
        more = {"protected_users": ("a:$6$b",)}
    site = replace(SITE, **{"aliases": (), **more, field: value})
    reference = replace(SITE, aliases=(), **more, **({"redirect": "https://b.example"} if field == "redirect" else {}))
    try:
        files = site.render()
    except Permanent:
        return
    wanted = f"{value.removesuffix('/')}/" if field == "redirect" else value
    if field == "protected_paths":
        wanted = tuple(each for each in value if each != "/")
    assert parsed(site, field) == wanted
    # Nothing else became of it: the lines are those of any such site.
    if field in ("domain", "document_root", "redirect", "account", "php_settings"):
        assert len(text(site).split("\n")) == len(text(reference).split("\n"))
    assert all(name.count("/") == 0 for name in files)


@given(HOSTILE | HOSTILE.map(lambda part: f"http://{part}") | HOSTILE.map(lambda part: f"https://a.example/{part}"))
def test_what_the_manager_takes_as_a_redirect_a_node_can_write(value: str) -> None:
    try:
        target = sites.redirect(value)
    except ValidationError:
        return
    assert sites.redirect(target) == target
    replace(SITE, document_root=None, redirect=target).render()


@given(HOSTILE | HOSTILE.map(lambda part: f"/{part}"), HOSTILE, HOSTILE)
def test_what_the_manager_takes_a_node_can_write(path: str, directive: str, setting: str) -> None:
    site = SITE
    for check, value, field in (
        (sites.path, path, "protected_paths"),
        (sites.directive, directive, "override"),
        (php_settings.setting, f"date.timezone={setting}", "php_settings"),
        (names.document_root, path, "document_root"),
    ):
        try:
            taken: Any = check(value)
        except ValidationError:
            continue
        site = replace(site, **{field: taken if field == "document_root" else (taken,)})
    site.render()
