"""Addresses under stress: no address twice, none leaked, nothing left, whatever is killed while pods come and go; and
no open flow to a deleted pod reaches the next holder of its address."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from calipy.explain.report import EndpointReport
from calipy.ipam import snapshot
from calipy.ipam.judge import judge
from calipy.lab.cni_failures import CniFailure
from calipy.lab.waiting import eventually, together
from calipy.resources import ipam_blocks, ipam_handles, pods

NODES = ("n1", "n2", "n3")
LIVES = int(os.environ.get("CALIPY_TEST_LIVES", "200"))
AT_ONCE = 30
LIVES_A_KILL = 20
TRY_AGAIN = 11
_PATIENCE_S = 60.0


class Life:
    """One sandbox from its first ADD to its last DEL."""

    def __init__(self, world, number, seed):
        self.world, self.random = world, random.Random(seed)
        self.node = self.random.choice(NODES)
        self.id = f"{number:04d}" + f"{self.random.getrandbits(200):050x}"
        self.netns = f"life-{number}"
        self.arguments = {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": f"life-{number}"}
        self.addresses = ()

    @property
    def machine(self):
        return self.world.lab.machines[self.node]

    @property
    def runtime(self):
        return self.world.runtimes[self.node]

    @property
    def path(self):
        return f"/run/netns/{self.netns}"

    async def live(self):
        await self.machine.make_netns(self.netns)
        await self.add()
        for _ in range(self.random.randrange(4)):
            await self.random.choice((self.add, self.check, self.delete, self.killed_add, self.collect))()
        await self.random.choices((self.end, self.end_without_netns, self.be_forgotten), (6, 2, 2))[0]()

    async def persist(self, verb: str, call: Callable[[], Awaitable[object]]):
        """Tries again as long as the agent is away; each other failure is one."""
        end_s = time.monotonic() + _PATIENCE_S
        while True:
            self.world.done[verb] += 1
            try:
                return await call()
            except CniFailure as failure:
                if failure.code != TRY_AGAIN or time.monotonic() > end_s:
                    raise
                self.world.done["try again"] += 1
            await asyncio.sleep(0.2)

    def ask_add(self):
        return self.runtime.add(self.id, self.path, args=self.arguments)

    async def add(self):
        added = await self.persist("ADD", self.ask_add)
        assert not self.addresses or added.addresses == self.addresses, "another address than before"
        self.addresses = added.addresses
        self.world.hold(self)

    async def killed_add(self):
        """The runtime dies with the plug-in at work."""
        try:
            async with asyncio.timeout(self.random.uniform(0.001, 0.05)):
                await self.add()
        except TimeoutError:
            self.world.done["ADD killed"] += 1

    async def check(self):
        if self.addresses:
            await self.persist("CHECK", lambda: self.runtime.check(self.id, self.path, args=self.arguments))

    async def delete(self, path: str | None = None):
        self.world.let_go(self)
        await self.persist(
            "DEL", lambda: self.runtime.delete(self.id, self.path if path is None else path, args=self.arguments)
        )
        self.addresses = ()

    async def collect(self):
        await self.persist("GC", lambda: self.runtime.gc(self.world.valid()))

    async def end(self):
        for _ in range(self.random.randrange(1, 3)):
            await self.delete()
        await self.machine.delete_netns(self.netns)
        self.world.alive.discard(self.id)

    async def end_without_netns(self):
        """The namespace is gone first, its link with it."""
        await self.machine.delete_netns(self.netns)
        await self.delete(self.random.choice(("", self.path)))
        self.world.alive.discard(self.id)

    async def be_forgotten(self):
        """The runtime loses its memory of the sandbox: GC is to find it."""
        self.world.let_go(self)
        await self.machine.delete_netns(self.netns)
        for kept in (self.world.lab.folder / self.node / "cache" / "results").glob(f"*{self.id}*"):
            kept.unlink()
        self.world.alive.discard(self.id)
        self.world.done["forgotten"] += 1


class World:
    """All lives."""

    def __init__(self, lab, seed):
        self.lab = lab
        self.runtimes = {name: lab.runtime(name) for name in NODES}
        self.lives = [Life(self, number, f"{seed}-{number}") for number in range(LIVES)]
        self.alive = {life.id for life in self.lives}
        self.holders: dict[str, str] = {}
        self.done: Counter[str] = Counter()
        self.ended = 0

    def valid(self):
        """Attachments that a GC is to spare: of all that are not over, also those to come."""
        return [(container_id, "eth0") for container_id in sorted(self.alive)]

    def hold(self, life):
        for address in life.addresses:
            holder = self.holders.setdefault(address, life.id)
            assert holder == life.id, f"{address} was given to {life.id}, and {holder} has it"

    def let_go(self, life):
        for address in life.addresses:
            self.holders.pop(address, None)

    async def run(self):
        waiting = iter(self.lives)

        async def work():
            for life in waiting:
                await life.live()
                self.ended += 1
                if self.ended % LIVES_A_KILL == 0:
                    self.done["agents killed"] += 1
                    await self.lab.kill(life.node, "agent")

        await together(work() for _ in range(AT_ONCE))
        for name in NODES:
            await self.lab.ready(name)
            await self.runtimes[name].gc(())


async def traces(lab, name):
    """What is left of pods on a node."""
    machine = lab.machines[name]
    links = json.loads((await machine.run("ip", "-j", "link")).text)
    routes = [
        (await machine.run("ip", family, "-o", "route", "show", "proto", "80", "type", "unicast")).text
        for family in ("-4", "-6")
    ]
    table = (await machine.run("nft", "list", "table", "inet", "calipy")).text
    state = lab.folder / name / "state"
    found = {
        "links": [link["ifname"] for link in links if link["ifname"].startswith("cali")],
        "routes": "".join(routes),
        "rules": [line for line in table.splitlines() if '"cali' in line and "cali*" not in line],
        "endpoints": await lab.ask(name, "endpoints", tuple[EndpointReport, ...]),
        "records": [path.name for path in (state / "attachments").iterdir()],
        "namespaces": (await machine.run("ip", "netns", "list")).text,
        "results": [path.name for path in (lab.folder / name / "cache" / "results").iterdir()],
    }
    return {what: left for what, left in found.items() if left}


async def left_in_store(lab):
    async with lab.store() as store:
        verdict = judge(await snapshot.read(store), time.time())
        handles = [item.value.spec.handle_id async for page in store.list(ipam_handles.KIND) for item in page.items]
        kept = [item.value.metadata.name async for page in store.list(pods.KIND) for item in page.items]
        blocks = [
            item.value.spec.cidr
            async for page in store.list(ipam_blocks.KIND)
            for item in page.items
            if any(entry is not None for entry in item.value.spec.allocations)
        ]
    found = {"findings": verdict.findings, "handles": handles, "pods": kept, "blocks": blocks}
    return {what: left for what, left in found.items() if left}


async def test_pods_come_and_go_while_everything_is_killed_and_nothing_is_left(cluster):
    lab = await cluster()
    seed = os.environ.get("CALIPY_TEST_SEED") or f"{random.getrandbits(32):x}"
    world = World(lab, seed)
    start_s = time.monotonic()

    await world.run()

    print(f"seed {seed}: {LIVES} lives in {time.monotonic() - start_s:.1f} s: {dict(world.done)}")
    assert world.holders == {}
    assert {name: await traces(lab, name) for name in NODES} == dict.fromkeys(NODES, {})
    assert await left_in_store(lab) == {}


# --- open flows ---

ADDRESS, SERVICE, PORT = "10.244.77.7", "10.96.0.9", 5000
LISTEN = f"""
import select, socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", {PORT}))
tcp = socket.create_server(("", {PORT}))
print("up", flush=True)
connection, _ = tcp.accept()
while True:
    for one in select.select([udp, connection], [], [])[0]:
        print("udp" if one is udp else "tcp", one.recv(99), flush=True)
