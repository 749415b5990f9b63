"""One site of Apache: the text of its virtual hosts, of its overrides, and of the users of its protected paths.

NAME.ID.conf      the virtual hosts of ports 80 and 443
NAME.ID.override  an operator's own directives, read inside both
NAME.ID.users     users and password hashes of the protected paths, for root and Apache alone
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ...models.errors import Permanent
from ...models.php_settings import effective

LIVE = "/etc/onehost/apache/live"
#: Certificates with their keys: `live/DOMAIN.ACCOUNT_ID.pem` of a site's own, `default.pem` for all others.
TLS = "/etc/onehost/tls"
#: Flag files by resource id: while that of a site or of its account is there, it answers 503. No reload is needed.
SUSPENDED = "/etc/onehost/apache/suspended"
WELL_KNOWN = "/.well-known/onehost"
#: Longest label in a file's name; a longer domain is told by its hash.
LONGEST_LABEL = 200
_NOTICE = (
    "<!doctype html><html lang='en'><meta charset='utf-8'><title>Not available</title><body>"
    "<h1>This website is not available</h1><p>It is suspended, or cannot answer at the moment. "
    "If it is yours, please ask your hosting provider.</p></body></html>"
)
#: What .htaccess may hold. Not Options and not ProxyFCGISetEnvIf: each of them leads out of the account.
_ALLOWED = (
    "AcceptPathInfo AddCharset AddDefaultCharset AddEncoding AddHandler AddLanguage AddOutputFilter "
    "AddOutputFilterByType AddType BrowserMatch BrowserMatchNoCase CGIPassAuth DefaultLanguage EnableSendfile "
    "ErrorDocument FallbackResource FileETag ForceType Header LimitRequestBody PassEnv Redirect RedirectMatch "
    "RedirectPermanent RedirectTemp RemoveEncoding RemoveHandler RemoveType RequestHeader RewriteBase RewriteCond "
    "RewriteEngine RewriteOptions RewriteRule SetEnv SetEnvIf SetEnvIfExpr SetEnvIfNoCase SetHandler SetInputFilter "
    "SetOutputFilter UnsetEnv"
)
#: A site without a certificate of its own is served with that of the port's first virtual host: TLS is on or off for a
#: whole port, and only `HTTPS` must be said. With a context of OpenSSL for each, a reload takes four times as long.
_TLS = """    <IfFile {own}>
        SSLEngine On
        SSLCertificateFile {own}
    </IfFile>
    SetEnv HTTPS on
"""
_VHOST = """<VirtualHost *:{port}>
    ServerName {scheme}{domain}
{aliases}{tls}    RewriteEngine On
    RewriteRule ^/\\.well-known/onehost/{token}$ - [R=204,L]
{conditions}    RewriteRule ^ - [R=503,L]
    ErrorDocument 503 "{notice}"
    <Location "{well_known}/{token}">
        Header always set X-Onehost "{owner} {seal}"
    </Location>
{content}</VirtualHost>
"""
_PHP = """    <FilesMatch "\\.php$">
        SetHandler "proxy:unix:/run/onehost/php/{account}.sock|fcgi://localhost"
    </FilesMatch>
"""
#: For every request, so that what FPM keeps in a worker is always this site's; without PHP as well, since .htaccess can
#: name the own socket.
_SETTINGS = """    <Location "/">
        <If "true">
            ProxyFCGISetEnvIf "true" !PHP_VALUE
            ProxyFCGISetEnvIf "true" !PHP_ADMIN_VALUE
            ProxyFCGISetEnvIf "true" PHP_VALUE "%{{unescape:{settings}}}"
            <IfFile ${{ONEHOST_TREE}}/{account}.{account_id}.memory>
                Include ${{ONEHOST_TREE}}/{account}.{account_id}.memory
            </IfFile>
        </If>
    </Location>
