"""Domains on real machines of a lab: Apache, PHP and TLS as a visitor meets them, and what a tenant may try."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from .test_host import NODE, Driver, account, changed, client, cluster, inside, node, removed, write

__all__ = ["cluster", "node"]
pytestmark = pytest.mark.lab

ACCOUNT = 101


def domain(id_: int, name: str, owner: dict[str, Any], generation: int = 1, **changes: Any) -> dict[str, Any]:
    spec = {
        "account": owner["name"], "account_id": owner["id"], "uid": owner["spec"]["uid"], "gid": owner["spec"]["gid"],
        "document_root": None, "aliases": [], "redirect": None, "redirect_status": 301, "php": True,
        "php_settings": [], "protected_paths": [], "protected_users": [], "override": [], "consent_of": None,
        "suspended": False,
    }  # fmt: skip
    entry = {"id": id_, "noun": "domain", "name": name, "generation": generation, "roles": NODE}
    entry |= {key: changes.pop(key) for key in ("replaces", "applied_spec") if key in changes}
    return {**entry, "spec": {**spec, **changes}}


def get(url: str, *options: str) -> tuple[int, str]:
    """A visitor's request to node1; the status and the page."""
    host = url.split("/")[2]
    to = f"--resolve {host}:80:10.77.0.11 --resolve {host}:443:10.77.0.11"
    said = client(f"curl -sk -m 20 -w '\\n%{{http_code}} %{{redirect_url}}' {to} {' '.join(options)} '{url}'")
    body, _, last = said.rpartition("\n")
    status, _, target = last.partition(" ")
    return int(status), target.strip() or body


OWNER = account(ACCOUNT, "anna", domain=None)
ALWAYS_HTTPS = """RewriteEngine On
RewriteCond %{HTTPS} !=on
RewriteRule ^ https://%{HTTP_HOST}%{REQUEST_URI} [R=301,L]
"""
SHOW = "<?php echo ini_get($_GET['n']), ' ', posix_getuid();"


@pytest.fixture(scope="module")
def anna(node: Driver) -> dict[str, Any]:
    """An account without a primary domain, which has its PHP pool all the same."""
    assert "php" in node.applied(OWNER)
    return OWNER


def test_a_site_on_both_ports_with_its_names(node: Driver, anna: dict[str, Any]) -> None:
    entry = domain(201, "shop.example", anna, aliases=["laden.example", "xn--bcher-kva.example"])
    assert node.applied(entry) == {"document root": "made", "site": "made"}
    for scheme in ("http", "https"):
        for name in ("shop.example", "www.shop.example", "laden.example", "www.xn--bcher-kva.example"):
            status, body = get(f"{scheme}://{name}/")
            assert status == 200 and "This site is ready" in body, (scheme, name, body)
        assert get(f"{scheme}://stranger.example/")[0] == 421
    assert node.applied(entry) == {}
    words = "['HTTPS'] ?? 'off', $_SERVER['REQUEST_SCHEME'], $_SERVER['SERVER_PORT'], ' ', posix_getuid();"
    write("anna", "shop.example/who.php", f"<?php echo $_SERVER{words}")
    assert get("http://shop.example/who.php") == (200, "offhttp80 20101")
    assert get("https://shop.example/who.php") == (200, "onhttps443 20101")
    # A folder's URL without its slash leads to itself on the same port and scheme.
    inside("node1", "install -d -o anna -g www-data -m 2750 /home/anna/home/shop.example/sub")
    assert get("http://shop.example/sub") == (301, "http://shop.example/sub/")
    assert get("https://shop.example/sub") == (301, "https://shop.example/sub/")
    # What every guide on the web says for "always HTTPS" neither fails nor runs in circles.
    write("anna", "shop.example/.htaccess", ALWAYS_HTTPS)
    assert get("http://shop.example/who.php?a=b") == (301, "https://shop.example/who.php?a=b")
    assert get("https://shop.example/who.php") == (200, "onhttps443 20101")
    write("anna", "shop.example/.htaccess", "<If \"%{HTTPS} != 'on'\">\nRequire all denied\n</If>")
    assert (get("http://shop.example/who.php")[0], get("https://shop.example/who.php")[0]) == (403, 200)
    write("anna", "shop.example/.htaccess", "")


