"""Which interpolation factor each tensor gets, as mergekit reads the same settings; for reports and for checks."""

import re
from collections.abc import Sequence

from bessemer_api.v1alpha1.merge import Interpolation

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def factor_of(name: str, entries: Sequence[Interpolation], layers: int) -> float:
    """The factor of a tensor: the first entry that fits, at the depth of its layer."""
    entry = next(item for item in entries if item.filter is None or item.filter in name)
    return at_depth(entry.value, depth_of(name, layers))


def depth_of(name: str, layers: int) -> float:
    """0 for the first layer and for all that stands outside of layers, 1 for the last; a lone layer is the last."""
    found = _LAYER.search(name)
    if found is None:
        return 0.0
    return int(found.group(1)) / (layers - 1) if layers > 1 else 1.0


def at_depth(values: Sequence[float], depth: float) -> float:
    """The value at a depth between 0 and 1, with straight lines between the values."""
    place = depth * (len(values) - 1)
    low = min(int(place), len(values) - 1)
    high = min(low + 1, len(values) - 1)
    share = place - low
    return (1 - share) * values[low] + share * values[high]
