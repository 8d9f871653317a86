"""What a lab consists of: machines, segments, addresses, and what each machine is told. Pure.

    n1 n2 n4 n5 ...        n3 n6 ...        outside
     |  |  |  |             |  |               |
    =====rack-a=====       =rack-b=        ====wan====
            \\                |               /
             +------------- tor ------------+

`tor` is a top-of-rack switch: the segments are bridges on it, it routes between them, and it speaks BGP with every
node of a rack (BIRD). Nodes have their default route through it. `outside` reaches the racks through it, but has no
route to pods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from msgspec import Struct

from calipy.resources.bgp_peers import BGPPeer, BGPPeerSpec
from calipy.resources.metadata import ObjectMeta

Encapsulation = Literal["none", "vxlan", "vxlan-crosssubnet"]
Families = Literal["ipv4", "dual"]

NODES_MOST: Final = 99
NODE_AS: Final = 64512
TOR_AS: Final = 64513
HOLD_TIME_S: Final = 9
RACK_LABEL: Final = "rack"
TOR, OUTSIDE, UPLINK = "tor", "outside", "eth0"
VXLAN_MODES: Final[Mapping[Encapsulation, Literal["Never", "Always", "CrossSubnet"]]] = {
    "none": "Never",
    "vxlan": "Always",
    "vxlan-crosssubnet": "CrossSubnet",
}
_POOLS: Final = {4: "10.244.0.0/16", 6: "fd00:10:244::/112"}
_LENGTHS: Final = {4: 24, 6: 64}


class Segment(Struct, frozen=True, gc=False):
    """An Ethernet segment: a bridge on tor, which has the first address of each network."""

    name: str
    number: int
    """It stands in the segment's addresses."""

    def network(self, family: int) -> str:
        """As a CIDR."""
        return f"{self._prefix(family)}{'0' if family == 4 else ''}/{_LENGTHS[family]}"

    def address(self, family: int, host: int) -> str:
        """The address of host number `host`, written with the same digits in both families."""
        return f"{self._prefix(family)}{host}"

    def gateway(self, family: int) -> str:
        """Tor's address."""
        return self.address(family, 1)

    def _prefix(self, family: int) -> str:
        return f"10.9.{self.number}." if family == 4 else f"fd00:9:0:{self.number}::"


RACKS: Final = (Segment("rack-a", 1), Segment("rack-b", 2))
WAN: Final = Segment("wan", 9)


class Host(Struct, frozen=True, gc=False):
    """A machine with one link, `eth0`, on a segment."""

    name: str
    segment: Segment
    number: int

    def address(self, family: int) -> str:
        """Its address."""
        return self.segment.address(family, self.number)

    def interface(self, family: int) -> str:
        """Its address with its network's prefix length."""
        return f"{self.address(family)}/{_LENGTHS[family]}"


class Plan(Struct, frozen=True, gc=False, kw_only=True):
    """A lab as it is asked for."""

    count: int = 3
    """Nodes: n1 to n<count>."""
    encapsulation: Encapsulation = "none"
    families: Families = "dual"

    @property
    def versions(self) -> tuple[int, ...]:
        """Address families: 4, or 4 and 6."""
        return (4, 6) if self.families == "dual" else (4,)

    @property
    def nodes(self) -> tuple[Host, ...]:
        """The nodes; every third stands in rack b."""
        return tuple(Host(f"n{i}", RACKS[1 if i % 3 == 0 else 0], 10 + i) for i in range(1, self.count + 1))

    @property
    def outside(self) -> Host:
        """The host that has no route to pods."""
        return Host(OUTSIDE, WAN, 99)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Racks without nodes are left out."""
        used = {node.segment for node in self.nodes}
        return (*(rack for rack in RACKS if rack in used), WAN)

    @property
    def machines(self) -> tuple[str, ...]:
        """All names."""
        return (TOR, OUTSIDE, *(node.name for node in self.nodes))


def peerings(plan: Plan) -> tuple[BGPPeer, ...]:
    """Each rack's nodes peer with tor, a session a family."""
    return tuple(
        BGPPeer(
            metadata=ObjectMeta(name=f"tor-{segment.name}-ipv{family}"),
            spec=BGPPeerSpec(
                node_selector=f"{RACK_LABEL} == '{segment.name}'", peer_ip=segment.gateway(family), as_number=TOR_AS
            ),
        )
        for segment in plan.segments
        if segment != WAN
        for family in plan.versions
    )


