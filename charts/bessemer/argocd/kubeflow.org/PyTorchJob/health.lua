-- Health of a PyTorchJob of training-operator v1. A job that is suspended, as Kueue does it, waits and has not failed.
local held = {}

if obj.status == nil or obj.status.conditions == nil then
  return { status = "Progressing", message = "waits for training-operator" }
end
for _, condition in ipairs(obj.status.conditions) do
  if condition.status == "True" then
    held[condition.type] = condition
  end
end
if held.Failed ~= nil then
  return { status = "Degraded", message = held.Failed.message or "" }
end
if held.Succeeded ~= nil then
  return { status = "Healthy", message = held.Succeeded.message or "" }
end
if held.Suspended ~= nil then
  return { status = "Suspended", message = held.Suspended.message or "" }
end
local now = held.Running or held.Restarting or held.Created
return { status = "Progressing", message = now ~= nil and now.message or "" }
