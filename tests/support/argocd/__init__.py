"""A real Argo CD beside a test cluster, for tests of GitOps."""

from tests.support.argocd.server import NAMESPACE, REASON, ArgoCD, RefusedError, find_argocd

__all__ = ["NAMESPACE", "REASON", "ArgoCD", "RefusedError", "find_argocd"]