def agent_environment(plan: Plan, node: Host) -> dict[str, str]:
    """What a node's agent is told. Everything else is the product's default."""
    environment = {
        "NODENAME": node.name,
        "CALIPY_NODE_LABELS": f"{RACK_LABEL}={node.segment.name}",
        "IP": "autodetect",
        "IP6": "autodetect" if 6 in plan.versions else "none",
        "CALIPY_BGP_HOLD_TIME": str(HOLD_TIME_S),
        "FELIX_HEALTHENABLED": "true",
        **{f"CALICO_IPV{family}POOL_CIDR": "none" for family in (4, 6)},
    }
    for family in plan.versions:
        environment |= {
            f"CALICO_IPV{family}POOL_CIDR": _POOLS[family],
            f"CALICO_IPV{family}POOL_VXLAN": VXLAN_MODES[plan.encapsulation],
            f"CALICO_IPV{family}POOL_NAT_OUTGOING": "true",
        }
    return environment


# --- links, as `ip -batch` takes them ---


def tor_links(plan: Plan) -> Iterator[str]:
    """The segments, on tor."""
    for segment in plan.segments:
        yield f"link add {segment.name} type bridge stp_state 0 mcast_snooping 0"
        yield f"link set {segment.name} up"
        for family in plan.versions:
            yield f"address add {segment.gateway(family)}/{_LENGTHS[family]} dev {segment.name}{_nodad(family)}"


def cable(host: Host, pid: int) -> Iterator[str]:
    """From a port of tor, named after the host, to the host's eth0. `pid`: a process in the host's namespace."""
    yield f"link add {host.name} type veth peer name {UPLINK} netns {pid}"
    yield f"link set {host.name} master {host.segment.name} up"


def host_links(plan: Plan, host: Host) -> Iterator[str]:
    """The host's own end. Nodes have a default route; outside knows the racks alone."""
    yield f"link set {UPLINK} up"
    for family in plan.versions:
        yield f"address add {host.interface(family)} dev {UPLINK}{_nodad(family)}"
        gateway = host.segment.gateway(family)
        if host.segment != WAN:
            yield f"route add default via {gateway}"
            continue
        for segment in plan.segments[:-1]:
            yield f"route add {segment.network(family)} via {gateway}"


def _nodad(family: int) -> str:
    """Without the second that duplicate address detection takes."""
    return " nodad" if family == 6 else ""


def forwarding(plan: Plan) -> tuple[str, ...]:
    """The sysctls by which a machine routes, as kubeadm wants them of a node."""
    names = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
    return tuple(f"{names[family]}=1" for family in plan.versions)


def prompt(plan: Plan, scope: str) -> tuple[str, ...]:
    """The sysctl by which a link (`default`: all that are made later) has its link-local address at once, without the
    seconds of duplicate address detection: nothing else on these segments takes one."""
    return (f"net.ipv6.conf.{scope}.accept_dad=0",) if 6 in plan.versions else ()


# --- tor's BIRD ---


def bird_configuration(plan: Plan) -> str:
    """Tor's bird.conf: a session with each node, its routes into the kernel; nodes hear of the outside's network. It
    listens, as top-of-rack switches do: where both sides connect at once, one of two connections ends, and under
    graceful restart BIRD takes that for a second restart and drops what it held (RFC 4724 4.2)."""
    families = "\n\n".join(_bird_family(plan, family) for family in plan.versions)
    return f"""\
# The top-of-rack switch of a CalIPy lab: AS {TOR_AS}, the nodes are AS {NODE_AS}.
router id {WAN.gateway(4)};
log stderr all;

protocol device {{ }}

{families}
"""


def _bird_family(plan: Plan, family: int) -> str:
    sessions = "\n".join(_bird_session(node, family) for node in plan.nodes)
    return f"""\
protocol direct outside_v{family} {{ ipv{family}; interface "{WAN.name}"; }}
protocol kernel kernel_v{family} {{ ipv{family} {{ import none; export where source = RTS_BGP; }}; }}
template bgp node_v{family} {{
  local as {TOR_AS};
  hold time {HOLD_TIME_S};
  passive on;
  error wait time 1, 2;
  ipv{family} {{ import all; export where source = RTS_DEVICE; }};
}}
{sessions}"""


def _bird_session(node: Host, family: int) -> str:
    return (
        f"protocol bgp {node.name}_v{family} from node_v{family} {{ "
        f"source address {node.segment.gateway(family)}; neighbor {node.address(family)} as {NODE_AS}; }}"
    )
