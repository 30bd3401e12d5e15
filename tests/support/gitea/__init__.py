"""A real git server with pull requests on this machine, for tests of promotion through git."""

from tests.support.gitea.server import Gitea, find_gitea

__all__ = ["Gitea", "find_gitea"]
