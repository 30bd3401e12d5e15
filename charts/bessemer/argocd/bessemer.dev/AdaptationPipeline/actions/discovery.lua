-- What can be asked of this pipeline now. `disabled` is advice for the page alone: each action checks again itself.
local held = {}
local status = obj.status or {}
for _, condition in ipairs(status.conditions or {}) do
  held[condition.type] = condition
end

local has_failed = false
for _, stage in ipairs(status.stages or {}) do
  has_failed = has_failed or stage.phase == "Failed"
end
local has_previous = false
for _, channel in ipairs(status.channels or {}) do
  has_previous = has_previous or channel.previous ~= nil
end

local waits = held.Promoted ~= nil and held.Promoted.reason == "WaitingForApproval"
local is_stalled = held.Stalled ~= nil and held.Stalled.status == "True"
local is_suspended = held.Suspended ~= nil and held.Suspended.status == "True"

local actions = {}
actions["approve"] = { disabled = not waits }
actions["reject"] = { disabled = not waits }
actions["retry"] = { disabled = not is_stalled }
actions["rerun-from"] = { disabled = not has_failed }
actions["rollback"] = { disabled = not has_previous }
actions["suspend"] = { disabled = is_suspended }
actions["resume"] = { disabled = not is_suspended }
return actions
