"""What stands before all sites: Apache's own settings, the answer for names no site has, and a certificate for them."""

from __future__ import annotations

from . import files
from .access_log import LOG
from .machine import Machine
from .site import LIVE, TLS, WELL_KNOWN

FOLDER = "/etc/onehost/apache"
#: Certificate and key for sites that have none of their own. A node's own is put there by whoever has one.
DEFAULT = f"{TLS}/default.pem"
_DEFAULT = """# onehost's own file, rewritten by its worker: the answer for names that no site has
{vhosts}"""
_VHOST = """<VirtualHost *:{port}>
    ServerName onehost.invalid
{tls}    RewriteEngine On
    RewriteRule ^/\\.well-known/onehost/tree$ - [R=204,L]
    RewriteRule ^ - [R=421,L]
    ErrorDocument 421 "No website of this name is served here."
    <Location "{well_known}/tree">
        Header always set X-Onehost-Tree "{number}"
    </Location>
</VirtualHost>
"""
SERVER = f"""# onehost's own file, rewritten by its worker. Your own additions belong in another file of conf-enabled.
ServerName onehost.invalid
ServerTokens Prod
ServerSignature Off
TraceEnable Off
SSLProtocol -all +TLSv1.2 +TLSv1.3
# The same file has the same tag on every node; a file on shared storage that shrinks must not kill a child.
FileETag MTime Size
EnableMMAP Off
EnableSendfile Off
# Room for the children of two old generations that still serve slow downloads.
ServerLimit 32
MaxRequestWorkers 400
# The site's name, then the usual combined form, so that a site's own log is what every reader of logs knows.
CustomLog {LOG} "%v %a - %u %t \\"%r\\" %>s %O \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\" %D"
ProxyRequests Off
# Loaded last, so that its fixup hook runs after the others' and sees what they decided.
LoadModule lua_module /usr/lib/apache2/modules/mod_lua.so
LuaScope thread
LuaCodeCache forever
LuaHookFixups {FOLDER}/guard.lua guard
<Directory /home>
    Options SymLinksIfOwnerMatch
    AllowOverride None
</Directory>
# A site's file names its overrides by the tree that is read: the live one, or one that is only tried.
<IfDefine !ONEHOST_STAGED>
    Define ONEHOST_TREE {LIVE}
    IncludeOptional {LIVE}/*.conf
</IfDefine>
<IfDefine ONEHOST_STAGED>
    Define ONEHOST_TREE {FOLDER}/staged
    IncludeOptional {FOLDER}/staged/*.conf
</IfDefine>
"""


def default(number: int) -> bytes:
    """The sites for unknown names, which also tell the number of the tree that Apache serves."""
    secure = f"    SSLEngine On\n    SSLCertificateFile {DEFAULT}\n"
    vhosts = [
        _VHOST.format(port=port, tls=tls, number=number, well_known=WELL_KNOWN)
        for port, tls in ((80, ""), (443, secure))
    ]
    return _DEFAULT.format(vhosts="".join(vhosts)).encode()


def settle_certificate(machine: Machine) -> None:
    """Makes a certificate that nobody trusts, where the node has none: without one Apache would not start."""
    folder, place = machine.path(TLS), machine.path(DEFAULT)
    folder.mkdir(parents=True, exist_ok=True)
    if place.exists():
        return
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=onehost.invalid"
    command += " -addext basicConstraints=critical,CA:FALSE"
    said = machine.runner.run(["openssl", *command.split(), "-keyout", "/dev/stdout", "-out", "/dev/stdout"]).check()
    if machine.real:
        start = said.output.index("-----BEGIN")
        files.write(place, said.output[start:], 0o600)
