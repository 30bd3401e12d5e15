-- Run again from the first stage that failed; other stages are named by `bessemer rerun-from`.
local os = require("os")
local failed = nil
for _, stage in ipairs((obj.status or {}).stages or {}) do
  if failed == nil and stage.phase == "Failed" then
    failed = stage.name
  end
end
if failed == nil then
  error("no stage has failed; name one with `bessemer rerun-from`")
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["bessemer.dev/rerun-from"] = failed .. "/" .. os.date("!%Y%m%dT%H%M%SZ")
return obj
