"""CHECK beyond the kernel: record, prevResult, endpoint, allocation."""

import pytest
from msgspec import structs

from calipy.cni.checks import check
from calipy.cni.errors import CniError


def previous(world, **changes):
    (entry,) = world.attachments
    mac, interface = entry.endpoint.mac, entry.endpoint.interface
    result = {
        "interfaces": [{"name": interface}, {"name": "eth0", "mac": mac, "sandbox": "/x"}],
        "ips": [{"address": "10.0.0.0/32"}, {"address": "fd00::/128"}],
        **changes,
    }
    return world.request("CHECK", conf={"prevResult": result})


async def found(world, request):
    with pytest.raises(CniError) as caught:
        await check(world.site, request, 5)
    assert caught.value.code == 101
    return caught.value.message


async def test_all_is_well(world):
    await world.add()
    await check(world.site, previous(world), 5)


async def test_nothing_was_added(world):
    assert "container c1 has no interface eth0 on net" in await found(world, world.request("CHECK"))


async def test_other_result(world):
    await world.add()
    assert "prevResult: addresses is" in await found(world, previous(world, ips=[{"address": "10.0.0.7/32"}]))
    assert "prevResult: interface on the node" in await found(world, previous(world, interfaces=[{"name": "cali9"}]))
    other = [{"name": "eth0", "mac": "02:00:00:00:00:99", "sandbox": "/x"}]
    assert "prevResult: MAC address" in await found(world, previous(world, interfaces=other))


async def test_the_links(world):
    await world.add()
    request = previous(world)
    world.links.clear()
    assert "is gone from the node" in await found(world, request)


async def test_the_host_routes(world):
    await world.add()
    world.routes.clear()
    assert "route 10.0.0.0/32" in await found(world, previous(world))


async def test_the_endpoint(world):
    await world.add()
    ((identity, endpoint),) = world.endpoints.items()
    world.refusals[identity] = "chain refused: ENOMEM"
    assert "chain refused: ENOMEM" in await found(world, previous(world))
    world.endpoints[identity] = structs.replace(endpoint, container_id="c9")
    assert "container c9's by now" in await found(world, previous(world))
    world.endpoints.clear()
    assert "has no chain" in await found(world, previous(world))


async def test_the_allocation(world):
    await world.add()
    world.allocations["net.c1"] = ("10.0.0.0",)
    assert "address fd00:: is not allocated to handle net.c1" in await found(world, previous(world))
