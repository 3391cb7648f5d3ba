"""Errors of comparisons."""


class ComparisonError(Exception):
    """Base of the errors of this library. The message is a sentence for users."""


class ServerUnavailable(ComparisonError):
    """A server does not answer, or fails."""


class RequestRefused(ComparisonError):
    """A server refuses a request; the message has its reason."""


class Incomparable(ComparisonError):
    """A server does not return what a comparison needs, or has another vocabulary."""
