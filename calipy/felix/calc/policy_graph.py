"""Policy by steps: the same result as `whole_policies`, touching only what an event can move.

What happens is kept, the newest of each object, until a flush takes it: first the labels that profiles hand down, then
tiers and policies, then whoever has labels; from that follows which policies are in force and govern what, from their
rules which sets there must be, then who is in them, and last which policies are asked by one look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import cast

from calipy.conversion import network_sets, workloads
from calipy.felix.calc import local
from calipy.felix.calc.change import Change, NodeState, SetKey
from calipy.felix.calc.governing import Governing
from calipy.felix.calc.inheritance import Inheritance
from calipy.felix.calc.membership import Membership
from calipy.felix.calc.merging import Merging
from calipy.felix.calc.pace import Pace
from calipy.felix.calc.policies import PolicyResource
from calipy.felix.calc.set_uses import SetUses
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.stats import Stats
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.sets import SetKind
from calipy.resources.endpoint_slices import EndpointSlice
from calipy.resources.global_network_sets import GlobalNetworkSet
from calipy.resources.metadata import Key, Resource
from calipy.resources.network_sets import NetworkSet
from calipy.resources.pods import Pod
from calipy.resources.tiers import Tier

_Step = Callable[[Key, Resource | None, Pace], Generator[None, None, None]]


class PolicyGraph:
    """The policies of one node, and the sets of their rules."""

    def __init__(self, node: str) -> None:
        self._node = node
        self.stats = Stats()
        self._attachments: dict[EndpointId, WorkloadEndpoint] = {}
        self._attached_to: dict[Key, set[EndpointId]] = {}
        """Pod -> endpoints."""
        self._own_pods: dict[Key, Pod] = {}
        self._inheritance = Inheritance()
        self._uses = SetUses()
        self._governing = Governing(self._inheritance, self._uses, self.stats)
        self._membership = Membership(self._inheritance.labels, self.stats)
        self._merging = Merging(self._membership, self.stats)
        self._steps: dict[str, _Step] = {
            "Namespace": self._take_profile,
            "ServiceAccount": self._take_profile,
            "Profile": self._take_profile,
            "Tier": self._take_tier,
            "NetworkPolicy": self._take_policy,
            "GlobalNetworkPolicy": self._take_policy,
            "KubernetesNetworkPolicy": self._take_policy,
            "Pod": self._take_pod,
            "NetworkSet": self._take_network_set,
            "GlobalNetworkSet": self._take_network_set,
            "EndpointSlice": self._take_slice,
        }
        """Kind -> what a flush does with news of it, in this order."""
        self._news: dict[str, dict[Key, Resource | None]] = {kind: {} for kind in self._steps}
        self._shaken: set[EndpointId] = set()

    # --- what happens ---

    def put(self, key: Key, value: Resource | None) -> None:
        """Takes a resource in; None: it is gone."""
        if key.kind not in self._news:
            return
        self._news[key.kind][key] = value
        if key.kind == "Pod":
            self._put_pod(key, local.own(value, self._node))

    def _put_pod(self, key: Key, pod: Pod | None) -> None:
        before = self._own_pods.pop(key, None)
        if pod is not None:
            self._own_pods[key] = pod
        for id_ in self._attached_to.get(key, ()):
            self._attachments[id_] = local.keep(self._attachments[id_], before, pod)
            self._shaken.add(id_)

    def attach(self, id_: EndpointId, attachment: WorkloadEndpoint | None) -> None:
        """Takes in what CNI says of an endpoint; None: it is gone."""
        old = self._attachments.pop(id_, None)
        if old is not None:
            ids = self._attached_to[local.pod_key(old)]
            ids.discard(id_)
            if not ids:
                del self._attached_to[local.pod_key(old)]
        if attachment is not None:
            self._attachments[id_] = attachment
            self._attached_to.setdefault(local.pod_key(attachment), set()).add(id_)
        self._shaken.add(id_)

    @property
    def idle(self) -> bool:
        """True if a flush would find nothing to do."""
        return not (self._shaken or any(self._news.values()))

    # --- what it leads to ---

    def flush(self, families: tuple[int, ...]) -> Generator[None, None, Change]:
        """What has moved, given the address families in force. Yields None wherever it may pause."""
        pace = Pace()
        for kind, step in self._steps.items():
            news, self._news[kind] = self._news[kind], {}
            for key, value in news.items():
                yield from step(key, value, pace)
                if pace.due():
                    yield
        shaken, self._shaken = self._shaken, set()
        for id_ in shaken:
            yield from self._take_endpoint(id_, pace)
            if pace.due():
                yield
        policies, profiles = yield from self._governing.flush_policies(families, pace)
        endpoints = yield from self._governing.flush_endpoints(pace)
        gone, come = self._uses.moved()
        for set_key in gone:
            yield from self._membership.drop(set_key, pace)
            if pace.due():
                yield
        for set_key, spec in come:
            yield from self._membership.want(set_key, spec, pace)
            if pace.due():
                yield
        sets, members = yield from self._membership.moved(pace)
        moved = Change(endpoints=endpoints, policies=policies, profiles=profiles, sets=sets, members=members)
        return (yield from self._merging.flush(families, moved, pace))

    def _take_profile(self, key: Key, value: Resource | None, pace: Pace) -> Generator[None, None, None]:
        name = self._inheritance.name(key)
        self._inheritance.put(key, value)
        yield from self._governing.relabel(name, pace)
        yield from self._membership.relabel(name, pace)
        if key.kind == "Profile":
            self._governing.put_profile(name)

    def _take_tier(self, key: Key, value: Resource | None, pace: Pace) -> Generator[None, None, None]:
        self._governing.put_tier(key.name, cast("Tier | None", value))
        yield

    def _take_policy(self, key: Key, value: Resource | None, pace: Pace) -> Generator[None, None, None]:
        yield from self._governing.put_policy(key, cast("PolicyResource | None", value), pace)

    def _take_pod(self, key: Key, value: Resource | None, pace: Pace) -> Generator[None, None, None]:
        """Of other nodes; that of an endpoint here is in its endpoint."""
        other = value if isinstance(value, Pod) and local.own(value, self._node) is None else None
        yield from self._membership.place(key, workloads.pod(other) if other is not None else None, pace)

    def _take_network_set(self, key: Key, value: Resource | None, pace: Pace) -> Generator[None, None, None]:
        if value is None:
            yield from self._membership.place(key, None, pace)
            return
        found = cast("NetworkSet | GlobalNetworkSet", value)
        known = frozenset(self._membership.nets(key))
        nets = []
        for net in network_sets.members(found.spec.nets, known):
            nets.append(net)
            if pace.due():
                yield
        yield from self._membership.place(key, network_sets.network_set(found, nets), pace)

    def _take_slice(self, key: Key, value: Resource | None, pace: Pace) -> Generator[None, None, None]:
        self._membership.put_slice(key, cast("EndpointSlice | None", value))
        if pace.due(10):
            yield

    def _take_endpoint(self, id_: EndpointId, pace: Pace) -> Generator[None, None, None]:
        attachment = self._attachments.get(id_)
        if attachment is None:
            self._governing.drop_endpoint(id_)
            yield from self._membership.place(id_, None, pace)
            return
        pod = self._own_pods.get(local.pod_key(attachment))
        endpoint = local.join(attachment, pod)
        selectable = workloads.endpoint(endpoint, finished=pod is not None and pod.finished)
        self._governing.put_endpoint(id_, endpoint, selectable)
        yield from self._membership.place(id_, selectable, pace)

    def state(self) -> NodeState:
        """All that has been computed up to the last flush; nothing but what policy decides."""
        sets = [live for live in self._membership.sets() if live.kind is not None]
        maps = self._merging.maps()
        kinds: dict[SetKey, SetKind] = dict.fromkeys(maps, "askers")
        return NodeState(
            settings=FelixSettings(),
            endpoints=dict(self._merging.endpoints),
            policies=self._governing.policies,
            profiles=self._governing.profiles,
            runs=self._merging.merged,
            sets={**kinds, **{live.key: live.kind for live in sets if live.kind is not None}},
            members={**maps, **{live.key: live.told() for live in sets}},
        )
