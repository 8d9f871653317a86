"""What stands before anything else is known: our table is taken over as it is, or made with the closed skeleton in it.

An agent does this first, before it imports what it needs for all the rest: until then its pods are open, where no
agent before it has left a table. So nothing is imported here but the codec, the driver and the rules.
"""

from __future__ import annotations

from calipy.felix.calc.settings import FelixSettings
from calipy.felix.drivers.nftables import NftablesDriver
from calipy.felix.objects import Owner, Put
from calipy.felix.rules.statics import skeleton

_OWNER = Owner("static", "skeleton")


def guard(driver: NftablesDriver, settings: FelixSettings) -> None:
    """One transaction: a table of ours without rules would be taken for a right one by the next agent. Raises
    TableOwned, and OSError where the kernel has no nf_tables or refuses the skeleton."""
    puts = () if driver.exists() else tuple(Put(_OWNER, name, value) for name, value in skeleton(settings).items())
    driver.open(puts)
