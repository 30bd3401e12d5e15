"""Runs the pods of a cluster as processes of this host.

A local run is, in one asyncio process: `LocalCluster.claim()`, then `run_expander` and `run_node` beside the
operator's own queue. The test cluster uses `run_node` alone: its controllers and its scheduler are the real ones.
"""

from .expand import run_expander
from .kubelet import Node, host_node, run_node
from .launch import METRICS_PORT_ANNOTATION, METRICS_PORT_VARIABLE

__all__ = ["METRICS_PORT_ANNOTATION", "METRICS_PORT_VARIABLE", "Node", "host_node", "run_expander", "run_node"]
