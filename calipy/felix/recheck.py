"""policyRecheck: established connections that a change of policy forbids are cut; Calico keeps them.

Once a change is committed, the tracked flows of the endpoints that it concerns are judged anew, each by its first
packet; where addresses have come to a set, or left it, the flows of those alone. Those that would be denied now are
marked, and a barrier drops what is marked, in both directions. To delete them would not be enough: the next packet of
the side that may talk to the other would begin a flow of its own, and what the forbidden side sends would be answers. A
marked flow that is allowed again is deleted: it begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Protocol

from msgspec import Struct, field

from calipy.felix.calc.change import Change, SetDelta
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dataplane import Dataplane
from calipy.felix.objects import Owner
from calipy.felix.plans import Planner
from calipy.felix.rules.compile import policy_owner, profile_owner, set_owner
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.netlink.ctnetlink import Flow, parse_flow
from calipy.resources.calipy_configurations import PolicyRecheck
from calipy.telemetry import Pulse

log = logging.getLogger("calipy.felix.recheck")

EVERY_S = 1.0
"""An endpoint's flows are judged at most once in this time, however fast changes come; the last one always counts."""
SLICE_S = 0.005
"""How long judging may hold the loop, and dumping the kernel thread, in one go."""
CUT_FOR_S = 1800
"""How long a flow stays cut: longer than TCP tries (tcp_retries2: 15 minutes, and a little)."""
_MOST = 500
"""Flows that are judged before more are dumped."""

Judge = Callable[[Flow], bool]
"""Whether a flow's first packet would be allowed now."""


class Judges(Protocol):
    """Who makes judges by the rules in force."""

    def __call__(self) -> Judge:
        """One that is right until the next await; it may be the last one, where nothing has moved."""
        ...

    def forget(self) -> None:
        """What the judges go by has moved, or nobody will ask soon."""
        ...


class Concerned(Struct, gc=False):
    """Whose flows are to be judged."""

    endpoints: set[EndpointId] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    """Peers': they have come to a set, or left it."""

    def __bool__(self) -> bool:
        return bool(self.endpoints or self.addresses)

    def add(self, other: Concerned) -> None:
        """Theirs, too."""
        self.endpoints |= other.endpoints
        self.addresses |= other.addresses


class Flows(Protocol):
    """The kernel's table of connections; both block."""

    def of(self, addresses: Iterable[str]) -> Iterator[list[bytes]]:
        """The flows that these addresses have opened or answer, as they are dumped, bit by bit. Raises OSError."""
        ...

    def mark(self, flows: Sequence[bytes], mark: int, seconds: int) -> int:
        """Marks dumped flows and lets them end in so many seconds; how many there still were. Raises OSError."""
        ...

    def forget(self, flows: Sequence[bytes]) -> int:
        """Deletes dumped flows; how many there still were. Raises OSError."""
        ...

    def close(self) -> None:
        """Lets go of the table."""
        ...


class Marks(Protocol):
    """What drops the packets of marked flows."""

    @property
    def stands(self) -> bool:
        """True if it does."""
        ...

    def raise_(self, mark: int) -> None:
        """Has them dropped from now on. Raises OSError."""
        ...

    def lift(self) -> None:
        """Lets them through. Raises OSError."""
        ...

    def close(self) -> None:
        """Lets go of the kernel."""
        ...


def mark_of(settings: FelixSettings) -> int:
    """The mark of connections that are cut: the lowest bit of the mask. Packets have marks of their own."""
    return settings.nftables_mark_mask & -settings.nftables_mark_mask


