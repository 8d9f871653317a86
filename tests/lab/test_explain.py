"""`explain` against real packets: what it says of a connection is what becomes of it."""

from __future__ import annotations

import json
import sys

from calipy.ctl.explaining import read
from calipy.explain.answers import answers
from calipy.explain.questions import Ends, families, question
from calipy.lab.convergence import carried, programmed
from calipy.lab.executions import execute
from calipy.lab.waiting import together
from calipy.resources import network_policies, nodes
from calipy.resources.metadata import ObjectMeta
from calipy.resources.network_policies import NetworkPolicy, NetworkPolicySpec
from calipy.resources.policy_rules import EntityRule, Rule

FRIENDS = EntityRule(selector="role == 'friend'", namespace_selector="all()")
PORT_80 = EntityRule(ports=(80,))
PASSES = {"allowed": True, "refused": True, "filtered": False}
"""What a probe meets, and whether policy let it through: who refuses has been reached."""


async def apply(lab, name, namespace, **spec):
    async with lab.store() as store:
        value = NetworkPolicy(metadata=ObjectMeta(name=name, namespace=namespace), spec=NetworkPolicySpec(**spec))
        stored = await store.create(network_policies.KIND, value)
    await programmed(lab, stored)


async def explained(lab, client, server, protocol, port):
    """What `explain` says, by family."""
    async with lab.store() as store:
        known = await read(store)
    assert known.refused == {}
    ends = Ends(known.objects)
    source, destination = (
        ends.named(f"node/{end}" if end in lab.nodes else end, "default") for end in (client, server)
    )
    asked = question(ends, source, destination, protocol, str(port))
    found = answers(known.objects, ends, asked, families(source, destination, "both"))
    assert all(answer.agreed for answer in found)
    return {answer.family: answer.allowed for answer in found}


async def agree(lab, client, server, protocol, port):
    """Both, which are the same; what they say."""
    said = await explained(lab, client, server, protocol, port)
    found = await lab.probe(client, f"{server}:{port}", protocol, timeout_s=0.5)
    assert said == {family: PASSES[verdict] for family, verdict in found.items()}, (client, server, protocol, port)
    return said


async def test_what_it_says_of_a_connection_is_what_a_probe_meets(cluster):
    lab = await cluster(count=2)
    await lab.add("web", "n1", "TCP/80", "UDP/80", "SCTP/80", namespace="shop", app="web")
    await lab.add("near", "n1", role="friend")
    await lab.add("client", "n2", role="friend")
    await lab.add("stranger", "n2")
    await lab.add("mute", "n2", app="mute", role="friend")
    await lab.rest()
    clients = ("near", "client", "stranger", "mute", "n1", "n2")
    asked = [(client, "shop/web", protocol, 80) for client in clients for protocol in ("TCP", "UDP", "SCTP")]
    asked += [(client, "shop/web", "TCP", 81) for client in clients]

    assert {answer for each in asked for answer in (await agree(lab, *each)).values()} == {True}

    ingress = (
        Rule(action="Allow", protocol="TCP", source=FRIENDS, destination=PORT_80),
        Rule(action="Allow", protocol="SCTP", destination=PORT_80),
    )
    await apply(lab, "web", "shop", selector="app == 'web'", ingress=ingress)
    egress = (Rule(action="Deny", protocol="TCP"), Rule(action="Allow"))
    await apply(lab, "mute", "default", selector="app == 'mute'", types=("Egress",), egress=egress)

    found = await together(agree(lab, *each) for each in asked)
    allowed = {each[:1] + each[2:] for each, said in zip(asked, found, strict=True) if said == {4: True, 6: True}}
    assert allowed == {
        ("near", "TCP", 80), ("client", "TCP", 80), *((client, "SCTP", 80) for client in clients),
        *(("n1", protocol, 80) for protocol in ("TCP", "UDP")), ("n1", "TCP", 81),
    }  # fmt: skip
    assert [said for said in found if said not in ({4: True, 6: True}, {4: False, 6: False})] == []


async def test_a_node_s_packets_through_the_tunnel_come_from_the_tunnel_s_address(cluster):
    lab = await cluster(count=2, encapsulation="vxlan")
    await lab.add("web", "n1", "TCP/80", app="web")
    await lab.add("other", "n2")
    await lab.rest()
    async with lab.store() as store:
        notes = (await store.get(nodes.KIND, "n2")).value.metadata.annotations
    nets = (f"{notes[nodes.VXLAN_ADDRESS]}/32",)
    await apply(
        lab, "web", "default", selector="app == 'web'", ingress=(Rule(action="Allow", source=EntityRule(nets=nets)),)
    )

    assert await agree(lab, "n2", "web", "TCP", 80) == {4: True, 6: False}

    await lab.encapsulate("none")
    await carried(lab, "none")
    assert await agree(lab, "n2", "web", "TCP", 80) == {4: False, 6: False}


async def test_the_command_answers_with_its_exit_code(cluster):
    lab = await cluster(count=1)
    await lab.add("web", "n1", "TCP/80", app="web")
    await lab.add("client", "n1")
    await apply(lab, "web", "default", selector="app == 'web'")
    store = f"sqlite:{lab.folder}/store/datastore.sqlite3"
    program = [sys.executable, "-c", "from calipy.__main__ import pycalicoctl; pycalicoctl()", "--datastore", store]
    question = ["explain", "web", "--from", "client", "--port", "80", "-o", "json", "--exit-code"]

    done = await execute([*program, *question])

    assert (done.status, json.loads(done.text)["allowed"]) == (4, False)
    assert await lab.probe("client", "web:80", timeout_s=0.5) == {4: "filtered", 6: "filtered"}
