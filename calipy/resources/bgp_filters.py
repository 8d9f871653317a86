"""BGPFilter (projectcalico.org/v3): which routes a peering lets in and out, and what it changes on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources import communities
from calipy.resources.cidrs import is_masked, network_of
from calipy.resources.definitions import Constraint, Definition, Validation
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource


class BGPFilterPrefixLength(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Lengths that a route's prefix may have, both ends included."""

    min: int | None = None
    """The shortest; left out, the length of the rule's CIDR."""
    max: int | None = None
    """The longest; left out, 32 in IPv4 and 128 in IPv6."""


class BGPFilterCommunityMatch(Struct, frozen=True, gc=False, kw_only=True):
    """Communities that a route must carry."""

    values: tuple[str, ...]
    """Exactly one community, aa:nn (16 bits each) or, for a large one, aa:nn:mm (32 bits each)."""


class BGPFilterAddCommunity(Struct, frozen=True, gc=False, kw_only=True):
    """Adds a community to the route."""

    value: str
    """The community, aa:nn (16 bits each) or, for a large one, aa:nn:mm (32 bits each)."""


class BGPFilterPrependASPath(Struct, frozen=True, gc=False, kw_only=True):
    """Puts AS numbers before the route's AS path."""

    prefix: tuple[int, ...]
    """One to ten AS numbers, in the order in which they stand in the path: [65000, 65001] makes "65000 65001 ..."."""


class BGPFilterSetPriority(Struct, frozen=True, gc=False, kw_only=True):
    """Sets the route's priority."""

    value: int
    """The priority, in the units of FelixConfiguration's route priorities (a kernel metric): lower is preferred."""


