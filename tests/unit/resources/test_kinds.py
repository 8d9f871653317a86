"""How a user may name a kind."""

from __future__ import annotations

import pytest

from calipy.resources import kinds


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("IPPool", "IPPool"), ("ippools", "IPPool"), ("IPPOOL", "IPPool"), ("po", "Pod"), ("no", "Node"),
        ("ns", "Namespace"), ("felixconfig", "FelixConfiguration"), ("ipamconfig", "IPAMConfiguration"),
        ("affinities", "BlockAffinity"), ("bgpconfigs", "BGPConfiguration"), ("clusterinfo", "ClusterInformation"),
    ],
)  # fmt: skip
def test_a_kind_by_any_of_its_names(text: str, name: str) -> None:
    assert kinds.named(text).name == name


def test_an_unknown_kind_is_told_with_those_there_are() -> None:
    with pytest.raises(KeyError, match="no kind is called 'puddles'; known are bgpconfigurations, .*ippools"):
        kinds.named("puddles")


def test_no_two_kinds_share_a_name() -> None:
    names = [name for kind in kinds.ALL for name in {kind.name.lower(), kind.plural, *kind.short_names}]
    assert len(names) == len(set(names))