"""
#: An account's limit in a file of its own, so that a change of it is one of the account alone: what a site sends wins
#: over php_admin_value of the pool.
_MEMORY = (
    "# onehost's own file, rewritten by its worker\n"
    "ProxyFCGISetEnvIf \"reqenv('PHP_VALUE') =~ /memory_limit=([0-9]+)M/ && $1 -gt {memory}\" PHP_VALUE "
    '"%{{reqenv:PHP_VALUE}}%{{unescape:%0amemory_limit={memory}M}}"\n'
)
_NO_PHP = """    <FilesMatch "\\.(?:php\\d*|phtml|phar)$">
        Require all denied
    </FilesMatch>
"""
_FOLDER = """    <Directory {root}>
        Options SymLinksIfOwnerMatch
        DirectoryIndex index.php index.html index.htm
        AllowOverride AuthConfig Limit Indexes Nonfatal=Override
        AllowOverrideList {allowed}
        Require all granted
    </Directory>
"""
_PROTECTED = """    <Location "{path}">
        AuthType Basic
        AuthName "{domain}"
        AuthBasicProvider file
        AuthUserFile {live}/{file}
        Require valid-user
    </Location>
"""
_NAME = re.compile(rb"^    ServerName (\S+)$", re.MULTILINE)
#: What each text must be before it stands in a configuration; the manager has checked it, a renderer believes nobody.
_SAFE = {
    "domain": re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"),
    "account": re.compile(r"[a-z][a-z0-9]{1,15}"),
    "folder": re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.)|/(?=[A-Za-z0-9_])){0,199}"),
    "redirect": re.compile(r"https?://[A-Za-z0-9._~:/\[\]@!&'()*+,;=%-]{1,1000}"),
    "path": re.compile(r"/(?:[A-Za-z0-9_~-][A-Za-z0-9._~-]*(?:/(?=[A-Za-z0-9_~-]))?)*"),
    "user": re.compile(r"[A-Za-z0-9._@-]{1,64}:[$./0-9A-Za-z=]{1,200}"),
    "setting": re.compile(r"[a-z_.]{1,40}=[A-Za-z0-9/_+-]{1,60}"),
    "override": re.compile(r"[^\x00-\x1f\x7f\u0085\u2028\u2029]{0,1000}"),
}


@dataclass(frozen=True)
class Site:
    """A site as it is wanted, of the account's primary domain (`owner` is the account's id) or of a further one."""

    owner: int
    account: str
    account_id: int
    domain: str
    #: Relative to the account's home; None where a redirect is all there is.
    document_root: str | None
    php: bool = False
    aliases: tuple[str, ...] = ()
    #: Where to, with the visitor's path behind it.
    redirect: str | None = None
    redirect_status: int = 301
    php_settings: tuple[str, ...] = ()
    protected_paths: tuple[str, ...] = ()
    protected_users: tuple[str, ...] = ()
    override: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The first part of its files' names: the account for a primary domain, else the domain."""
        return self.account if self.owner == self.account_id else label(self.domain)

    @property
    def question(self) -> str:
        """The path that Apache answers itself for this site, before .htaccess and PHP."""
        return f"{WELL_KNOWN}/{hashlib.sha256(f'onehost {self.owner}'.encode()).hexdigest()[:16]}"

    @property
    def answer(self) -> str:
        """What X-Onehost must say: the owner and a seal over the whole text, so that an older text shows."""
        return f"{self.owner} {self.seal}"

    @cached_property
    def seal(self) -> str:
        """A hash of the text of the site and of its overrides."""
        return hashlib.sha256("\n".join((self._text(""), *self.override)).encode()).hexdigest()[:12]

    def render(self) -> dict[str, bytes]:
        """Its files by name. Raises Permanent if a value cannot stand in a configuration."""
        self._check()
        found = {self._file("conf"): self._text(self.seal).encode()}
        if self.override:
            found[self._file("override")] = "".join(f"{line}\n" for line in self.override).encode()
        if self.protected_paths:
            found[self._file("users")] = "".join(f"{line}\n" for line in self.protected_users).encode()
        return found

    def _file(self, suffix: str) -> str:
        return f"{self.label}.{self.owner}.{suffix}"

    def _check(self) -> None:
        values = {
            "domain": (self.domain, *self.aliases),
            "account": (self.account,),
            "folder": (self.document_root,) if self.document_root is not None else (),
            "redirect": (self.redirect,) if self.redirect is not None else (),
            "path": self.protected_paths,
            "user": self.protected_users,
            "setting": self.php_settings,
            "override": self.override,
        }
        for kind, texts in values.items():
            for text in texts:
                if not _SAFE[kind].fullmatch(text):
                    # Users hold hashes, which stand in no message.
                    shown = "is not USER:HASH" if kind == "user" else f"{text!r} cannot stand in a configuration"
                    raise Permanent(f"{self.domain!r}: {kind} {shown}")
        if (self.document_root is None) == (self.redirect is None):
            raise Permanent(f"{self.domain} must have either a document root or a redirect")

    def _text(self, seal: str) -> str:
        own = f"{TLS}/live/{self.domain}.{self.account_id}.pem"
        flags = [f"{SUSPENDED}/{each}" for each in dict.fromkeys((self.owner, self.account_id))]
        values = {
            "domain": self.domain,
            "aliases": "".join(f"    ServerAlias {name}\n" for name in self._aliases()),
            "token": self.question.rpartition("/")[2],
            "conditions": "".join(f"    RewriteCond {flag} -f [OR]\n" for flag in flags[:-1])
            + f"    RewriteCond {flags[-1]} -f\n",
            "notice": _NOTICE,
            "well_known": WELL_KNOWN,
            "owner": self.owner,
            "seal": seal,
            "content": self._content(),
        }
        plain = _VHOST.format(port=80, scheme="", tls="", **values)
        secure = _VHOST.format(port=443, scheme="https://", tls=_TLS.format(own=own), **values)
        return f"# onehost's own file, rewritten by its worker\n{plain}{secure}"

    def _settings(self) -> str:
        values = "%0a".join(f"{name}={value}" for name, value in effective(self.php_settings).items())
        return _SETTINGS.format(settings=values, account=self.account, account_id=self.account_id)

    def _aliases(self) -> list[str]:
        return [f"www.{self.domain}", *(name for alias in self.aliases for name in (alias, f"www.{alias}"))]

    def _content(self) -> str:
        if self.redirect is not None:
            content = f'    Redirect {self.redirect_status} / "{self.redirect.removesuffix("/")}/"\n'
        else:
            root = f"/home/{self.account}/home/{self.document_root}"
            content = f"    DocumentRoot {root}\n"
            content += _PHP.format(account=self.account) if self.php else _NO_PHP
            content += self._settings() + _FOLDER.format(root=root, allowed=_ALLOWED)
        for path in self.protected_paths:
            content += _PROTECTED.format(path=path, domain=self.domain, live=LIVE, file=self._file("users"))
        if self.override:
            content += f"    Include ${{ONEHOST_TREE}}/{self._file('override')}\n"
        return content


def memory_file(account: str, account_id: int, memory_mib: int | None) -> dict[str, bytes]:
    """The file that keeps every site of an account below its limit of memory; none if it has no limit."""
    text = _MEMORY.format(memory=memory_mib)
    return {f"{account}.{account_id}.memory": text.encode()} if memory_mib else {}


def label(domain: str) -> str:
    """How a domain is written in the names of its files."""
    if len(domain) <= LONGEST_LABEL:
        return domain
    return f"{domain[:150]}-{hashlib.sha256(domain.encode()).hexdigest()[:16]}"


def domain_of(found: Mapping[str, bytes]) -> str:
    """The domain that an owner's files serve; empty if they serve none."""
    match = next((match for text in found.values() if (match := _NAME.search(text))), None)
    return match[1].decode() if match else ""
