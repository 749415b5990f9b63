"""One account's Apache site: the text of its virtual host, and of what stands before all of them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

#: Flag files by owner id: while one is there, its site answers 503. No reload is needed to suspend.
SUSPENDED = "/etc/onehost/apache/suspended"
WELL_KNOWN = "/.well-known/onehost"
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
_PHP = """    <FilesMatch "\\.php$">
        SetHandler "proxy:unix:/run/onehost/php/{name}.sock|fcgi://localhost"
    </FilesMatch>
    <Location "/">
        <If "true">
            ProxyFCGISetEnvIf "true" !PHP_VALUE
            ProxyFCGISetEnvIf "true" !PHP_ADMIN_VALUE
        </If>
    </Location>
"""
_NO_PHP = """    <FilesMatch "\\.(?:php\\d*|phtml|phar)$">
        Require all denied
    </FilesMatch>
"""
_SITE = """# onehost's own file, rewritten by its worker
<VirtualHost *:80>
    ServerName {domain}
    DocumentRoot {root}
    RewriteEngine On
    RewriteRule ^/\\.well-known/onehost/{token}$ - [R=204,L]
    RewriteCond {suspended}/{owner} -f
    RewriteRule ^ - [R=503,L]
    ErrorDocument 503 "{notice}"
    <Location "{well_known}/{token}">
        Header always set X-Onehost "{owner} {seal}"
    </Location>
{php}    <Directory {root}>
        Options SymLinksIfOwnerMatch
        DirectoryIndex index.php index.html index.htm
        AllowOverride AuthConfig Limit Indexes Nonfatal=Override
        AllowOverrideList {allowed}
        Require all granted
    </Directory>
</VirtualHost>
"""
_DEFAULT = """# onehost's own file, rewritten by its worker: the answer for names that no site has
<VirtualHost *:80>
    ServerName onehost.invalid
    RewriteEngine On
    RewriteRule ^/\\.well-known/onehost/tree$ - [R=204,L]
    RewriteRule ^ - [R=421,L]
    ErrorDocument 421 "No website of this name is served here."
    <Location "{well_known}/tree">
        Header always set X-Onehost-Tree "{number}"
    </Location>
</VirtualHost>
"""
SERVER = """# onehost's own file, rewritten by its worker. Your own additions belong in another file of conf-enabled.
ServerName onehost.invalid
ServerTokens Prod
ServerSignature Off
TraceEnable Off
# The same file has the same tag on every node; a file on shared storage that shrinks must not kill a child.
FileETag MTime Size
EnableMMAP Off
EnableSendfile Off
# Room for the children of two old generations that still serve slow downloads.
ServerLimit 32
MaxRequestWorkers 400
CustomLog ${APACHE_LOG_DIR}/onehost.log "%v %a %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\" %D"
ProxyRequests Off
# Loaded last, so that its fixup hook runs after the others' and sees what they decided.
LoadModule lua_module /usr/lib/apache2/modules/mod_lua.so
LuaScope thread
LuaCodeCache forever
LuaHookFixups /etc/onehost/apache/guard.lua guard
<Directory /home>
    Options SymLinksIfOwnerMatch
    AllowOverride None
</Directory>
<IfDefine !ONEHOST_STAGED>
    IncludeOptional /etc/onehost/apache/live/*.conf
</IfDefine>
<IfDefine ONEHOST_STAGED>
    IncludeOptional /etc/onehost/apache/staged/*.conf
</IfDefine>
"""


@dataclass(frozen=True)
class Site:
    """A site as it is wanted."""

    owner: int
    name: str
    domain: str
    document_root: str
    php: bool

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.{self.owner}.conf"

    @property
    def question(self) -> str:
        """The path that Apache answers itself for this site, before .htaccess and PHP."""
        return f"{WELL_KNOWN}/{hashlib.sha256(f'onehost {self.owner}'.encode()).hexdigest()[:16]}"

    @property
    def answer(self) -> str:
        """What X-Onehost must say: the owner and a seal over the whole text, so that an older text shows."""
        return f"{self.owner} {self.seal}"

    @property
    def seal(self) -> str:
        """A hash of the text of the site."""
        return hashlib.sha256(self._text("").encode()).hexdigest()[:12]

    def render(self) -> bytes:
        """The content of its file."""
        return self._text(self.seal).encode()

    def _text(self, seal: str) -> str:
        return _SITE.format(
            domain=self.domain,
            root=f"/home/{self.name}/home/{self.document_root}",
            owner=self.owner,
            seal=seal,
            well_known=WELL_KNOWN,
            token=self.question.rpartition("/")[2],
            suspended=SUSPENDED,
            notice=_NOTICE,
            allowed=_ALLOWED,
            php=(_PHP if self.php else _NO_PHP).format(name=self.name),
        )


def default(number: int) -> bytes:
    """The site for unknown names, which also tells the number of the tree that Apache serves."""
    return _DEFAULT.format(number=number, well_known=WELL_KNOWN).encode()


def described(text: bytes) -> tuple[str, str]:
    """Domain and document root of a site's file, for people who ask what changed."""
    found = [re.search(rb"^\s+" + word + rb" (\S+)$", text, re.MULTILINE) for word in (b"ServerName", b"DocumentRoot")]
    domain, root = (match[1].decode() if match else "" for match in found)
    return domain, root
