-- Approve: names candidate and evidence as the status shows them, so that it can not slip over to others.
-- The account is that of argocd-server: who may use this action is for Argo CD's own RBAC.
local account = "system:serviceaccount:argocd:argocd-server"
local status = obj.status or {}
local promoted = nil
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Promoted" then
    promoted = condition
  end
end
if status.observedGeneration ~= obj.metadata.generation then
  error("the operator has not seen this declaration yet")
end
if promoted == nil or promoted.reason ~= "WaitingForApproval" then
  error("nothing waits for approval")
end
local gate = nil
for _, found in ipairs(status.gates or {}) do
  if found.name == obj.spec.promotion.gate then
    gate = found
  end
end
if gate == nil or gate.candidate == nil or gate.evidenceDigest == nil then
  error("the status names no candidate with its evidence")
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["bessemer.dev/approve"] = gate.candidate .. "/" .. gate.evidenceDigest
obj.metadata.annotations["bessemer.dev/approved-by"] = account
return obj
