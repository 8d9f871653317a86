"""Which blocks are this node's."""

from calipy.ipam.own_blocks import OwnBlocks
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec, name_of
from calipy.resources.metadata import ObjectMeta


def claim(cidr, node="n1", state="confirmed", kind="host"):
    spec = BlockAffinitySpec(cidr=cidr, node=node, state=state, type=kind)
    return BlockAffinity(metadata=ObjectMeta(name=name_of(node, cidr)), spec=spec)


def test_what_the_mirror_shows_and_what_happened_since():
    shown = (
        claim("10.0.1.0/26"), claim("10.0.0.64/26"), claim("10.0.9.0/26", node="n2"), claim("fd00::/122"),
        claim("10.0.2.0/26", state="pending"), claim("10.0.3.0/26", kind="virtual"),
    )  # fmt: skip
    own = OwnBlocks("n1", lambda: shown)
    assert own.all(4) == ("10.0.0.64/26", "10.0.1.0/26")
    assert own.all(6) == ("fd00::/122",)
    own.gained("10.0.0.0/26")
    assert own.all(4) == ("10.0.0.0/26", "10.0.0.64/26", "10.0.1.0/26")
    own.lost("10.0.1.0/26")
    assert own.all(4) == ("10.0.0.0/26", "10.0.0.64/26")
    shown = (claim("10.0.1.0/26"), claim("10.0.4.0/26"))
    assert own.all(4) == ("10.0.0.0/26", "10.0.4.0/26")
    assert own.all(6) == ()
    assert [affinity.spec.cidr for affinity in own.unfinished(4)] == []


def test_a_clusters_claims_are_looked_through_once_for_each_change():
    class Counted(tuple):
        looks = 0

        def __iter__(self):
            Counted.looks += 1
            return super().__iter__()

    shown = Counted([claim("10.0.1.0/26"), claim("10.0.9.0/26", node="n2")])
    own = OwnBlocks("n1", lambda: shown)
    for _ in range(3):
        assert own.all(4) == ("10.0.1.0/26",)
        assert own.unfinished(4) == own.unlabelled()[1:] == []
    assert Counted.looks == 1
