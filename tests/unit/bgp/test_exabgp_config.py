"""ExaBGP's file: as it was meant, and as ExaBGP itself reads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from exabgp.configuration.core.format import tokens
from exabgp.util.psk import decode_base64
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from calipy.bgp.exabgp_config import ConfigError, environment, refused, render
from calipy.bgp.peers import Peer, Topology
from calipy.bgp.topology import compute
from calipy.model.nodes import NodeAddress
from calipy.resources.bgp_peers import BGPPassword, BGPPeer, BGPPeerSpec
from calipy.resources.metadata import ObjectMeta
from calipy.resources.secrets import SecretKeySelector
from tests.effort import examples

RUN = ("/bin/sh", "-c", "cat")
SECRET = SecretKeySelector(name="bgp", key="tor")
GOLDEN = Path(__file__).with_name("exabgp.conf")


def mesh_and_tor(three: Mapping[str, NodeAddress]) -> Topology:
    spec = BGPPeerSpec(
        peer_ip="10.0.0.1:1790",
        as_number=65001,
        ttl_security=1,
        keepalive_time="1s",
        password=BGPPassword(secret_key_ref=SECRET),
    )
    return compute("b", three, [], [BGPPeer(metadata=ObjectMeta(name="tor"), spec=spec)])


def test_the_file_of_a_mesh_and_a_router(three: Mapping[str, NodeAddress]) -> None:
    assert render(mesh_and_tor(three), {"Global_10_0_0_1_port_1790": 's3"cr\\et'}, RUN) == GOLDEN.read_text()


def test_exabgp_takes_the_file() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("exabgp"), "validate", GOLDEN],
        env={"PATH": os.environ["PATH"], **environment()},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "missing" not in done.stdout


def peer_with_password(**settings: object) -> Topology:
    peer = Peer(
        name="Global_10_0_0_1",
        address="10.0.0.1",
        as_number=65001,
        local_address="10.0.0.9",
        local_as=64512,
        password=SECRET,
        kind="global",
    )
    return Topology(node="a", router_id="10.0.0.9", peers=(replace(peer, **settings),))


@given(st.text("\"'\\ \t\n#;{}[](),=\u00fca0", min_size=1, max_size=20))
@examples(50)
def test_any_password_survives(password: str) -> None:
    text = render(peer_with_password(), {"Global_10_0_0_1": password}, RUN)
    words = [[word for _, _, word in line] for line in tokens(text.splitlines())]
    (encoded,) = (line[1] for line in words if line[0] == "md5-password")
    assert ["md5-base64", "true", ";"] in words
    assert decode_base64(encoded).decode() == password


@pytest.mark.parametrize(
    ("password", "optional", "reason"),
    [
        (None, None, "is not known"),
        (None, False, "is not known"),
        ("", True, "has 0 bytes"),
        ("x" * 81, None, "has 81 bytes"),
        ("\u00fc" * 41, None, "has 82 bytes"),
    ],
)
def test_a_peer_without_the_password_that_it_should_have_stays_down(
    password: str | None, optional: bool | None, reason: str
) -> None:
    topology = peer_with_password(password=replace(SECRET, optional=optional))
    passwords = {} if password is None else {"Global_10_0_0_1": password}
    ((name, line),) = refused(topology, passwords).items()
    assert name == "Global_10_0_0_1"
    assert line.startswith(f"password from Secret bgp, key tor: {reason}")
    assert "neighbor" not in render(topology, passwords, RUN)


def test_why_a_password_is_not_known_is_said() -> None:
    topology = peer_with_password()
    (line,) = refused(topology, {}, {SECRET: "Secret/kube-system/bgp has no data.tor; write it there"}).values()
    assert line.endswith(
        "is not known, so the session stays down; Secret/kube-system/bgp has no data.tor; write it there"
    )


def test_an_optional_password_may_be_absent() -> None:
    topology = peer_with_password(password=replace(SECRET, optional=True))
    assert refused(topology, {}) == {}
    assert "neighbor 10.0.0.1 {" in render(topology, {}, RUN)
    assert "md5" not in render(topology, {}, RUN)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ttl_security": 1}, {"incoming-ttl 255", "outgoing-ttl 255", "listen 179"}),
        ({"ttl_security": 3}, {"incoming-ttl 253", "outgoing-ttl 255", "listen 179"}),
        ({"multihop": False}, {"outgoing-ttl 1", "listen 179"}),
        ({}, {"listen 179"}),
    ],
)
def test_how_far_a_peer_may_be(settings: dict[str, object], expected: set[str]) -> None:
    text = render(peer_with_password(**settings), {"Global_10_0_0_1": "s"}, RUN)
    assert set(re.findall(r"(?:\w+-ttl|listen) \d+", text)) == expected


@pytest.mark.parametrize(
    ("password", "expected"),
    [(None, {"incoming-ttl 255", "outgoing-ttl 255"}), ("s", {"listen 179", "outgoing-ttl 255"})],
)
def test_one_peer_without_ttl_security_keeps_the_listener_open_to_it(password: str | None, expected: set[str]) -> None:
    """The minimum TTL of ExaBGP's one listening socket would shut it out; without `listen` that socket has no key."""
    topology = peer_with_password(ttl_security=1, **({} if password else {"password": None}))
    other = replace(topology.peers[0], name="Mesh_10_0_0_2", address="10.0.0.2", ttl_security=0, password=None)
    text = render(replace(topology, peers=(*topology.peers, other)), {"Global_10_0_0_1": "s"} if password else {}, RUN)
    guarded, open_one = (set(re.findall(r"(?:\w+-ttl|listen) \d+", part)) for part in text.split("neighbor ")[1:])
    assert (guarded, open_one) == (expected, {"listen 179"})


def test_no_restart_time_is_no_graceful_restart() -> None:
    assert "graceful-restart disable;" in render(peer_with_password(restart_time_s=0), {"Global_10_0_0_1": "s"}, RUN)


@pytest.mark.parametrize("run", [(), ("python3",), ("/bin/sh", "a b"), ("/bin/sh", "a;b"), ("/bin/sh", "")])
def test_a_program_that_cant_be_written_down_is_refused(run: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="^run: "):
        render(peer_with_password(), {}, run)
