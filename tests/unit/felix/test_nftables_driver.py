"""How the driver tells what a refusal is about, whatever it has put together."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from calipy.felix.drivers.nftables import NftablesDriver
from calipy.felix.objects import ObjectName, Op, Owner, Put
from calipy.felix.rules import names
from calipy.felix.rules import values as v
from calipy.model.origins import Origin
from calipy.netlink import nf_tables as nft
from calipy.netlink.messages import Message, Refusal, Series, pack, unpack

OWNER = Owner("test", "")
CHAIN = v.Chain((v.Rule((), v.Jump("cali-pri-x"), Origin("test")), v.Rule((), v.Drop(), Origin("test"))))
_NEW_ELEMENT = next(nft.elements("t", "s", [b""])).kind
MAP = Put(OWNER, names.set_("m"), v.SetSpec("interfaces"))


class Socket:
    """Of a kernel that refuses every message in which a word occurs, but the set's."""

    def __init__(self, word: str) -> None:
        self._word = f"{word}\0".encode()
        self.batches = 0
        self.elements: list[nft.ElementRecord] = []
        """Of the last batch."""

    def batch(self, messages: Sequence[Message | Series]) -> tuple[Refusal, ...]:
        self.batches += 1
        packets = list(unpack(pack(messages, 0)))
        self.elements = [
            element for packet in packets if packet.kind == _NEW_ELEMENT for element in nft.parse_elements(packet.body)
        ]
        refused = (packet.sequence for packet in packets if self._word in bytes(packet.body))
        return tuple(Refusal(number, errno.ENOENT, "no") for number in refused)


def refused(ops: list[Op], word: str) -> tuple[set[ObjectName], int]:
    """What is named as refused, and in how many attempts."""
    socket = Socket(word)
    driver = NftablesDriver(socket)  # type: ignore[arg-type]
    driver.open()
    outcome = driver.apply(tuple(ops))
    assert not outcome.resync
    return {refusal.name for refusal in outcome.refusals}, socket.batches - 1


def chain(name: str, replaces: bool = False) -> Put:
    return Put(OWNER, names.chain(name), CHAIN, replaces)


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("name", ["a1", "a3", "long", "cali-pri-y"])
def test_one_of_many_like_chains(name: str, replaces: bool) -> None:
    like = [chain(each, replaces) for each in ("a1", "a2", "a3", "long", "name")]
    ops = [MAP, Put(OWNER, names.chain("cali-pri-y"), v.Chain(())), *like]
    assert refused(ops, name) == ({names.chain(name)}, 1)


@pytest.mark.parametrize("name", ["a1", "a3", "long"])
@pytest.mark.parametrize("others", [("a2", "a3"), ("a2", "a3", "name", "far-too-long-for-an-interface")])
def test_one_of_many_like_elements(name: str, others: tuple[str, ...]) -> None:
    interfaces = dict.fromkeys(("a1", *others, name))
    ops: list[Op] = [MAP, *(Put(OWNER, names.element("m", each), v.Element(v.Goto(each))) for each in interfaces)]
    assert refused(ops, name) == ({names.element("m", name)}, 2)


@pytest.mark.parametrize("odd", ["", "far-too-long-for-an-interface"])
@pytest.mark.parametrize("verdict", [v.Goto("c"), v.Goto("longer"), v.Jump("c"), v.Drop()])
def test_elements_that_are_not_quite_alike_keep_their_own(odd: str, verdict: v.Goto | v.Jump | v.Drop) -> None:
    interfaces = [f"cali{number}" for number in range(10)] + [odd] * bool(odd)
    wanted = {interface: v.Goto("c") for interface in interfaces} | {"cali5": verdict}
    socket = Socket("nothing")
    driver = NftablesDriver(socket)  # type: ignore[arg-type]
    driver.open()
    driver.apply((MAP, *(Put(OWNER, names.element("m", each), v.Element(to)) for each, to in wanted.items())))
    codes = {v.Goto: nft.GOTO, v.Jump: nft.JUMP, v.Drop: nft.DROP}
    assert {element.key.rstrip(b"\0").decode(): element.verdict for element in socket.elements} == {
        each: nft.Verdict(codes[type(to)], getattr(to, "chain", "")) for each, to in wanted.items()
    }
