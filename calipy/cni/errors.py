"""Errors that a container runtime understands (CNI specification, "Error")."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Error codes. 1 to 99 are the specification's, from 100 on they are ours."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIGURATION = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    NO_ADDRESS = 100
    DIFFERS = 101
    KERNEL_REFUSED = 102
    STORE_REFUSED = 103
    WRONG_ANNOTATION = 104
    ALREADY_ATTACHED = 105
    INTERNAL = 999


class CniError(Exception):
    """A request that can't be met. `message` names object, field, value and reason; `details` says the remedy."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(f"{message}; {details}" if details else message)
