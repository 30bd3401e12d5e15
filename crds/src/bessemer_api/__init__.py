"""The contract of Bessemer: the four kinds, the RunSpec that the operator writes and the RunReport that pods write.

Depends on pydantic and the standard library only, so that the operator, the trainer and users can all import it.
"""

GROUP = "bessemer.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
