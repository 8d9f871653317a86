"""Names in the kernel: Calico's, and none too long."""

from __future__ import annotations

import base64
import hashlib

import pytest

from calipy.felix.calc.change import SetKey
from calipy.felix.rules import names
from calipy.model.policies import PolicyId
from calipy.model.sets import SetId


def test_policies_and_profiles_have_calicos_names() -> None:
    assert names.policy_chain(PolicyId("knp", "default", "web"), "ingress") == "cali-pi-knp/default/web"
    assert names.policy_chain(PolicyId("gnp", "", "web"), "egress") == "cali-po-gnp/web"
    assert names.profile_chain("kns.default", "ingress") == "cali-pri-kns.default"
    assert names.profile_chain("kns.default", "egress") == "cali-pro-kns.default"


@pytest.mark.parametrize("length", [119, 120, 121, 400])
def test_a_name_too_long_is_its_hash(length: int) -> None:
    name = "a" * (length - len("gnp/"))
    hashed = base64.urlsafe_b64encode(hashlib.sha256(f"gnp/{name}".encode()).digest()).decode().rstrip("=")
    expected = f"cali-pi-gnp/{name}" if length <= 120 else f"cali-pi-_{hashed}"
    assert names.policy_chain(PolicyId("gnp", "", name), "ingress") == expected
    assert len(expected) <= 128


def test_a_name_of_full_length_that_looks_like_a_hash_is_hashed_too() -> None:
    assert names.profile_chain("_" + "a" * 118, "ingress") != "cali-pri-_" + "a" * 118
    assert names.profile_chain("_" + "a" * 117, "ingress") == "cali-pri-_" + "a" * 117
    assert names.profile_chain("b" + "a" * 118, "ingress") == "cali-pri-b" + "a" * 118


def test_two_long_names_with_one_beginning_are_two() -> None:
    found = {names.policy_chain(PolicyId("np", "n" * 63, "p" * 252 + last), "ingress") for last in "ab"}
    assert len(found) == 2


def test_a_set_is_named_after_its_identity_family_and_kind() -> None:
    key = SetKey(SetId("s:aB-_0"), 4)
    assert names.set_name(key, "addresses") == "cali40-s-aB-_0"
    assert names.set_name(key, "prefixes") == "cali40-s-aB-_0-nets"
    assert names.set_name(SetKey(SetId("svc:x"), 6), "endpoints") == "cali60-svc-x"
    assert names.set_name(SetKey(SetId("ports:x"), 0), "ports") == "cali-ports-x"


def test_an_endpoints_tiers_have_chains_of_their_own() -> None:
    assert names.tier_chain("cali1", "egress", 2) == "cali-fw-cali1-2"
    assert names.tier_chain("cali1", "ingress", 0) == "cali-tw-cali1-0"
