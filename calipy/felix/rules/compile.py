"""Who owns which rules, and whose must be compiled again for a change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from calipy.felix.calc.change import Change, NodeState, SetDelta, SetKey
from calipy.felix.objects import ObjectName, Objects, Owner
from calipy.felix.plans import Plan, mistaken, planned
from calipy.felix.rules import endpoints, names, origins, policies, profiles, runs, sets, statics
from calipy.felix.rules.steps import Steps, all_of
from calipy.felix.rules.values import Chain, InEndpoints, InPorts, InSet
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import PolicyId, Run
from calipy.model.sets import ALL_HOSTS, MASQUERADED_IP_POOLS, NETWORK_IP_POOLS, VXLAN_HOSTS, SetId, SetKind

STATIC = Owner("static", "")
_BUILT_IN = {NETWORK_IP_POOLS, MASQUERADED_IP_POOLS, ALL_HOSTS, VXLAN_HOSTS}
_FLIPPING: tuple[SetKind, ...] = ("addresses", "prefixes")
"""Kinds that one set may have, one after the other."""
_UNCOVERED = sets.Cover()
_Judge = PolicyId | str
"""A policy, or a profile by its name."""


def endpoint_owner(id_: EndpointId) -> Owner:
    """The owner of an endpoint's chains and dispatch entries."""
    return Owner("endpoint", str(id_))


def policy_owner(id_: PolicyId) -> Owner:
    """The owner of a policy's chains."""
    return Owner("policy", str(id_))


def profile_owner(name: str) -> Owner:
    """The owner of a profile's chains."""
    return Owner("profile", name)


def run_owner(id_: SetId) -> Owner:
    """The owner of what a run of policies has but for its maps, which are sets."""
    return Owner("run", id_)


def set_owner(key: SetKey) -> Owner:
    """The owner of a set and its members."""
    return Owner("set", f"{key.id}/{key.family}")


