-- Health of what runs as attempts: the same script for Evaluation, MergeJob and TrainingStage.
local held = {}

if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "waits for the operator" }
end
for _, condition in ipairs(obj.status.conditions) do
  held[condition.type] = condition
end
if held.Stalled ~= nil and held.Stalled.status == "True" then
  return { status = "Degraded", message = held.Stalled.reason .. ": " .. (held.Stalled.message or "") }
end
if held.Ready ~= nil and held.Ready.status == "True" then
  return { status = "Healthy", message = held.Ready.reason }
end
if obj.status.phase == "Suspended" then
  return { status = "Suspended", message = "Suspended" }
end
return { status = "Progressing", message = obj.status.phase or "" }