def test_a_certificate_is_taken_when_there_is_one(node: Driver, anna: dict[str, Any]) -> None:
    issuer = (
        "openssl s_client -connect 10.77.0.11:443 -servername {} </dev/null 2>/dev/null | openssl x509 -noout -subject"
    )
    assert "onehost.invalid" in client(issuer.format("shop.example"))
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 -subj /CN=shop.example"
    place = f"/etc/onehost/tls/live/shop.example.{anna['id']}.pem"
    inside("node1", f"mkdir -p /etc/onehost/tls/live; {make} -keyout - -out - >{place}")
    node.applied(domain(202, "other.example", anna, php=False))
    assert "shop.example" in client(issuer.format("shop.example"))
    assert "onehost.invalid" in client(issuer.format("other.example"))
    inside("node1", f"rm {place}")


def test_redirect_and_parked(node: Driver, anna: dict[str, Any]) -> None:
    moved = domain(203, "old.example", anna, redirect="https://new.example:8443/shop/it's", redirect_status=302)
    bad = {**moved, "spec": {**moved["spec"], "redirect": 'https://new.example/"\nHeader set X-Bad 1'}}
    assert node.apply(bad)[203]["outcome"] == "Permanent"
    moved["spec"]["redirect"] = "https://new.example:8443/shop%20a"
    assert node.applied(moved) == {"site": "made"}
    assert get("http://old.example/a/b?c=d") == (302, "https://new.example:8443/shop%20a/a/b?c=d")
    assert get("https://www.old.example/") == (302, "https://new.example:8443/shop%20a/")
    parked = domain(204, "parked.example", anna, document_root="shop.example")
    assert node.applied(parked) == {"site": "made"}
    assert get("http://parked.example/")[0] == 200
    write("anna", "shop.example/here.txt", "the same folder")
    assert get("http://parked.example/here.txt") == (200, "the same folder")
    assert node.applied(changed(moved, redirect=None)) == {"document root": "made", "site": "changed"}
    assert get("http://old.example/")[0] == 200


def test_php_settings_hold_and_do_not_leak(node: Driver, anna: dict[str, Any]) -> None:
    wide = domain(
        205, "wide.example", anna, document_root="php", php_settings=["memory_limit=512M", "display_errors=on"]
    )
    plain = domain(206, "plain.example", anna, document_root="php")
    node.applied(wide, plain)
    write("anna", "php/show.php", SHOW)
    for _ in range(30):  # one idle worker of the pool is taken again and again
        assert get("http://wide.example/show.php?n=memory_limit") == (200, "512M 20101")
        assert get("http://plain.example/show.php?n=memory_limit") == (200, "128M 20101")
        assert get("https://wide.example/show.php?n=display_errors")[1] == "1 20101"
        assert get("http://plain.example/show.php?n=display_errors")[1].strip() == "20101"
    before = inside("node1", "ps -C php-fpm8.2,php-fpm8.4 -o pid=,args= | grep master")
    node.applied(
        changed(plain, php_settings=["max_execution_time=77", "upload_max_filesize=8M", "date.timezone=Asia/Tokyo"])
    )
    assert get("http://plain.example/show.php?n=max_execution_time")[1] == "77 20101"
    assert get("http://plain.example/show.php?n=upload_max_filesize")[1] == "8M 20101"
    assert get("http://plain.example/show.php?n=date.timezone")[1] == "Asia/Tokyo 20101"
    assert inside("node1", "ps -C php-fpm8.2,php-fpm8.4 -o pid=,args= | grep master") == before
    # The tenant's own way stays: it holds for that folder alone, and is gone with the request.
    write("anna", "php/.user.ini", "memory_limit=200M\n")
    inside("node1", "pkill -u anna php-fpm || true")  # .user.ini is read again after five minutes
    assert get("http://wide.example/show.php?n=memory_limit")[1] == "200M 20101"
    assert get("http://shop.example/show.php")[0] == 404
    write("anna", "shop.example/show.php", SHOW)
    assert get("http://shop.example/show.php?n=memory_limit")[1] == "128M 20101"
    inside("node1", "rm /home/anna/home/php/.user.ini")


def test_no_site_has_more_memory_than_its_account(node: Driver, anna: dict[str, Any]) -> None:
    write("anna", "php/show.php", SHOW)
    write("anna", "php/.user.ini", "")
    inside("node1", "pkill -u anna php-fpm || true")  # .user.ini is read again after five minutes
    ask = "http://{}/show.php?n=memory_limit"
    assert node.applied(changed(anna, memory_mib=64)) == {"php": "changed"}
    assert [get(ask.format(name))[1] for name in ("wide.example", "plain.example")] == ["64M 20101"] * 2
    write("anna", "php/.user.ini", "memory_limit=200M\n")
    inside("node1", "pkill -u anna php-fpm || true")
    assert [get(ask.format(name))[1] for name in ("wide.example", "plain.example")] == ["64M 20101"] * 2
    write("anna", "php/.user.ini", "")
    inside("node1", "pkill -u anna php-fpm || true")
    assert node.applied(changed(anna, memory_mib=256)) == {"php": "changed"}
    assert [get(ask.format(name))[1] for name in ("wide.example", "plain.example")] == ["256M 20101", "128M 20101"]
    assert node.applied(anna) == {"php": "changed"}
    assert get(ask.format("wide.example"))[1] == "512M 20101"


