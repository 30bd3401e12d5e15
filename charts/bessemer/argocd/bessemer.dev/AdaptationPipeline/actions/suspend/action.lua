-- Suspend by annotation, which git does not declare, so that self-heal leaves it alone.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["bessemer.dev/suspend"] = "true"
return obj