class RulesPlanner:
    """Plans for a driver of rules: what a change names, what its settings touch, and whose sets become others."""

    def __init__(self) -> None:
        self.by_kind: Counter[str] = Counter()
        """How many were compiled, by owner's kind."""
        self._users: dict[str, dict[_Judge, None]] = {}
        """Name of a set in the kernel -> the policies and profiles whose rules name it."""
        self._used: dict[_Judge, frozenset[str]] = {}
        self._covers: dict[SetKey, sets.Cover] = {}
        """What covers what in sets of prefixes."""
        self._mergers = _Mergers()
        self._terms: tuple[policies.Terms, endpoints.Terms] | None = None

    @property
    def compiled(self) -> int:
        """How many were compiled in all."""
        return self.by_kind.total()

    def plans(self, change: Change, state: NodeState) -> Iterator[Plan | None]:
        """Each owner that the change touches, once; None where there is much of one."""
        yield from self._set_plans(change, state)
        if change.settings is not None or change.tunnels or any(key.id in _BUILT_IN for key in change.sets):
            yield self._static(state)
        before, self._terms = self._terms, (policies.terms(state.settings), endpoints.terms(state.settings))
        judges = self._judges(change, state, again=before is None or before[0] != self._terms[0])
        for judge in judges:
            yield (yield from self._judge(judge, state))
        for run in change.runs:
            yield self._run(run, state)
        again = before is None or before[1] != self._terms[1]
        for id_ in {**change.endpoints, **(state.endpoints if again else {})}:
            yield self._endpoint(id_, state)

    def _set_plans(self, change: Change, state: NodeState) -> Iterator[Plan | None]:
        for key in {**change.sets, **change.members}:
            if key not in state.sets:
                self._covers.pop(key, None)
                yield Plan(set_owner(key))
                continue
            yield (yield from self._set(key, state, None if key in change.sets else change.members[key]))

    def _judges(self, change: Change, state: NodeState, *, again: bool) -> Iterable[_Judge]:
        """The policies and profiles to compile: all of them, or those that the change names and those that use a set
        of another kind now."""
        found: dict[_Judge, None] = dict.fromkeys((*change.policies, *change.profiles))
        if again:
            found.update(dict.fromkeys((*state.policies, *state.profiles)))
        for key in change.sets:
            found.update(self._users_of(key))
        return found

    def plan(self, owner: Owner, state: NodeState) -> Plan:
        """All that one owner wants."""
        if owner == STATIC:
            return self._static(state)
        if owner.kind == "policy":
            return all_of(self._judge(origins.policy_id(owner.name), state))
        if owner.kind == "profile":
            return all_of(self._judge(owner.name, state))
        if owner.kind == "run":
            return self._run(SetId(owner.name), state)
        for id_ in state.endpoints if owner.kind == "endpoint" else ():
            if endpoint_owner(id_) == owner:
                return self._endpoint(id_, state)
        for key in state.sets if owner.kind == "set" else ():
            if set_owner(key) == owner:
                return all_of(self._set(key, state))
        return Plan(owner)

    def _static(self, state: NodeState) -> Plan:
        self.by_kind["static"] += 1
        return planned(STATIC, lambda: statics.compile(state))

    def _judge(self, judge: _Judge, state: NodeState) -> Steps[Plan]:
        owner = _owner(judge)
        self.by_kind[owner.kind] += 1
        try:
            objects = yield from self._objects(judge, state)
        except Exception as error:  # whatever it is: it is told, and the policy closed
            return mistaken(owner, error)
        self._note(judge, _sets_in(objects or {}))
        return Plan(owner, objects)

    def _objects(self, judge: _Judge, state: NodeState) -> Steps[Objects | None]:
        objects = None
        if isinstance(judge, str):
            profile = state.profiles.get(judge)
            if profile is not None:
                objects = yield from profiles.steps(profile, state)
        else:
            policy = state.policies.get(judge)
            if policy is not None:
                objects = yield from policies.steps(policy, state)
        return objects

    def _note(self, judge: _Judge, used: frozenset[str]) -> None:
        before = self._used.pop(judge, frozenset())
        for name in before - used:
            users = self._users[name]
            del users[judge]
            if not users:
                del self._users[name]
        for name in used - before:
            self._users.setdefault(name, {})[judge] = None
        if used:
            self._used[judge] = used

    def _endpoint(self, id_: EndpointId, state: NodeState) -> Plan:
        self.by_kind["endpoint"] += 1
        endpoint = state.endpoints.get(id_)
        self._mergers.put(id_, endpoint)
        if endpoint is None:
            return Plan(endpoint_owner(id_))
        return planned(endpoint_owner(id_), lambda: endpoints.compile(endpoint, state.settings))

    def _run(self, id_: SetId, state: NodeState) -> Plan:
        self.by_kind["run"] += 1
        merged = state.runs.get(id_)
        if merged is None:
            return Plan(run_owner(id_))
        return planned(run_owner(id_), lambda: runs.compile(merged))

    def _set(self, key: SetKey, state: NodeState, delta: SetDelta | None = None) -> Steps[Plan]:
        self.by_kind["set"] += 1
        try:
            objects, deltas = yield from self._set_objects(key, state, delta)
        except Exception as error:  # whatever it is: it is told, and the set left as it is
            return mistaken(set_owner(key), error)
        return Plan(set_owner(key), objects, deltas)

    def _set_objects(
        self, key: SetKey, state: NodeState, delta: SetDelta | None
    ) -> Steps[tuple[Objects, Mapping[ObjectName, SetDelta]]]:
        before = self._covers.pop(key, _UNCOVERED)
        after = _UNCOVERED
        if state.sets[key] == "prefixes":
            moved = sets.moved_cover(before, delta) if delta is not None else None
            if moved is None:
                delta, moved = None, (yield from sets.cover_steps(state.members[key]))
            after = self._covers[key] = moved
        deltas = sets.moved(key, state, delta, before, after) if delta is not None else {}
        return sets.compile(key, state, after), deltas

    def closed(self, owner: Owner, state: NodeState) -> Objects | None:
        """An endpoint, policy or profile whose rules are refused drops everything; others stay as they are until they
        are retried."""
        if owner.kind == "endpoint":
            endpoint = next((found for id_, found in state.endpoints.items() if str(id_) == owner.name), None)
            return endpoints.closed(endpoint) if endpoint is not None else None
        if owner.kind == "policy":
            policy = state.policies.get(origins.policy_id(owner.name))
            return policies.closed(policy) if policy is not None else None
        if owner.kind == "profile":
            profile = state.profiles.get(owner.name)
            return profiles.closed(profile) if profile is not None else None
        return None

    def users(self, owner: Owner) -> Iterable[Owner]:
        """The policies and profiles whose rules name a set; the endpoints that have merged a run that is refused, or
        whose map is, or one of whose policies is: the look-up would lead past what should decide."""
        if owner.kind == "run":
            return self._mergers.of_runs((SetId(owner.name),))
        if owner.kind == "policy":
            return self._mergers.of_policies((origins.policy_id(owner.name),))
        if owner.kind != "set":
            return ()
        id_, _, family = owner.name.rpartition("/")
        judges = self._users_of(SetKey(SetId(id_), int(family)))
        mergers = self._mergers.of_policies(judge for judge in judges if not isinstance(judge, str))
        return (*map(_owner, judges), *self._mergers.of_runs((SetId(id_),)), *mergers)

    def _users_of(self, key: SetKey) -> dict[_Judge, None]:
        """Of a set, whatever its kind is or was."""
        users = [self._users.get(names.set_name(key, kind), {}) for kind in _FLIPPING]
        return users[0] | users[1]