INJECT = {
    "SetEnv": 'SetEnv PHP_VALUE "memory_limit=999M"\nSetEnv PHP_ADMIN_VALUE "memory_limit=999M"',
    "E flag": "RewriteEngine On\nRewriteRule ^ - [E=PHP_VALUE:memory_limit=999M,E=PHP_ADMIN_VALUE:open_basedir=/]",
    "SetEnvIf": "SetEnvIf Request_URI . PHP_VALUE=memory_limit=999M PHP_ADMIN_VALUE=open_basedir=/",
    "SetEnvIfExpr": 'SetEnvIfExpr "true" PHP_ADMIN_VALUE=open_basedir=/',
    "ProxyFCGISetEnvIf": '<If "true">\nProxyFCGISetEnvIf "true" PHP_ADMIN_VALUE "open_basedir=/"\n</If>',
    "nested": '<If "true">\n<If "true">\nProxyFCGISetEnvIf "true" PHP_VALUE "memory_limit=999M"\n</If>\n</If>',
    "header": 'RequestHeader set PHP_ADMIN_VALUE "open_basedir=/"\nRequestHeader set PHP_VALUE "memory_limit=999M"',
    "Files": '<Files "*.php">\nSetEnv PHP_VALUE "memory_limit=999M"\n</Files>',
}


@pytest.mark.parametrize("attack", INJECT)
def test_htaccess_cannot_set_what_only_the_site_may(node: Driver, anna: dict[str, Any], attack: str) -> None:
    inside("node1", "pkill -u anna php-fpm || true")  # of the test before
    write("anna", "php/show.php", SHOW)
    write("anna", "php/.htaccess", INJECT[attack])
    for name, value in (("memory_limit", "512M"), ("open_basedir", "/home/anna/")):
        status, body = get(f"http://wide.example/show.php?n={name}", "-H 'PHP_VALUE: memory_limit=1M'")
        assert status == 500 or (status, body[: len(value)]) == (200, value), (status, body)
    write("anna", "php/.htaccess", "")
    assert get("http://wide.example/show.php?n=memory_limit") == (200, "512M 20101")


def test_a_site_without_php_is_no_way_around_the_pools_limits(node: Driver, anna: dict[str, Any]) -> None:
    node.applied(domain(211, "flat.example", anna, document_root="php", php=False))
    inside("node1", "pkill -u anna php-fpm || true")
    write("anna", "php/show.php", SHOW)
    assert get("http://flat.example/show.php?n=open_basedir")[0] == 403
    own = '<If "true">\nRequire all granted\nSetHandler "proxy:unix:/run/onehost/php/anna.sock|fcgi://localhost"\n</If>'
    write("anna", "php/.htaccess", f'{own}\nSetEnv PHP_ADMIN_VALUE "open_basedir=/"\n')
    status, body = get("http://flat.example/show.php?n=open_basedir")
    assert status == 403 or body.startswith("/home/anna/"), (status, body)
    write("anna", "php/.htaccess", "")
    assert get("http://wide.example/show.php?n=open_basedir")[1].startswith("/home/anna/")


def test_a_protected_path(node: Driver, anna: dict[str, Any]) -> None:
    crypt = ["openssl", "passwd", "-6", "-stdin"]
    hash_ = subprocess.run(crypt, input="open sesame", capture_output=True, text=True, check=True).stdout.strip()
    entry = domain(207, "club.example", anna, protected_paths=["/members"], protected_users=[f"ann:{hash_}"])
    assert node.applied(entry) == {"document root": "made", "site": "made", "protected users": "made"}
    inside("node1", "install -d -o anna -g www-data -m 2750 /home/anna/home/club.example/members")
    write("anna", "club.example/members/list.php", "<?php echo 'inside';")
    assert get("http://club.example/")[0] == 200
    for path in ("/members/list.php", "//members/list.php", "/x/../members/list.php", "/%6dembers/list.php"):
        assert get(f"https://club.example{path}", "--path-as-is")[0] == 401, path
    assert get("http://club.example/members/list.php", "-u 'ann:open sesame'") == (200, "inside")
    assert get("http://club.example/members/list.php", "-u ann:wrong")[0] == 401
    mode = inside("node1", "stat -c '%a %U %G' /etc/onehost/apache/live/club.example.207.users")
    assert mode == "640 root www-data"
    other = subprocess.run(crypt, input="new", capture_output=True, text=True, check=True).stdout.strip()
    assert node.applied(changed(entry, protected_users=[f"ann:{other}"])) == {"protected users": "changed"}
    assert get("http://club.example/members/list.php", "-u ann:new")[0] == 200


