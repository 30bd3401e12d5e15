-- Let the last channel that held something before hold it again.
-- The account is that of argocd-server: who may use this action is for Argo CD's own RBAC.
local os = require("os")
local account = "system:serviceaccount:argocd:argocd-server"
local found = nil
for _, wanted in ipairs((obj.spec.promotion or {}).channels or {}) do
  for _, channel in ipairs((obj.status or {}).channels or {}) do
    if channel.name == wanted.name and channel.previous ~= nil then
      found = channel
    end
  end
end
if found == nil then
  error("no channel held anything before")
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
local word = os.date("!%Y%m%dT%H%M%SZ")
obj.metadata.annotations["bessemer.dev/rollback"] = found.name .. "/" .. found.previous .. "/" .. word
obj.metadata.annotations["bessemer.dev/rollback-by"] = account
return obj
