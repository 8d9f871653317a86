"""Names and ports of a lab's pods."""

from __future__ import annotations

import pytest

from calipy.console.failures import Failure
from calipy.lab import pods
from calipy.lab.cluster import Lab
from calipy.lab.pods import Listen, Sandbox, Wish
from calipy.lab.topology import Plan
from calipy.resources.metadata import Refused


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("TCP/80", Listen("TCP", 80)),
        ("udp/53", Listen("UDP", 53)),
        ("TCP/65535", Listen("TCP", 65535)),
        ("sctp/1", Listen("SCTP", 1)),
    ],
)
def test_a_port_to_listen_on(text, listen):
    assert pods.parse_listen(text) == listen


@pytest.mark.parametrize("text", ["", "80", "TCP", "TCP/", "TCP/0", "TCP/65536", "TCP/080", "ICMP/80", "TCP/80/90"])
def test_what_is_no_port_to_listen_on(text):
    with pytest.raises(Failure, match="write TCP/80"):
        pods.parse_listen(text)


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        pytest.param(Wish(name="Web", node="n1"), "metadata.name: 'Web': can't be a name; lower", id="capital letter"),
        pytest.param(Wish(name="a..b", node="n1"), "metadata.name: 'a..b': can't be", id="empty label"),
        pytest.param(Wish(name="a" * 254, node="n1"), "has 254 characters; 253 at most", id="too long"),
        pytest.param(
            Wish(name="a" * 239, node="n1"), "247 characters with its namespace.*; 246 at", id="too long a file"
        ),
        pytest.param(
            Wish(name="web", node="n1", namespace="a.b"), "namespace: 'a.b': can't", id="namespace with a dot"
        ),
        pytest.param(
            Wish(name="web", node="n1", labels={"a b": "c"}),
            "^Pod/default/web is refused: metadata.labels: 'a b': can't be the name of a label; letters, digits",
            id="label's key",
        ),
        pytest.param(
            Wish(name="web", node="n1", labels={"a": "b c"}),
            r"^Pod/default/web is refused: metadata.labels\[a\]: 'b c': can't be the value of a label; letters, digits",
            id="label's value",
        ),
        pytest.param(
            Wish(name="web", node="n1", annotations={"a b": "c"}),
            "metadata.annotations: 'a b': can't be the name of an annotation",
            id="annotation's key",
        ),
        pytest.param(Wish(name="web", node="n4"), "it has n1, n2, n3", id="no such node"),
        pytest.param(Wish(name="tor", node="n1"), "is a machine's name", id="machine's name"),
        pytest.param(Wish(name="web", node="n1"), "node n1: it has no power", id="no power"),
        pytest.param(Wish(name="old", node="n1"), "is there already, on node n2", id="taken, by another node's pod"),
    ],
)
async def test_a_wish_that_can_t_be_met_changes_nothing(wish, complaint, tmp_path):
    lab = Lab(tmp_path, Plan())
    old = Sandbox(namespace="default", name="old", node="n2", container_id="c0")
    (tmp_path / "n2").mkdir()
    pods._remember(lab, old)

    with pytest.raises((Failure, Refused), match=complaint):
        await pods.add(lab, None, wish)  # it doesn't get as far as the store

    assert pods.sandboxes(lab) == (old,)


def test_pods_of_two_namespaces_never_share_a_network_namespace():
    one = Sandbox(namespace="a", name="b.c", node="n1", container_id="c1")
    other = Sandbox(namespace="a-b", name="c", node="n1", container_id="c2")

    assert one.netns != other.netns


def test_a_pod_is_found_by_its_name_alone_in_the_default_namespace(tmp_path):
    lab = Lab(tmp_path, Plan())
    (tmp_path / "n1").mkdir()
    mine = Sandbox(namespace="default", name="web", node="n1", container_id="c1")
    other = Sandbox(namespace="shop", name="web", node="n1", container_id="c2")
    for pod in (mine, other):
        pods._remember(lab, pod)

    assert pods.named(lab, "web") == mine
    assert pods.named(lab, "shop/web") == other
    with pytest.raises(Failure, match="it has default/web, shop/web"):
        pods.named(lab, "app")