def test_a_broken_override_fails_alone_with_apaches_words(node: Driver, anna: dict[str, Any]) -> None:
    good = domain(208, "good.example", anna, php=False, override=["Header always set X-Operator yes"])
    bad = domain(
        209, "bad.example", anna, php=False, override=["Header always set X-Fine yes", "Hedaer set X-Typo yes"]
    )
    late = domain(210, "late.example", anna, php=False)
    outcomes = node.apply(good, bad, late)
    assert [outcomes[each]["outcome"] for each in (208, 209, 210)] == ["applied", "Permanent", "applied"]
    assert "bad.example.209.override:2: Invalid command 'Hedaer'" in outcomes[209]["reason"], outcomes[209]
    assert get("http://bad.example/")[0] == 421 and get("http://late.example/")[0] == 200
    said = client("curl -skI --resolve good.example:443:10.77.0.11 https://good.example/")
    assert "X-Operator: yes" in said
    # It survives a rebuild, and cannot close the virtual host that reads it.
    assert node.applied(changed(good, aliases=["fine.example"])) == {"site": "changed"}
    assert "X-Operator: yes" in client("curl -sI --resolve fine.example:80:10.77.0.11 http://fine.example/")
    escape = changed(good, override=["</VirtualHost>", "<VirtualHost *:80>"])
    assert "good.example.208.override:1:" in node.apply(escape)[208]["reason"]
    assert node.applied(changed(good, override=[])) == {"override": "removed", "site": "changed"}


def test_suspension_of_a_domain_and_of_its_account(node: Driver, anna: dict[str, Any]) -> None:
    entry = domain(201, "shop.example", anna, aliases=["laden.example", "xn--bcher-kva.example"])
    node.applied(entry, domain(210, "late.example", anna, php=False))
    before = inside("node1", "readlink /etc/onehost/apache/live; ps -C apache2 -o pid= | sort | head -1")
    assert node.applied(changed(entry, suspended=True)) == {"suspended": "no -> yes"}
    assert get("https://laden.example/who.php")[0] == get("http://shop.example/")[0] == 503
    assert get("http://late.example/")[0] == 200
    assert node.applied(changed(entry, suspended=False)) == {"suspended": "yes -> no"}
    assert inside("node1", "readlink /etc/onehost/apache/live; ps -C apache2 -o pid= | sort | head -1") == before
    assert get("https://laden.example/who.php")[0] == 200
    node.applied(changed(anna, suspended=True))
    assert get("https://laden.example/who.php")[0] == get("http://late.example/")[0] == 503
    # A change of a suspended account's domain stays hidden.
    node.applied(changed(entry, aliases=["laden.example"]))
    assert get("https://laden.example/")[0] == 503
    node.applied(changed(anna, suspended=False))
    assert get("https://laden.example/")[0] == get("http://late.example/")[0] == 200


def test_a_domain_waits_for_its_account_and_is_removed_before_it(node: Driver) -> None:
    owner = account(102, "bert", domain="bert.example")
    entry = domain(220, "early.example", owner)
    waits = node.apply(entry)[220]
    assert waits["outcome"] == "Temporary" and "/home/bert of id 102 is not here" in waits["reason"]
    node.applied(owner, entry)
    assert get("https://early.example/")[0] == get("https://www.bert.example/")[0] == 200
    assert node.applied(removed(entry), removed(owner))["user"] == "removed"
    assert get("http://early.example/")[0] == 421
    assert inside("node1", "ls /etc/onehost/apache/live /etc/onehost/apache/suspended | grep -c early || true") == "0"