class _Mergers:
    """Which endpoints have merged which runs, and which policies are in those."""

    def __init__(self) -> None:
        self._of: dict[EndpointId, tuple[Run, ...]] = {}
        self._endpoints: dict[SetId, dict[EndpointId, None]] = {}
        self._runs: dict[PolicyId, dict[SetId, None]] = {}

    def put(self, id_: EndpointId, endpoint: WorkloadEndpoint | None) -> None:
        """An endpoint as it is now; None: it is gone."""
        after = tuple(run for binding in endpoint.tiers for run in binding.runs) if endpoint is not None else ()
        before = self._of.pop(id_, ())
        if after:
            self._of[id_] = after
        for run in after:
            if run not in before:
                self._endpoints.setdefault(run.id, {})[id_] = None
                for policy in run.policies:
                    self._runs.setdefault(policy, {})[run.id] = None
        for run in before:
            if run not in after:
                self._leave(id_, run)

    def _leave(self, id_: EndpointId, run: Run) -> None:
        del self._endpoints[run.id][id_]
        if self._endpoints[run.id]:
            return
        del self._endpoints[run.id]
        for policy in run.policies:
            del self._runs[policy][run.id]
            if not self._runs[policy]:
                del self._runs[policy]

    def of_policies(self, policies: Iterable[PolicyId]) -> tuple[Owner, ...]:
        """The endpoints with a run that one of these is in."""
        return self.of_runs(run for policy in policies for run in self._runs.get(policy, ()))

    def of_runs(self, runs: Iterable[SetId]) -> tuple[Owner, ...]:
        """The endpoints with one of these."""
        found = dict.fromkeys(id_ for run in runs for id_ in self._endpoints.get(run, ()))
        return tuple(map(endpoint_owner, found))


def _owner(judge: _Judge) -> Owner:
    return profile_owner(judge) if isinstance(judge, str) else policy_owner(judge)


def _sets_in(objects: Objects) -> frozenset[str]:
    """The sets that chains name."""
    return frozenset(
        match.set
        for value in objects.values()
        if isinstance(value, Chain)
        for rule in value.rules
        for match in rule.matches
        if isinstance(match, InSet | InEndpoints | InPorts)
    )
