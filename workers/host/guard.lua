-- onehost's guard, run by Apache for each request after .htaccess and mod_rewrite have had their say, before any handler.
-- A site may be answered by Apache's own file handlers and by the PHP socket of its own account, and by nothing else:
-- no other account's socket, no proxy to anywhere, no status page. Without it three lines of .htaccess run code as
-- another tenant. The account is read from the DocumentRoot of the vhost, which no .htaccess can change.

local HARMLESS = {
  [""] = true, ["none"] = true, ["default-handler"] = true, ["redirect-handler"] = true,
  ["httpd/unix-directory"] = true, ["type-map"] = true,
}

-- A media type doubles as a handler's name: anything that is not plainly a type, or is one that modules act upon.
local function acts(kind)
  kind = kind:lower():gsub("%s*;.*$", "")
  if kind == "" or kind == "httpd/unix-directory" then return false end
  if not kind:find("^[%w.+-]+/[%w.+-]+$") then return true end
  return kind:find("x-httpd", 1, true) ~= nil or kind:find("server-parsed", 1, true) ~= nil or kind:find("^httpd/") ~= nil
end

function guard(r)
  local account = (r.document_root or ""):match("^/home/([a-z0-9]+)/")
  if not account then return apache2.DECLINED end
  local socket = "proxy:unix:/run/onehost/php/" .. account .. ".sock|fcgi://localhost"
  local file, handler = r.filename or "", r.handler or ""
  -- mod_rewrite applies its [H=] and [T=] later than this hook, and notes them here.
  local forced_handler = r.notes["rewrite-forced-handler"] or ""
  local forced_type = r.notes["rewrite-forced-mimetype"] or ""
  local redirected = handler == "redirect-handler" and file:find("^redirect:")
  local elsewhere = file:find("^%a[%w+.-]*:") and not redirected
  if elsewhere or not (HARMLESS[handler] or handler == socket)
    or not (HARMLESS[forced_handler] or forced_handler == socket)
    or acts(r.content_type or "") or acts(forced_type) then
    r:err("onehost: refused handler '" .. handler .. forced_handler .. "' for " .. file)
    return 403
  end
  return apache2.DECLINED
end
