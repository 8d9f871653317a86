"""What a calculation has done, counted: that it does no more than it must can be seen, and tested."""

from __future__ import annotations

from msgspec import Struct


class Stats(Struct, gc=False, kw_only=True):
    """Totals since the start."""

    evaluations: int = 0
    """Selectors judged against labels."""
    conversions: int = 0
    """Policies and profiles whose rules were made."""
    bindings: int = 0
    """Times that the policies of local endpoints with the same labels were put in order."""
    fillings: int = 0
    """Sets that came into force and were filled."""
    memberships: int = 0
    """Members that came to, or went from, a set in force."""
    mergings: int = 0
    """Runs of policies for which it was found out anew who asks for which address."""
    askings: int = 0
    """Times that it was found out which policies of a run ask for one address."""