def test_a_name_made_again_replaces_the_old_one(node: Driver, anna: dict[str, Any]) -> None:
    node.applied(domain(230, "again.example", anna))
    held = node.apply(domain(232, "again.example", anna))[232]
    assert held["outcome"] == "Permanent" and "id 230, an orphan" in held["reason"]
    entry = domain(232, "again.example", anna, replaces=230)
    assert node.applied(entry)["replaced"] == "id 230"
    assert node.applied(removed(domain(230, "again.example", anna))) == {}
    assert get("http://again.example/")[0] == 200
    long = ".".join(["a" * 60] * 4) + ".example"
    assert node.applied(domain(233, long, anna))["site"] == "made"
    assert get(f"http://{long}/")[0] == 200


SOCKET = "proxy:unix:/run/onehost/php/victor.sock|fcgi://localhost"
FILE = "unix:/run/onehost/php/victor.sock|fcgi://localhost/home/anna/home/php/evil.php"
ATTACKS = {
    "handler to the other's socket": f'<FilesMatch "\\.php$">\nSetHandler "{SOCKET}"\n</FilesMatch>',
    "handler in If": f'<If "true">\nSetHandler "{SOCKET}"\n</If>',
    "AddHandler": f'AddHandler "{SOCKET}" .php',
    "proxy to the other's socket": f'RewriteEngine On\nRewriteRule ^evil.php$ "{FILE}" [P]',
    "forced handler": f"RewriteEngine On\nRewriteRule ^evil.php$ - [H={SOCKET}]",
    "forced type": f"RewriteEngine On\nRewriteRule ^evil.php$ - [T={SOCKET}]",
    "handler and value": f'SetHandler "{SOCKET}"\nSetEnv PHP_ADMIN_VALUE "open_basedir=/"',
    "CGI": "Options +ExecCGI +Includes +FollowSymLinks\nAddHandler cgi-script .php",
    "loopback": "RewriteEngine On\nRewriteRule ^evil.php$ http://127.0.0.1:80/ [P]",
    "status": "SetHandler server-status",
    "file in SSLRequire": 'SSLRequire file("/home/victor/home/web/open.html") =~ m/SECRET/',
    "file in Require": "Require expr file('/home/victor/home/web/open.html') =~ /SECRET/",
    "link": "Options FollowSymLinks",
}


@pytest.fixture(scope="module")
def victim(node: Driver, anna: dict[str, Any]) -> Iterator[None]:
    victor = account(103, "victor", domain="victor.example")
    node.applied(victor)
    write("victor", "web/config.php", "<?php $secret = 'TOP SECRET';")
    write("victor", "web/open.html", "TOP SECRET")
    inside("node1", "cd /home/victor/home/web; chmod 600 config.php; chmod 644 open.html")
    read = "<?php echo posix_getuid(), '|', @file_get_contents('/home/victor/home/web/config.php');"
    write("anna", "php/evil.php", read)
    inside("node1", "chmod 755 /home/anna/home /home/anna/home/php; chmod 644 /home/anna/home/php/evil.php")
    inside("node1", "ln -sfn /home/victor/home/web/open.html /home/anna/home/php/link.html")
    yield
    node.applied(removed(victor))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_htaccess_cannot_leave_the_account(
    node: Driver, anna: dict[str, Any], victim: None, attack: str, scheme: str
) -> None:
    write("anna", "php/.htaccess", ATTACKS[attack])
    status, body = get(f"{scheme}://wide.example/evil.php")
    assert "SECRET" not in body and "20103" not in body, body
    assert status in (403, 500) or body == "20101|", (status, body)
    if attack.startswith("file in"):
        assert status == 500, (status, body)
    status, body = get(f"{scheme}://wide.example/link.html")
    assert status in (403, 500) and "SECRET" not in body, (status, body)
    write("anna", "php/.htaccess", "")


def test_a_thousand_domains_are_one_validation_and_one_signal(
    node: Driver, anna: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    count = 1000
    entries = [domain(1000 + each, f"d{each}.many.example", anna, document_root="many") for each in range(count)]
    tree = int(inside("node1", "readlink /etc/onehost/apache/live").rpartition("/")[2])
    answer = node.do("apply", entries=entries)
    assert {each["outcome"] for each in answer["entries"].values()} == {"applied"}
    assert int(inside("node1", "readlink /etc/onehost/apache/live").rpartition("/")[2]) == tree + 1
    assert get("https://www.d777.many.example/")[0] == 200
    memory = inside("node1", "ps -o rss= -p $(cat /run/apache2/apache2.pid)")
    with capsys.disabled():
        print("\n" + json.dumps(answer["seconds"]), "main process", memory, "KiB")
    again = node.do("apply", entries=[changed(entries[0], php=False)])
    with capsys.disabled():
        print(json.dumps(again["seconds"]))
    node.applied(*(removed(each) for each in entries))
