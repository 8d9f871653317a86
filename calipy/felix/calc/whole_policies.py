"""Policy, the whole calculation at once: slow, obvious, the definition of what `policy_graph` must give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct, structs

from calipy.conversion import endpoint_slices, tiers, workloads
from calipy.conversion.network_sets import network_set
from calipy.conversion.policies import profile
from calipy.felix.calc import local, policies, runs
from calipy.felix.calc.change import SetKey
from calipy.felix.calc.policies import PolicyResource, SetSpec
from calipy.felix.calc.world import World
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Merged, Policy, PolicyId, Profile
from calipy.model.selectables import Selectable
from calipy.model.sets import EndpointSet, SelectorSet, SetId, SetKind, endpoint_member
from calipy.resources import profiles as profile_resources
from calipy.resources.endpoint_slices import EndpointSlice
from calipy.resources.global_network_sets import GlobalNetworkSet
from calipy.resources.metadata import Key, Resource
from calipy.resources.namespaces import Namespace
from calipy.resources.network_sets import NetworkSet
from calipy.resources.pods import Pod
from calipy.resources.selectors import parse
from calipy.resources.service_accounts import ServiceAccount
from calipy.resources.tiers import Tier

R = TypeVar("R", bound=Resource)


class Outcome(Struct, frozen=True, gc=False, kw_only=True):
    """What policy comes to."""

    endpoints: Mapping[EndpointId, WorkloadEndpoint]
    policies: Mapping[PolicyId, Policy]
    profiles: Mapping[str, Profile]
    runs: Mapping[SetId, Merged]
    sets: Mapping[SetKey, tuple[SetKind, frozenset[str]]]


def compute(world: World, families: Sequence[int]) -> Outcome:
    """Who is governed by what, and who is in the sets that its rules name; in these address families."""
    known_tiers = {**{tier.metadata.name: tiers.tier(tier) for tier in _all(world, Tier)}, **tiers.BUILT_IN}
    found = {policy.id: policy for policy in _policies(world)}
    endpoints: dict[EndpointId, WorkloadEndpoint] = {}
    in_force = {id_: policy for id_, policy in found.items() if policy.everywhere}
    in_force_profiles: dict[str, Profile] = {}
    for id_, (endpoint, selectable) in _here(world).items():
        labels = _effective(world, selectable)
        governing = [policy for policy in found.values() if parse(policy.selector).matches(labels)]
        mine = [entry for entry in _profiles(world, selectable.profiles) if entry.ingress or entry.egress]
        in_force.update((policy.id, policy) for policy in governing)
        in_force_profiles.update((entry.name, entry) for entry in mine)
        bound = policies.bindings(map(policies.place, governing), known_tiers)
        endpoints[id_] = structs.replace(endpoint, tiers=bound, profiles=tuple(entry.name for entry in mine))
    holders: list[Policy | Profile] = [*in_force.values(), *in_force_profiles.values()]
    specs = {
        key: spec
        for holder in holders
        for rule in policies.rules_of(holder)
        for key, spec in policies.sets_of(rule, families)
    }
    everybody = [(selectable, _effective(world, selectable)) for selectable in _everybody(world)]
    sets: dict[SetKey, tuple[SetKind, frozenset[str]]] = {}
    for key, spec in specs.items():
        members = _members(world, key, spec, everybody)
        sets[key] = policies.kind(spec, wide=any("/" in member for member in members)), members
    merged = runs.compute(endpoints, in_force, sets, families)
    return Outcome(
        endpoints=merged.endpoints,
        policies=in_force,
        profiles=in_force_profiles,
        runs=merged.runs,
        sets={**sets, **merged.sets},
    )


def _all(world: World, kind: type[R]) -> Iterator[R]:
    return (value for value in world.resources.values() if isinstance(value, kind))


def _policies(world: World) -> Iterator[Policy]:
    for resource in world.resources.values():
        if isinstance(resource, PolicyResource):
            head = policies.head(resource)
            given = {
                direction: tuple(policies.rules(resource, direction))
                for direction in policies.DIRECTIONS
                if head.rules(direction) is not None
            }
            yield structs.replace(head, **given)


def _here(world: World) -> dict[EndpointId, tuple[WorkloadEndpoint, Selectable]]:
    """The endpoints of this node."""
    found = {}
    for id_, attachment in world.attachments.items():
        pod = local.own(world.resources.get(local.pod_key(attachment)), world.node)
        endpoint = local.join(attachment, pod)
        found[id_] = endpoint, workloads.endpoint(endpoint, finished=pod is not None and pod.finished)
    return found


def _everybody(world: World) -> Iterator[Selectable]:
    """All that a set may hold: endpoints of this node, pods of others, network sets."""
    yield from (selectable for _, selectable in _here(world).values())
    yield from (workloads.pod(pod) for pod in _all(world, Pod) if local.own(pod, world.node) is None)
    yield from map(network_set, _all(world, NetworkSet))
    yield from map(network_set, _all(world, GlobalNetworkSet))


def _profiles(world: World, names: Iterable[str]) -> Iterator[Profile]:
    for name in names:
        yield profile(name, _object(world, profile_resources.Profile, name))


def _effective(world: World, selectable: Selectable) -> dict[str, str]:
    """A selectable's own labels over those that it inherits."""
    found: dict[str, str] = {}
    for name in reversed(selectable.profiles):
        found.update(_inherited(world, name))
    return {**found, **selectable.labels}


def _inherited(world: World, name: str) -> dict[str, str]:
    own = _object(world, profile_resources.Profile, name)
    applied = own.spec.labels_to_apply if own else {}
    kind, _, rest = name.partition(".")
    if f"{kind}." == workloads.NAMESPACE_PROFILES:
        return {**applied, **workloads.namespace_labels(rest, _object(world, Namespace, rest))}
    if f"{kind}." == workloads.ACCOUNT_PROFILES:
        namespace, _, account = rest.partition(".")
        return {**applied, **workloads.account_labels(account, _object(world, ServiceAccount, account, namespace))}
    return applied


def _object(world: World, kind: type[R], name: str, namespace: str = "") -> R | None:
    found = world.resources.get(Key(kind.__name__, name, namespace))
    return found if isinstance(found, kind) else None


def _members(
    world: World, key: SetKey, spec: SetSpec, everybody: Sequence[tuple[Selectable, dict[str, str]]]
) -> frozenset[str]:
    if not isinstance(spec, SelectorSet | EndpointSet):
        return policies.listed(spec, key.family)
    if isinstance(spec, EndpointSet) and spec.service:
        found: Iterable[str] = (
            member
            for slice_ in _all(world, EndpointSlice)
            if (slice_.metadata.namespace, slice_.service) == (spec.namespace, spec.service)
            for member in endpoint_slices.members(slice_, with_ports=spec.with_ports)
        )
    else:
        matches = parse(spec.selector).matches
        chosen = [selectable for selectable, labels in everybody if matches(labels)]
        found = (member for selectable in chosen for member in _contribution(selectable, spec))
    return frozenset(member for member in found if (":" in member.partition(",")[0]) == (key.family == 6))


def _contribution(selectable: Selectable, spec: SelectorSet | EndpointSet) -> Iterable[str]:
    if isinstance(spec, SelectorSet):
        return selectable.nets
    ports = [port for port in selectable.ports if (port.name, port.protocol) == (spec.port, spec.protocol)]
    return (endpoint_member(net, port.protocol, port.port) for net in selectable.nets for port in ports)
