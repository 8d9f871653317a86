"""The allocator's errors as a runtime, and the way back, understand them."""

import pytest

from calipy.cni.draws import AllocatedAddresses
from calipy.cni.errors import CniError, Code
from calipy.ipam.errors import Corrupt


class Broken:
    """An allocator whose block is corrupt."""

    async def addresses_of(self, handle):
        raise Corrupt("block 10.0.0.0/26 is corrupt: spec.allocations: too short; restore it")

    release = addresses_of


@pytest.mark.parametrize("verb", ["addresses_of", "release"])
async def test_a_corrupt_block_is_an_error_of_cnis(verb):
    addresses = AllocatedAddresses(Broken(), "n1", lambda: 0.0)
    with pytest.raises(CniError, match="too short") as caught:
        await getattr(addresses, verb)("net.c1")
    assert caught.value.code == Code.NO_ADDRESS
