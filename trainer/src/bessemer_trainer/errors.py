"""How the trainer gives up: each error knows its reason (one PascalCase word) and its exit code. Holds no logic."""

from typing import ClassVar

from bessemer_api.job import EXIT_PERMANENT, EXIT_PREEMPTED, EXIT_TRANSIENT


class TrainerError(Exception):
    """An error that a user can act on. The message says what was wrong, where, what was expected, what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    def __reduce__(self) -> tuple[type["TrainerError"], tuple[str, str]]:
        """So that an error of a worker process reaches its parent whole."""
        return type(self), (self.reason, self.message)


class PermanentError(TrainerError):
    """Bad RunSpec or data: trying again would not help."""

    exit_code = EXIT_PERMANENT


class TransientError(TrainerError):
    """Store or network: trying again may help."""

    exit_code = EXIT_TRANSIENT


class Preempted(BaseException):
    """Asked to stop by SIGTERM. A training stage has saved before it raises this.

    Like KeyboardInterrupt it is no Exception: it comes at any line, and no handler of errors may take it for one.
    """

    exit_code: ClassVar[int] = EXIT_PREEMPTED
