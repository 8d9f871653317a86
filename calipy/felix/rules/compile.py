"""Who owns which rules, and whose must be compiled again for a change."""

from __future__ import annotations

from collections.abc import Iterator

from calipy.felix.calc.change import Change, NodeState, SetDelta, SetKey
from calipy.felix.objects import Objects, Owner
from calipy.felix.plans import Plan
from calipy.felix.rules import endpoints, sets, statics
from calipy.model.endpoints import EndpointId

STATIC = Owner("static", "")


def endpoint_owner(id_: EndpointId) -> Owner:
    """The owner of an endpoint's chains and dispatch entries."""
    return Owner("endpoint", str(id_))


def set_owner(key: SetKey) -> Owner:
    """The owner of a set and its members."""
    return Owner("set", f"{key.id}/{key.family}")


class RulesPlanner:
    """Plans for a driver of rules. Counts what it compiles."""

    def __init__(self) -> None:
        self.compiled = 0

    def plans(self, change: Change, state: NodeState) -> Iterator[Plan]:
        """Sets first, then static rules, then endpoints: only those that the change names or its settings touch."""
        yield from self._set_plans(change, state)
        if change.settings is not None or change.sets or change.tunnels:
            yield self._static(state)
        touched = state.endpoints if change.settings is not None else change.endpoints
        for id_ in {**touched, **change.endpoints}:
            yield self._endpoint(id_, state)

    def _set_plans(self, change: Change, state: NodeState) -> Iterator[Plan]:
        for key in {**change.sets, **change.members}:
            if key not in state.sets:
                yield Plan(set_owner(key))
                continue
            delta = None if key in change.sets else change.members[key]
            yield self._set(key, state, delta)

    def plan(self, owner: Owner, state: NodeState) -> Plan:
        """All that one owner wants."""
        if owner == STATIC:
            return self._static(state)
        for id_ in state.endpoints if owner.kind == "endpoint" else ():
            if endpoint_owner(id_) == owner:
                return self._endpoint(id_, state)
        for key in state.sets if owner.kind == "set" else ():
            if set_owner(key) == owner:
                return self._set(key, state)
        return Plan(owner)

    def _static(self, state: NodeState) -> Plan:
        self.compiled += 1
        return Plan(STATIC, statics.compile(state))

    def _endpoint(self, id_: EndpointId, state: NodeState) -> Plan:
        self.compiled += 1
        endpoint = state.endpoints.get(id_)
        objects = endpoints.compile(endpoint, state.settings) if endpoint is not None else None
        return Plan(endpoint_owner(id_), objects)

    def _set(self, key: SetKey, state: NodeState, delta: SetDelta | None = None) -> Plan:
        self.compiled += 1
        moved = sets.moved(key, delta, state) if delta is not None else {}
        return Plan(set_owner(key), sets.compile(key, state), moved)

    def closed(self, owner: Owner, state: NodeState) -> Objects | None:
        """An endpoint whose rules are refused drops everything; others stay as they are until they are retried."""
        if owner.kind != "endpoint":
            return None
        endpoint = next((found for id_, found in state.endpoints.items() if str(id_) == owner.name), None)
        return endpoints.closed(endpoint) if endpoint is not None else None
