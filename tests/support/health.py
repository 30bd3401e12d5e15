"""Runs the Lua of charts/bessemer/argocd as Argo CD runs it: Lua 5.1 with the basic library, and dates where a
script requires "os": the name alone is not defined there.
"""

from pathlib import Path
from typing import Any

import lupa.lua51

ROOT = Path(__file__).parents[2] / "charts/bessemer/argocd"
PIPELINE = ROOT / "bessemer.dev/AdaptationPipeline"
NOW = "20260131T120000Z"
SANDBOX = """
local date = function(form) assert(form == "!%Y%m%dT%H%M%SZ"); return "NOW" end
require = function(name) assert(name == "os"); return {date = date} end
os, io = nil, nil
""".replace("NOW", NOW)


def run_lua(script: Path, obj: Any) -> Any:
    """The result of a script about an object, as Python values. Raises LuaError."""
    lua = lupa.lua51.LuaRuntime(register_eval=False, register_builtins=False)
    lua.execute(SANDBOX)
    lua.globals().obj = lua.table_from(obj, recursive=True)
    return _plain(lua.execute(script.read_text()))


def health_of(kind: Path, obj: Any) -> dict[str, str]:
    """Health of an object of the kind that has this folder."""
    return dict(run_lua(kind / "health.lua", obj))


def _plain(value: Any) -> Any:
    if lupa.lua51.lua_type(value) != "table":
        return value
    items = {key: _plain(item) for key, item in value.items()}
    is_list = items and list(items) == list(range(1, len(items) + 1))
    return list(items.values()) if is_list else items
