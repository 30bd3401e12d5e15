"""A real Kueue beside the control plane of the tests."""

from tests.support.kueue.server import find_kueue, start_kueue

__all__ = ["find_kueue", "start_kueue"]
