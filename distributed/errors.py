"""What a rank raises when the others are not with it."""


class DistributedError(RuntimeError):
    """Base of the errors below."""


class CollectiveMismatch(DistributedError):
    """Ranks called different collectives, or the same one with different arguments. Every rank raises the
    same text.
    """


class PeerFailure(DistributedError):
    """Another rank raised, ended, was killed or fell silent.

    `rank` is that rank, `traceback` its traceback where it sent one. `ringgrad_consequence` tells reporters
    that the cause is printed elsewhere.
    """

    ringgrad_consequence = True

    def __init__(self, message: str, rank: int, traceback: str = "") -> None:
        super().__init__(message)
        self.rank, self.traceback = rank, traceback


class CollectiveTimeout(DistributedError):
    """A rank is alive but did not take part before the deadline."""