class BGPFilterOperation(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """One change to a route; exactly one of the fields is set."""

    add_community: BGPFilterAddCommunity | None = None
    """Adds a community to the route."""
    prepend_as_path: BGPFilterPrependASPath | None = field(name="prependASPath", default=None)
    """Puts AS numbers before the route's AS path."""
    set_priority: BGPFilterSetPriority | None = None
    """Sets the route's priority."""


class BGPFilterRule(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """One rule: which routes, and what becomes of them. All matches that are given must hold; none match any route."""

    action: Literal["Accept", "Reject"]
    """What becomes of a route that matches: it passes the filter (Accept), or not (Reject). Later rules don't see
    it."""
    cidr: str = ""
    """The prefix that a route's is compared with, by matchOperator: 10.0.0.0/8. Needs matchOperator."""
    match_operator: Literal["Equal", "NotEqual", "In", "NotIn"] | None = None
    """How a route's prefix compares with cidr: it is the same (Equal), lies in it or is the same (In), or the contrary
    (NotEqual, NotIn). Needs cidr."""
    prefix_length: BGPFilterPrefixLength | None = None
    """Lengths that a route's prefix may have. Needs cidr."""
    source: Literal["RemotePeers"] | None = None
    """RemotePeers: only routes that were learned from BGP peers, and are told on; without it, the node's own too. Of
    routes that come in it says nothing: they all are from peers."""
    interface: str = ""
    """Only routes that leave by this interface; * stands for any characters."""
    peer_type: Literal["eBGP", "iBGP"] | None = None
    """Only peers in another AS (eBGP), or in the own AS (iBGP)."""
    communities: BGPFilterCommunityMatch | None = None
    """Only routes that carry this community."""
    as_path_prefix: tuple[int, ...] = ()
    """Only routes whose AS path begins with these AS numbers, in this order."""
    priority: int | None = None
    """Only routes of this priority, in the units of FelixConfiguration's route priorities."""
    operations: tuple[BGPFilterOperation, ...] = ()
    """Up to ten changes to the route, in this order, before it is accepted. With action Accept alone."""


class BGPFilterSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico BGPFilterSpec: ordered rules by direction and IP version. The first that matches a route decides; a route
    that none matches passes."""

    export_v4: tuple[BGPFilterRule, ...] = ()
    """Rules for IPv4 routes that the node announces to the peer."""
    import_v4: tuple[BGPFilterRule, ...] = ()
    """Rules for IPv4 routes that the peer announces to the node."""
    export_v6: tuple[BGPFilterRule, ...] = ()
    """Rules for IPv6 routes that the node announces to the peer."""
    import_v6: tuple[BGPFilterRule, ...] = ()
    """Rules for IPv6 routes that the peer announces to the node."""


class BGPFilter(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="BGPFilter"):
    """A filter, for BGPPeers to name."""

    spec: BGPFilterSpec = BGPFilterSpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


_BITS = {4: 32, 6: 128}
_LISTS = (("exportV4", 4), ("importV4", 4), ("exportV6", 6), ("importV6", 6))
_INTERFACE = "[a-zA-Z0-9_.*-]{1,15}"
_PRIORITY, _AS_NUMBER = range(1, 2147483647), range(4294967296)
_MOST_OPERATIONS = _MOST_PREPENDED = 10
_COMMUNITY_REMEDY = "write aa:nn or aa:nn:mm"


def problems(found: BGPFilter) -> Iterator[Problem]:
    """Calico's validation of BGPFilter, and what its CRD refuses."""
    spec = found.spec
    yield from metadata_problems(found.metadata)
    for (name, family), rules in zip(
        _LISTS, (spec.export_v4, spec.import_v4, spec.export_v6, spec.import_v6), strict=True
    ):
        for index, rule in enumerate(rules):
            yield from _rule_problems(f"spec.{name}[{index}]", rule, family)


def _rule_problems(where: str, rule: BGPFilterRule, family: int) -> Iterator[Problem]:
    yield from _prefix_problems(where, rule, family)
    if rule.interface and not re.fullmatch(_INTERFACE, rule.interface):
        remedy = "letters, digits, _, ., - and *, 15 at most"
        yield Problem(f"{where}.interface", rule.interface, "can't be an interface's name", remedy)
    if rule.communities is not None:
        yield from _community_match_problems(f"{where}.communities.values", rule.communities.values)
    yield from _as_numbers_problems(f"{where}.asPathPrefix", rule.as_path_prefix)
    if rule.priority is not None:
        yield from _range_problems(f"{where}.priority", rule.priority, _PRIORITY)
    yield from _operations_problems(f"{where}.operations", rule)


def _prefix_problems(where: str, rule: BGPFilterRule, family: int) -> Iterator[Problem]:
    if rule.cidr:
        yield from _cidr_problems(f"{where}.cidr", rule.cidr, family)
    if rule.cidr and rule.match_operator is None:
        remedy = "write Equal, NotEqual, In or NotIn"
        yield Problem(f"{where}.matchOperator", "", "is missing, and cidr is there", remedy)
    if rule.match_operator is not None and not rule.cidr:
        yield Problem(f"{where}.cidr", "", "is missing, and matchOperator is there", "write the prefix to compare with")
    if rule.prefix_length is None:
        return
    if not rule.cidr:
        yield Problem(f"{where}.cidr", "", "is missing, and prefixLength is there", "write the prefix to compare with")
    for name, length in (("min", rule.prefix_length.min), ("max", rule.prefix_length.max)):
        if length is not None:
            yield from _range_problems(f"{where}.prefixLength.{name}", length, range(_BITS[family] + 1))


def _cidr_problems(where: str, text: str, family: int) -> Iterator[Problem]:
    example = "10.0.0.0/8" if family == 4 else "2001:db8::/32"
    try:
        network = network_of(text)
    except ValueError:
        yield Problem(where, text, "is not a CIDR", f"write an address and a prefix length, {example}")
        return
    if network.version != family:
        reason = f"is IPv{network.version}, and these rules are for IPv{family}"
        yield Problem(where, text, reason, f"move the rule to the list for IPv{network.version}")
    elif not is_masked(text):
        yield Problem(where, text, "has bits set behind its prefix", f"write {network}")


def _community_match_problems(where: str, values: tuple[str, ...]) -> Iterator[Problem]:
    if len(values) != 1:
        yield Problem(where, list(values), "isn't one community", "write exactly one, and a rule for each other")
    for index, value in enumerate(values):
        yield from _community_problems(f"{where}[{index}]", value)


def _community_problems(where: str, value: str) -> Iterator[Problem]:
    if not communities.is_community(value):
        yield Problem(where, value, "is not a community", _COMMUNITY_REMEDY)


def _as_numbers_problems(where: str, numbers: tuple[int, ...]) -> Iterator[Problem]:
    for index, number in enumerate(numbers):
        yield from _range_problems(f"{where}[{index}]", number, _AS_NUMBER)


def _range_problems(where: str, number: int, allowed: range) -> Iterator[Problem]:
    if number not in allowed:
        yield Problem(where, number, "is out of range", f"write {allowed.start} to {allowed.stop - 1}")


def _operations_problems(where: str, rule: BGPFilterRule) -> Iterator[Problem]:
    if rule.operations and rule.action != "Accept":
        yield Problem(where, f"{len(rule.operations)} entries", "change a route that is rejected", "leave them out")
    if len(rule.operations) > _MOST_OPERATIONS:
        yield Problem(where, f"{len(rule.operations)} entries", "are too many", f"{_MOST_OPERATIONS} at most")
    for index, operation in enumerate(rule.operations):
        yield from _operation_problems(f"{where}[{index}]", operation)


def _operation_problems(where: str, operation: BGPFilterOperation) -> Iterator[Problem]:
    community, prepended, priority = operation.add_community, operation.prepend_as_path, operation.set_priority
    given = [
        name
        for name, value in (("addCommunity", community), ("prependASPath", prepended), ("setPriority", priority))
        if value is not None
    ]
    if len(given) != 1:
        remedy = "write one of addCommunity, prependASPath, setPriority, and an operation for each other"
        yield Problem(where, given, "isn't one change", remedy)
    if community is not None:
        yield from _community_problems(f"{where}.addCommunity.value", community.value)
    if prepended is not None:
        if not 1 <= len(prepended.prefix) <= _MOST_PREPENDED:
            reason = f"has {len(prepended.prefix)} AS numbers"
            yield Problem(f"{where}.prependASPath.prefix", list(prepended.prefix), reason, "write one to ten")
        yield from _as_numbers_problems(f"{where}.prependASPath.prefix", prepended.prefix)
    if priority is not None:
        yield from _range_problems(f"{where}.setPriority.value", priority.value, _PRIORITY)


def _constraints(name: str, family: int) -> Iterator[Constraint]:
    rule = f"spec.{name}[]"
    operation = f"{rule}.operations[]"
    # `format` is for both IP versions; the pattern tells them apart.
    pattern = "^[0-9.]+/[0-9]+$" if family == 4 else "^[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*/[0-9]+$"
    yield Constraint(path=f"{rule}.cidr", format="cidr", pattern=pattern, max_length=18 if family == 4 else 43)
    yield Constraint(path=f"{rule}.interface", pattern=f"^({_INTERFACE})?$")
    for end in ("min", "max"):
        yield Constraint(path=f"{rule}.prefixLength.{end}", minimum=0, maximum=_BITS[family])
    yield Constraint(path=f"{rule}.communities.values", min_items=1, max_items=1)
    yield Constraint(path=f"{rule}.operations", min_items=1, max_items=_MOST_OPERATIONS)
    yield Constraint(path=f"{operation}.prependASPath.prefix", min_items=1, max_items=_MOST_PREPENDED)
    for path in (f"{rule}.communities.values[]", f"{operation}.addCommunity.value"):
        yield Constraint(path=path, pattern=communities.PATTERN, max_length=communities.MOST_CHARACTERS)
    for path in (f"{rule}.asPathPrefix[]", f"{operation}.prependASPath.prefix[]"):
        yield Constraint(path=path, minimum=_AS_NUMBER.start, maximum=_AS_NUMBER.stop - 1)
    for path in (f"{rule}.priority", f"{operation}.setPriority.value"):
        yield Constraint(path=path, minimum=_PRIORITY.start, maximum=_PRIORITY.stop - 1)


def _validations(name: str) -> Iterator[Validation]:
    rule, with_cidr = f"spec.{name}[]", "(has(self.cidr) && self.cidr != '')"
    yield Validation(
        path=rule, rule=f"{with_cidr} == has(self.matchOperator)", field=".cidr",
        message="cidr and matchOperator go together: write both or none",
    )  # fmt: skip
    yield Validation(
        path=rule, rule=f"!has(self.prefixLength) || {with_cidr}", field=".prefixLength",
        message="prefixLength needs cidr",
    )  # fmt: skip
    yield Validation(
        path=rule, rule="!has(self.operations) || self.action == 'Accept'", field=".operations",
        message="operations are for action Accept: a route that is rejected can't be changed",
    )  # fmt: skip
    yield Validation(
        path=f"{rule}.operations[]",
        rule="(has(self.addCommunity) ? 1 : 0) + (has(self.prependASPath) ? 1 : 0)"
        " + (has(self.setPriority) ? 1 : 0) == 1",
        message="write exactly one of addCommunity, prependASPath, setPriority",
    )


KIND = Kind(
    name="BGPFilter", group="projectcalico.org", version="v3", plural="bgpfilters", type=BGPFilter, problems=problems,
    short_names=("bgpf", "bgpfs", "bf", "bfs"),
    definition=Definition(
        constraints=tuple(each for name, family in _LISTS for each in _constraints(name, family)),
        validations=tuple(each for name, _ in _LISTS for each in _validations(name)),
    ),
)  # fmt: skip