class Governed:
    """Which endpoints a policy or profile governs."""

    def __init__(self) -> None:
        self._owners: dict[EndpointId, frozenset[Owner]] = {}
        self._endpoints: dict[Owner, set[EndpointId]] = {}

    def put(self, id_: EndpointId, endpoint: WorkloadEndpoint | None) -> None:
        """An endpoint as it is now; None: it is gone."""
        owners = frozenset(_governing(endpoint)) if endpoint is not None else frozenset()
        before = self._owners.pop(id_, frozenset())
        for owner in before - owners:
            self._endpoints[owner].discard(id_)
            if not self._endpoints[owner]:
                del self._endpoints[owner]
        for owner in owners - before:
            self._endpoints.setdefault(owner, set()).add(id_)
        if owners:
            self._owners[id_] = owners

    def concerned(self, change: Change, planner: Planner) -> Concerned:
        """For whose flows a change may mean something: the endpoints that it names, those that are governed by what it
        names, and those whose policies or profiles use a set that it names; where that has but other members, which
        are addresses, those. `planner` knows who uses which set."""
        owners = {*map(policy_owner, change.policies), *map(profile_owner, change.profiles)}
        addresses: set[str] = set()
        for key in {**change.sets, **change.members}:
            users = tuple(planner.users(set_owner(key)))
            moved = None if key in change.sets else _addresses(change.members[key])
            if moved is None:
                owners.update(users)
            elif any(user in self._endpoints for user in users):
                addresses |= moved
        found = {id_ for id_, endpoint in change.endpoints.items() if endpoint is not None}
        return Concerned(found.union(*(self._endpoints.get(owner, ()) for owner in owners)), addresses)


def _addresses(delta: SetDelta) -> set[str] | None:
    """Those of the members that have moved, ports aside; None where networks are among them."""
    moved = {member.partition(",")[0] for members in (delta.added, delta.removed) for member in members}
    return None if any("/" in member for member in moved) else moved


def _governing(endpoint: WorkloadEndpoint) -> Iterator[Owner]:
    for binding in endpoint.tiers:
        yield from map(policy_owner, (*binding.ingress, *binding.egress))
    yield from map(profile_owner, endpoint.profiles)


