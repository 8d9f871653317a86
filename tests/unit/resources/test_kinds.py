"""How a user may name a kind."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import fields

from calipy.resources import kinds


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("IPPool", "IPPool"), ("ippools", "IPPool"), ("IPPOOL", "IPPool"), ("po", "Pod"), ("no", "Node"),
        ("ns", "Namespace"), ("felixconfig", "FelixConfiguration"), ("ipamconfig", "IPAMConfiguration"),
        ("affinities", "BlockAffinity"), ("bgpconfigs", "BGPConfiguration"), ("clusterinfo", "ClusterInformation"),
        ("networkpolicies", "NetworkPolicy"), ("NetworkPolicy", "NetworkPolicy"), ("np", "NetworkPolicy"),
        ("cnp", "NetworkPolicy"), ("policy", "NetworkPolicy"), ("gnp", "GlobalNetworkPolicy"),
        ("kubernetesnetworkpolicies", "KubernetesNetworkPolicy"), ("knp", "KubernetesNetworkPolicy"),
        ("networkpolicies.networking.k8s.io", "KubernetesNetworkPolicy"),
        ("NetworkPolicy.v1.networking.k8s.io", "KubernetesNetworkPolicy"),
        ("networkpolicy.projectcalico.org", "NetworkPolicy"), ("np.crd.projectcalico.org", "NetworkPolicy"),
        ("pods.", "Pod"), ("po.v1.", "Pod"), ("po.v1", "Pod"), ("ippools.projectcalico.org", "IPPool"),
        ("tiers", "Tier"), ("netsets", "NetworkSet"), ("gns", "GlobalNetworkSet"), ("pro", "Profile"),
        ("svc", "Service"), ("sa", "ServiceAccount"), ("endpointslices", "EndpointSlice"),
        ("bgpfilters", "BGPFilter"), ("bf", "BGPFilter"), ("bgpf", "BGPFilter"), ("hep", "HostEndpoint"),
        ("hostendpoints", "HostEndpoint"), ("nodestatus", "CalicoNodeStatus"),
        ("caliconodestatuses", "CalicoNodeStatus"), ("kcc", "KubeControllersConfiguration"),
        ("kubecontrollersconfig", "KubeControllersConfiguration"), ("snp", "StagedNetworkPolicy"),
        ("scnp", "StagedNetworkPolicy"), ("stagedpolicies", "StagedNetworkPolicy"),
        ("sgnps", "StagedGlobalNetworkPolicy"), ("sknp", "StagedKubernetesNetworkPolicy"),
        ("stagedkubernetespolicy", "StagedKubernetesNetworkPolicy"),
        ("calipyconfig", "CalipyConfiguration"), ("calipyconfigurations.calipy.io", "CalipyConfiguration"),
    ],
)  # fmt: skip
def test_a_kind_by_any_of_its_names(text: str, name: str) -> None:
    assert kinds.named(text).name == name


def test_an_unknown_kind_is_told_with_those_there_are() -> None:
    with pytest.raises(KeyError, match="no kind is called 'puddles'; known are bgpconfigurations, .*ippools"):
        kinds.named("puddles")


@pytest.mark.parametrize(
    "text", ["ippools.networking.k8s.io", "pods.apps", "knp.projectcalico.org", "ippools.", "po.v2."]
)
def test_a_kind_in_another_group_is_another_kind(text: str) -> None:
    with pytest.raises(KeyError, match=f"no kind is called '{text}'"):
        kinds.named(text)


def test_what_a_document_calls_its_kind_may_mean_two() -> None:
    found = [(kind.api_version, kind.name) for kind in kinds.spelled("NetworkPolicy")]
    assert found == [
        ("projectcalico.org/v3", "NetworkPolicy"),
        ("networking.k8s.io/v1", "KubernetesNetworkPolicy"),
    ]
    assert kinds.spelled("KubernetesNetworkPolicy") == ()


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.name)
def test_each_kind_knows_what_its_documents_say(kind: Any) -> None:
    assert kind.type.__struct_config__.tag == kind.kind
    defaults = {field.encode_name: field.default for field in fields(kind.type)}
    assert defaults["apiVersion"] == kind.api_version


def test_no_two_kinds_share_a_document_or_a_path() -> None:
    assert len({(kind.api_version, kind.kind) for kind in kinds.ALL}) == len(kinds.ALL)
    assert len({(kind.api_version, kind.resource) for kind in kinds.ALL}) == len(kinds.ALL)


def test_no_two_kinds_share_a_name() -> None:
    names = [name for kind in kinds.ALL for name in {kind.name.lower(), kind.plural, *kind.short_names}]
    assert len(names) == len(set(names))