"""
TALK = """
import socket, sys, time
target = (sys.argv[1], int(sys.argv[2]))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(target)
tcp = socket.create_connection(target)
print("up", flush=True)
while True:
    for one in (udp, tcp):
        try:
            one.send(b"for the old one")
        except OSError:
            pass
    print("sent", flush=True)
    time.sleep(0.02)
"""
SNIFF = f"""
import ipaddress, socket
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
print("up", flush=True)
while True:
    packet = packets.recv(2000)
    if packet[30:34] == ipaddress.ip_address("{ADDRESS}").packed and packet[23] in (6, 17):
        print("got", packet[23], flush=True)
"""


async def within(lab, node, netns, name, code, *arguments):
    """Python at work in a pod's namespace."""
    argv = ("ip", "netns", "exec", netns, sys.executable, "-S", "-c", code, *arguments)
    made = await lab.machines[node].spawn(name, argv, {"PATH": os.environ["PATH"]}, restart=False)

    async def up():
        return "up" in made.log.read_text() or made.log.read_text()

    await eventually(up, name)
    return made


async def test_an_open_flow_to_a_deleted_pod_never_reaches_the_next_holder_on_another_node(cluster):
    """Through a port of the node that the pod is on: its translation outlives the rule that made it."""
    lab = await cluster()
    client = await lab.add("client", "n1")
    old = await lab.add("old", "n3", annotations={"cni.projectcalico.org/ipAddrs": f'["{ADDRESS}"]'})
    await lab.rest()
    target = lab.nodes["n3"].address(4)
    await lab.machines["n3"].run(
        "nft", "add table ip service; add chain ip service c { type nat hook prerouting priority -100; }; "
        f"add rule ip service c ip daddr {target} meta l4proto {{ tcp, udp }} th dport {PORT} dnat to {ADDRESS}",
    )  # fmt: skip
    server = await within(lab, "n3", old.netns, "server", LISTEN)
    talk = await within(lab, "n1", client.netns, "talk", TALK, target, str(PORT))

    async def both_are_open():
        return {"udp", "tcp"} <= {line.split()[0] for line in server.log.read_text().splitlines()}

    await eventually(both_are_open, "both flows are open")
    await lab.machines["n3"].run("nft", "delete", "table", "ip", "service")  # as kube-proxy when the endpoint goes

    await lab.delete(old)
    await lab.machines["n2"].make_netns("shop.new")
    sniffer = await within(lab, "n2", "shop.new", "sniffer", SNIFF)
    await lab.runtime("n2").add(
        "f" * 64, "/run/netns/shop.new", args={"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": "new"},
        capabilities={"io.kubernetes.cri.pod-annotations": {"cni.projectcalico.org/ipAddrs": f'["{ADDRESS}"]'}},
    )  # fmt: skip

    async def reached():
        pinged = await lab.machines["n1"].run(
            "ip", "netns", "exec", client.netns, "ping", "-c1", "-W1", ADDRESS, check=False
        )
        return not pinged.status or "it is not reached"

    await eventually(reached, "the next holder")
    sent = talk.log.read_text().count("sent")

    async def talked_on():
        return talk.log.read_text().count("sent") > sent + 60

    await eventually(talked_on, "it goes on talking")
    assert "got" not in sniffer.log.read_text()
