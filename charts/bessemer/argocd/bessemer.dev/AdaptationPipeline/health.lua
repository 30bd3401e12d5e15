-- Health of an AdaptationPipeline: who has to act now. Waiting for a person or a time is Suspended.
local waits = { WaitingForApproval = true, WaitingForMerge = true, Soaking = true }
local held = {}

if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "waits for the operator" }
end
for _, condition in ipairs(obj.status.conditions) do
  held[condition.type] = condition
end

local function is(kind)
  return held[kind] ~= nil and held[kind].status == "True"
end

local function told(kind)
  local found = held[kind]
  if found == nil then
    return ""
  end
  if found.message ~= nil and found.message ~= "" then
    return found.reason .. ": " .. found.message
  end
  return found.reason
end

if is("Stalled") then
  if held.Stalled.reason == "Held" then
    return { status = "Suspended", message = told("Stalled") }
  end
  return { status = "Degraded", message = told("Stalled") }
end
if is("Suspended") then
  return { status = "Suspended", message = "Suspended" }
end
if is("Ready") then
  return { status = "Healthy", message = told("Ready") }
end
if held.Ready ~= nil and waits[held.Ready.reason] then
  return { status = "Suspended", message = told("Ready") }
end
return { status = "Progressing", message = obj.status.currentStage or "" }
