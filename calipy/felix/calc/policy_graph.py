"""Policy by steps: the same result as `whole_policies`."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from msgspec import structs

from calipy.felix.calc import local, whole_policies
from calipy.felix.calc.change import Change, NodeState, difference
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.world import World
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.resources.metadata import Key, Resource

KINDS = frozenset(
    (
        "EndpointSlice",
        "GlobalNetworkPolicy",
        "GlobalNetworkSet",
        "KubernetesNetworkPolicy",
        "Namespace",
        "NetworkPolicy",
        "NetworkSet",
        "Pod",
        "Profile",
        "ServiceAccount",
        "Tier",
    )
)
"""What policy depends on."""


class PolicyGraph:
    """The policies of one node, and the sets of their rules."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._resources: dict[Key, Resource] = {}
        self._attachments: dict[EndpointId, WorkloadEndpoint] = {}
        self._state = NodeState(settings=FelixSettings())
        self._families: tuple[int, ...] = ()
        self._dirty = False

    def put(self, key: Key, value: Resource | None) -> None:
        """Takes a resource in; None: it is gone."""
        if key.kind not in KINDS:
            return
        if key.kind == "Pod":
            before, after = (local.own(pod, self._node) for pod in (self._resources.get(key), value))
            for id_, attachment in self._attachments.items():
                if local.pod_key(attachment) == key:
                    self._attachments[id_] = local.keep(attachment, before, after)
        if value is None:
            self._resources.pop(key, None)
        else:
            self._resources[key] = value
        self._dirty = True

    def attach(self, id_: EndpointId, attachment: WorkloadEndpoint | None) -> None:
        """Takes in what CNI says of an endpoint."""
        if attachment is None:
            self._attachments.pop(id_, None)
        else:
            self._attachments[id_] = attachment
        self._dirty = True

    @property
    def idle(self) -> bool:
        """True if a flush would find nothing to do."""
        return not self._dirty

    def flush(self, families: Sequence[int]) -> Generator[None, None, Change]:
        """What has moved, given the address families in force. Yields None wherever it may pause."""
        yield
        families = tuple(families)
        if not self._dirty and families == self._families:
            return Change()
        world = World(node=self._node, resources=self._resources, attachments=self._attachments)
        found = whole_policies.compute(world, families)
        state = structs.replace(
            self._state,
            endpoints=found.endpoints,
            policies=found.policies,
            profiles=found.profiles,
            sets={key: kind for key, (kind, _) in found.sets.items()},
            members={key: members for key, (_, members) in found.sets.items()},
        )
        moved = difference(self._state, state)
        self._state, self._families, self._dirty = state, families, False
        return moved

    def state(self) -> NodeState:
        """All that has been computed up to the last flush; nothing but what policy decides."""
        return self._state
