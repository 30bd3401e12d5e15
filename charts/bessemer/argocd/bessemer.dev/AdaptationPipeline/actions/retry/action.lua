-- Try again what failed, by a new word.
local os = require("os")
local is_stalled = false
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  is_stalled = is_stalled or (condition.type == "Stalled" and condition.status == "True")
end
if not is_stalled then
  error("nothing has failed that could be tried again")
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["bessemer.dev/retry"] = os.date("!%Y%m%dT%H%M%SZ")
return obj
