"""A network that carries pods' packets and enforces nothing, of plug-ins that others have written (ptp, host-local,
portmap) and static routes: what the cluster itself is tested with, and what ours is measured against."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path

import msgspec

from calipy.lab.cluster import ip_batch
from calipy.lab.topology import TOR
from calipy.lab.waiting import together
from tests.cluster.cluster import Cluster


async def install(cluster: Cluster) -> None:
    """Routes between all nodes, and on each a CNI configuration for the CIDRs that the controller-manager gave it."""
    await cluster.wait("node --all", "jsonpath={.spec.podCIDRs}")
    names = list(cluster.nodes)
    cidrs = dict(zip(names, await together(_cidrs(cluster, name) for name in names), strict=True))
    routes = {name: [*_routes(cluster, name, cidrs[name])] for name in names}
    await ip_batch(cluster.machines[TOR], [line for lines in routes.values() for line in lines])
    for name, node in cluster.nodes.items():
        beside = [other for other in names if other != name and cluster.nodes[other].segment == node.segment]
        await ip_batch(cluster.machines[name], [line for other in beside for line in routes[other]])
    await together(asyncio.to_thread(_configure, cluster.disk(name, "/etc/cni/net.d"), cidrs[name]) for name in names)


async def _cidrs(cluster: Cluster, name: str) -> list[str]:
    found = (await cluster.kubectl("get", "node", name, "-o", "jsonpath={.spec.podCIDRs}")).stdout
    return msgspec.json.decode(found, type=list[str])


def _routes(cluster: Cluster, name: str, cidrs: list[str]) -> list[str]:
    node = cluster.nodes[name]
    return [f"route replace {cidr} via {node.address(ip_network(cidr).version)}" for cidr in cidrs]


def _configure(folder: Path, cidrs: list[str]) -> None:
    conflist = {
        "cniVersion": "0.4.0",
        "name": "stand-in",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": cidr}] for cidr in cidrs],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                    "dataDir": "/run/cni-ipam",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    fresh = folder / "stand-in.new"
    fresh.write_bytes(msgspec.json.encode(conflist))
    fresh.replace(folder / "10-stand-in.conflist")
