"""What can go wrong with addresses. Each message names object, value, reason and remedy."""

from __future__ import annotations


class IPAMError(Exception):
    """An address can't be given out or taken back."""


class Unusable(IPAMError):
    """A pool that was asked for can't be used, or no pool can."""


class Exhausted(IPAMError):
    """Every block that may be used is full, and none can be added."""


class BlockLimit(Exhausted):
    """The node holds as many blocks as it may."""


class AlreadyAssigned(IPAMError):
    """The address asked for is held by another handle."""


class Mismatch(IPAMError):
    """A release whose handle or sequence number isn't that of the allocation."""


class NotOurs(IPAMError):
    """The block belongs to another node, or to nobody."""


class Corrupt(IPAMError):
    """A block contradicts itself: nothing can be given out of it or taken back."""
