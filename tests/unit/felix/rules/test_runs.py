"""A run of policies in an endpoint's chain, and what it leads to."""

from __future__ import annotations

from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dialects.text import chain_text
from calipy.felix.objects import ObjectName
from calipy.felix.rules import endpoints, names, runs
from calipy.felix.rules.values import Chain, Element, Jump, SetSpec
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Direction, Merged, PolicyId, Run, TierBinding
from calipy.model.sets import SetId

A, B, C, D = (PolicyId("np", "shop", name) for name in "abcd")


def run(direction: Direction = "ingress", *policies: PolicyId) -> Run:
    return Run(id=SetId(f"run:{direction}"), tier="t", direction=direction, policies=policies)


def chains(*bindings: TierBinding, **settings: object) -> dict[str, str]:
    """Rules of an endpoint by chain, without origins."""
    found = WorkloadEndpoint(
        id=EndpointId("k8s", "shop/web", "eth0"), container_id="c", interface="cali1", addresses=(), tiers=bindings
    )
    objects = endpoints.compile(found, FelixSettings(**settings))  # type: ignore[arg-type]
    return {
        name.name: "\n".join(line.partition("  # ")[0] for line in chain_text(name.name, value).splitlines()[1:])
        for name, value in objects.items()
        if isinstance(value, Chain)
    }


def test_a_run_is_one_rule_for_each_family_where_its_policies_would_be() -> None:
    binding = TierBinding(
        tier="t", default_action="deny", ingress=(A, B, C, D), egress=(A, B), runs=(run("ingress", B, C),)
    )
    assert chains(binding) == {
        "cali-tw-cali1": """\
  jump cali-pi-np/shop/a
  ipv4 from map @cali40-run-ingress map @cali-run-ingress
  ipv6 from map @cali60-run-ingress map @cali-run-ingress
  jump cali-pi-np/shop/d
  drop""",
        "cali-fw-cali1": """\
  jump cali-po-np/shop/a
  jump cali-po-np/shop/b
  drop""",
    }
    assert "ipv6" not in chains(binding, ipv6_support=False)["cali-tw-cali1"]


def test_peers_of_what_a_pod_sends_are_destinations() -> None:
    binding = TierBinding(tier="t", default_action="pass", egress=(A, B), runs=(run("egress", A, B),))
    assert "ipv4 to map @cali40-run-egress map @cali-run-egress" in chains(binding)["cali-fw-cali1"]


def test_what_passes_stands_by_itself_in_its_tier() -> None:
    binding = TierBinding(
        tier="t", default_action="deny", ingress=(A, B, C), passing=(A,), runs=(run("ingress", B, C),)
    )
    assert (
        chains(binding)["cali-tw-cali1-0"]
        == """\
  clear mark 0x20000
  jump cali-pi-np/shop/a
  mark 0x20000 return
  ipv4 from map @cali40-run-ingress map @cali-run-ingress
  ipv6 from map @cali60-run-ingress map @cali-run-ingress
  drop"""
    )


def test_a_mask_leads_to_its_policy_or_to_a_chain_of_several() -> None:
    objects = runs.compile(Merged(run=run("ingress", A, B, C), masks=(0b001, 0b100, 0b110)))
    verdicts = "cali-run-ingress"
    several = ObjectName("chain", f"{verdicts}-6")
    assert objects.keys() - {several} == {
        names.set_(verdicts), *(names.element(verdicts, mask) for mask in ("1", "4", "6"))
    }  # fmt: skip
    assert objects[names.set_(verdicts)] == SetSpec("masks")
    assert objects[names.element(verdicts, "1")] == Element(Jump("cali-pi-np/shop/a"))
    assert objects[names.element(verdicts, "4")] == Element(Jump("cali-pi-np/shop/c"))
    assert objects[names.element(verdicts, "6")] == Element(Jump(several.name))
    chain = objects[several]
    assert isinstance(chain, Chain)
    assert [rule.action for rule in chain.rules] == [Jump("cali-pi-np/shop/b"), Jump("cali-pi-np/shop/c")]
    assert [str(rule.origin) for rule in chain.rules] == ["visit t/np/shop/b ingress", "visit t/np/shop/c ingress"]


def test_names_of_a_run_fit_whatever_its_masks_are() -> None:
    long = SetId("run:" + "x" * 38)
    assert len(names.askers_chain(long, (1 << 32) - 1)) < 128