class Recheck:
    """Cuts what is forbidden, while it is enabled. When that begins, all flows of all endpoints are judged once."""

    def __init__(
        self,
        dataplane: Dataplane,
        rules: str,
        inventory: Flows,
        kernel: Flows,
        barrier: Marks,
        thread: Executor,
        judges: Judges,
        *,
        every_s: float = EVERY_S,
    ) -> None:
        """`rules` names the driver whose rules are in force; `inventory` is dumped on `thread` while `kernel` marks and
        deletes on the loop: two sockets."""
        self._dataplane = dataplane
        self._rules = rules
        self._inventory = inventory
        self._kernel = kernel
        self._barrier = barrier
        self._mark = 0
        """What the barrier goes by; 0: not raised yet."""
        self._thread = thread
        self._judges = judges
        self._every_s = every_s
        self._enabled = False
        self._governed = Governed()
        self._waiting = Concerned()
        self._last_s: dict[EndpointId, float] = {}
        """When an endpoint's flows were judged last."""
        self._addresses_s = 0.0
        """When peers' were."""
        self._wake = asyncio.Event()
        self._wake.set()  # an agent before this one may have left its barrier
        self.pulse = Pulse()
        self.passes = self.judged = self.cut = self.reprieved = 0
        """Looks at the table of connections; flows judged; those cut; those of them that may begin anew."""

    def follow(self, setting: PolicyRecheck) -> None:
        """The setting in force."""
        before, self._enabled = self._enabled, setting == "Enabled"
        if before == self._enabled:
            return
        log.info("policyRecheck is %s", setting)
        self._mark = 0
        self._wake.set()
        self._governed, self._waiting, self._last_s = Governed(), Concerned(), {}
        state = self._dataplane.state
        if self._enabled and state is not None:
            self._put(state.endpoints)
            self._wait(Concerned(set(state.endpoints)))

    def committed(self, change: Change) -> None:
        """The kernel has the rules that follow from a change."""
        self._judges.forget()
        if not self._enabled:
            return
        self._put(change.endpoints)
        state = self._dataplane.state
        if change.settings is not None and state is not None:
            self._wait(Concerned(set(state.endpoints)))
        self._wait(self._governed.concerned(change, self._dataplane.area(self._rules).planner))

    def _put(self, endpoints: Mapping[EndpointId, WorkloadEndpoint | None]) -> None:
        for id_, endpoint in endpoints.items():
            self._governed.put(id_, endpoint)
            if endpoint is None:
                self._waiting.endpoints.discard(id_)
                self._last_s.pop(id_, None)

    def _wait(self, concerned: Concerned) -> None:
        if concerned:
            self._waiting.add(concerned)
            self._wake.set()

    def close(self) -> None:
        """Lets go of the table of connections."""
        self._inventory.close()
        self._kernel.close()
        self._barrier.close()

    async def run(self) -> None:
        """Judges whenever there is something to judge, without end."""
        later: asyncio.TimerHandle | None = None
        while True:
            await self._wake.wait()
            self._wake.clear()
            if later is not None:
                later.cancel()
            if not self._enabled:
                self._lift()
            elif due := self._due():
                with self.pulse.turn():
                    await self._look(due)
            if self._waiting:
                now = time.monotonic()
                last = min((self._last_s.get(id_, now) for id_ in self._waiting.endpoints), default=now)
                again = min(last, self._addresses_s if self._waiting.addresses else now) + self._every_s
                later = asyncio.get_running_loop().call_later(max(0.0, again - now), self._wake.set)

    def _due(self) -> Concerned:
        """Of those that wait, the ones that were last looked at long enough ago."""
        before = time.monotonic() - self._every_s
        endpoints = {id_ for id_ in self._waiting.endpoints if self._last_s.get(id_, before) <= before}
        return Concerned(endpoints, self._waiting.addresses.copy() if self._addresses_s <= before else set())

    async def _look(self, due: Concerned) -> None:
        await self._dataplane.at_rest(self._rules)
        self._waiting.endpoints -= due.endpoints
        self._waiting.addresses -= due.addresses
        began = time.monotonic()
        self._last_s.update(dict.fromkeys(due.endpoints, began))
        self._addresses_s = began if due.addresses else self._addresses_s
        state = self._dataplane.state
        assert state is not None
        own = {a for id_ in due.endpoints if id_ in state.endpoints for a in state.endpoints[id_].addresses}
        self.passes += 1
        try:
            self._raise(mark_of(state.settings))
        except OSError as error:
            return self._failed("the barrier can't be raised", error, due)
        found = self._inventory.of(own | due.addresses)
        loop = asyncio.get_running_loop()
        try:
            while (some := await loop.run_in_executor(self._thread, _some, found)) is not None:
                await self._weigh(some, due)
        except OSError as error:
            self._failed("the table of connections can't be read", error, due)
        self._judges.forget()

    def _raise(self, mark: int) -> None:
        if mark != self._mark or not self._barrier.stands:
            self._barrier.raise_(mark)
            self._mark = mark

    def _lift(self) -> None:
        try:
            self._barrier.lift()
        except OSError as error:
            log.error("%s", error)

    async def _weigh(self, flows: Sequence[bytes], due: Concerned) -> None:
        """Judges flows by the rules in force, in slices; what moves in between counts at once."""
        weighed = 0
        while weighed < len(flows) and self._enabled:
            await self._dataplane.at_rest(self._rules)
            weighed = self._weigh_some(flows, weighed, due)
            await asyncio.sleep(0)

    def _weigh_some(self, flows: Sequence[bytes], start: int, due: Concerned) -> int:
        until, judge = time.monotonic() + SLICE_S, self._judges()
        forbidden: list[bytes] = []
        reprieved: list[bytes] = []
        for number in range(start, len(flows)):
            flow = parse_flow(flows[number])
            allowed, marked = judge(flow), bool(flow.mark & self._mark)
            if allowed == marked:
                (reprieved if allowed else forbidden).append(flows[number])
            if time.monotonic() >= until:
                break
        self.judged += number + 1 - start
        try:
            self.cut += self._kernel.mark(forbidden, self._mark, CUT_FOR_S) if forbidden else 0
            self.reprieved += self._kernel.forget(reprieved) if reprieved else 0
        except OSError as error:
            self._failed("forbidden connections can't be cut", error, due)
        return number + 1

    def _failed(self, what: str, error: OSError, due: Concerned) -> None:
        log.error("%s: %s; trying again", what, error)
        self._wait(due)


def _some(found: Iterator[list[bytes]]) -> list[bytes] | None:
    """What a slice of the dump has found; None: it has ended."""
    until = time.monotonic() + SLICE_S
    some: list[bytes] = []
    for part in found:
        some += part
        if len(some) >= _MOST or time.monotonic() >= until:
            return some
    return some or None
