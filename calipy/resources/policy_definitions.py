"""What the API server holds policies and their rules to: what `policy_problems` judges, as far as CEL can tell.

CEL reads no selector beyond its length and the word `global(`. An API server counts before it runs what rules may cost
with all lists full: for 1024 rules of 256 CIDRs there is no room to look at them all, so that bits behind a prefix
and two IP versions in one list are left to the agents.
"""

from __future__ import annotations

from collections.abc import Iterator

from calipy.resources.definitions import SELECTOR, Column, Constraint, Definition, Validation, bounded, unset
from calipy.resources.policy_problems import MOST_NETS, MOST_PORTS, MOST_RULES, Direction

_LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_DNS_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

COLUMNS = (
    Column(name="Tier", path=".spec.tier", description="The tier that the policy is in."),
    Column(name="Order", path=".spec.order", type="number", description="Lower first; the last where there is none."),
)


def policy_definition(
    *,
    namespaced: bool,
    short_names: tuple[str, ...],
    columns: tuple[Column, ...] = COLUMNS,
    constraints: tuple[Constraint, ...] = (),
    validations: tuple[Validation, ...] = (),
) -> Definition:
    """Of a kind with a PolicySpec; `constraints` and `validations` are of its other fields."""
    return Definition(
        columns=columns,
        short_names=short_names,
        selectable=(".spec.tier",),
        constraints=(*_policy_constraints(), *constraints),
        validations=(*_policy_validations(namespaced), *validations),
    )


def _policy_constraints() -> Iterator[Constraint]:
    yield Constraint(path="spec.tier", default="default", max_length=63, pattern=_LABEL)
    yield from bounded(SELECTOR, "spec.selector", "spec.serviceAccountSelector")
    yield Constraint(path="spec.types", list_type="set", min_items=1, max_items=2)
    yield Constraint(path="spec.performanceHints", list_type="set", max_items=1)
    for direction in ("ingress", "egress"):
        yield Constraint(path=f"spec.{direction}", list_type="atomic", max_items=MOST_RULES)
        yield from rule_constraints(f"spec.{direction}[]")


def _policy_validations(namespaced: bool) -> Iterator[Validation]:
    for name in ("selector", "serviceAccountSelector"):
        yield no_global("spec", name)
    yield from rule_validations("spec.ingress[]", "ingress", namespaced=namespaced)
    yield from rule_validations("spec.egress[]", "egress", namespaced=namespaced)


def no_global(path: str, field: str) -> Validation:
    """A selector below a path in which `global()` has no meaning."""
    return Validation(
        path=path,
        field=f".{field}",
        rule=f"!has(self.{field}) || !self.{field}.contains('global(')",
        message="global() has no meaning here: it belongs into a rule's namespaceSelector, alone",
    )


def rule_constraints(path: str) -> Iterator[Constraint]:
    """Of the rules at a path."""
    yield Constraint(path=f"{path}.ipVersion", enum=(4, 6))
    for name in ("protocol", "notProtocol"):
        yield Constraint(path=f"{path}.{name}", minimum=1, maximum=255, max_length=10)
    for name in ("icmp", "notICMP"):
        yield Constraint(path=f"{path}.{name}.type", minimum=0, maximum=254)
        yield Constraint(path=f"{path}.{name}.code", minimum=0, maximum=255)
    yield Constraint(path=f"{path}.http.methods", list_type="atomic", max_items=20)
    yield Constraint(path=f"{path}.http.paths", list_type="atomic", max_items=20)
    yield from bounded(1024, f"{path}.http.paths[].exact", f"{path}.http.paths[].prefix")
    for end in ("source", "destination"):
        yield from _entity_constraints(f"{path}.{end}")


def _entity_constraints(path: str) -> Iterator[Constraint]:
    selectors = ("selector", "notSelector", "namespaceSelector", "serviceAccounts.selector")
    yield from bounded(SELECTOR, *(f"{path}.{name}" for name in selectors))
    yield Constraint(path=f"{path}.serviceAccounts.names", list_type="set")
    for name in ("name", "namespace"):
        yield Constraint(path=f"{path}.services.{name}", max_length=253, pattern=_DNS_NAME)
    for name in ("nets", "notNets"):
        yield Constraint(path=f"{path}.{name}", list_type="set", max_items=MOST_NETS)
        yield Constraint(path=f"{path}.{name}[]", format="cidr", max_length=43)
    for name in ("ports", "notPorts"):
        yield Constraint(path=f"{path}.{name}", list_type="atomic", max_items=MOST_PORTS)
        yield Constraint(path=f"{path}.{name}[]", minimum=1, maximum=65535, max_length=15)


def rule_validations(path: str, direction: Direction, *, namespaced: bool) -> Iterator[Validation]:
    """Of the rules at a path. `namespaced`: a Service may be meant without its namespace."""
    yield from _protocol_validations(path)
    yield from _http_validations(path)
    yield from _ports_validations(path)
    yield from _family_validations(path)
    yield from _service_validations(path, direction, namespaced=namespaced)
    for end in ("source", "destination"):
        yield from _entity_validations(f"{path}.{end}")


_PROTOCOL_RULE = (
    "type(self) == int || self in ['TCP', 'UDP', 'ICMP', 'ICMPv6', 'SCTP', 'UDPLite'] || "
    "(self.matches('^[0-9]+$') && int(self) >= 1 && int(self) <= 255)"
)
_PROTOCOL_MESSAGE = "is no protocol: write 1 to 255, or one of TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite"


def _protocol_validations(path: str) -> Iterator[Validation]:
    yield Validation(
        path=path,
        field=".icmp",
        rule="!has(self.icmp) || (has(self.protocol) && string(self.protocol) in ['ICMP', 'ICMPv6', '1', '58'])",
        message="is for ICMP only: set protocol to ICMP or ICMPv6",
    )
    for field in ("protocol", "notProtocol"):
        yield Validation(path=f"{path}.{field}", rule=_PROTOCOL_RULE, message=_PROTOCOL_MESSAGE)
        for name, number, version in (("ICMP", 1, 4), ("ICMPv6", 58, 6)):
            yield Validation(
                path=path,
                field=f".{field}",
                rule=f"!has(self.{field}) || !(string(self.{field}) in ['{name}', '{number}']) || "
                f"!has(self.ipVersion) || self.ipVersion == {version}",
                message=f"{name} is a protocol of IPv{version}: change ipVersion, or leave it out",
            )
    for name in ("icmp", "notICMP"):
        yield Validation(
            path=f"{path}.{name}",
            field=".code",
            rule="!has(self.code) || has(self.type)",
            message="means nothing without its type: set type too",
        )


def _http_validations(path: str) -> Iterator[Validation]:
    yield Validation(
        path=path,
        field=".http",
        rule="!has(self.http) || !has(self.protocol) || string(self.protocol) in ['TCP', '6']",
        message="is for TCP only: set protocol to TCP, or leave it out",
    )
    yield Validation(
        path=path,
        field=".http",
        rule="!has(self.http) || self.action == 'Allow'",
        message="is for rules that allow only",
        reason="FieldValueForbidden",
    )


def _ports_validations(path: str) -> Iterator[Validation]:
    """Ports are ports of a protocol; names know theirs."""
    for end in ("source", "destination"):
        for name in ("ports", "notPorts"):
            field = f"self.{end}.{name}"
            yield Validation(
                path=path,
                field=f".{end}.{name}",
                rule=f"!has(self.{end}) || {unset(field)} || (has(self.protocol) ? "
                "string(self.protocol) in ['TCP', 'UDP', 'SCTP', '6', '17', '132'] : "
                f"{field}.all(port, type(port) == string && port.matches('[a-z]')))",
                message="are of no protocol that has ports: set protocol to TCP, UDP or SCTP",
            )
            yield Validation(
                path=f"{path}.{end}.{name}[]",
                rule=_PORT_RULE,
                message="is no port: write 1 to 65535, min:max, or the name of a container's port",
            )


_PORT_RULE = (
    "type(self) == int || (self.matches('^[0-9]+:[0-9]+$') ? "
    "int(self.split(':')[0]) >= 1 && int(self.split(':')[0]) <= int(self.split(':')[1]) && "
    "int(self.split(':')[1]) <= 65535 : "
    "self.matches('^[0-9]+$') ? int(self) >= 1 && int(self) <= 65535 : self.matches('^[a-z0-9]+(-[a-z0-9]+)*$'))"
)


_NETS = tuple((end, name) for end in ("source", "destination") for name in ("nets", "notNets"))


def _family_validations(path: str) -> Iterator[Validation]:
    """All CIDRs of a rule are of one IP version. Each list is judged by its first one."""
    for index, (end, name) in enumerate(_NETS):
        here = f"self.{end}.{name}"
        absent = f"!has(self.{end}) || {unset(here)}"
        yield Validation(
            path=path,
            field=f".{end}.{name}",
            rule=f"{absent} || !has(self.ipVersion) || {here}[0].contains(':') == (self.ipVersion == 6)",
            message="are not of the rule's ipVersion: write one rule for each IP version",
        )
        for other_end, other_name in _NETS[:index]:
            there = f"self.{other_end}.{other_name}"
            yield Validation(
                path=path,
                field=f".{end}.{name}",
                rule=f"{absent} || !has(self.{other_end}) || {unset(there)} || "
                f"{here}[0].contains(':') == {there}[0].contains(':')",
                message=f"are not of the IP version of {other_end}.{other_name}: write one rule for each IP version",
            )


def _service_validations(path: str, direction: Direction, *, namespaced: bool) -> Iterator[Validation]:
    """A Service is meant at the far end only, and its endpoints' ports are the ports."""
    near, far = ("destination", "source") if direction == "ingress" else ("source", "destination")
    yield Validation(
        path=path,
        field=f".{near}.services",
        rule=f"!has(self.{near}) || !has(self.{near}.services)",
        message=f"{direction} rules can't have it: their {near} is the policy's own workload; move it to {far}",
        reason="FieldValueForbidden",
    )
    if not namespaced:
        services = f"self.{far}.services"
        yield Validation(
            path=path,
            field=f".{far}.services.namespace",
            rule=f"!has(self.{far}) || !has({services}) || !{unset(f'{services}.namespace')}",
            message="is empty, and there is no namespace that could be meant: name the Service's namespace",
            reason="FieldValueRequired",
        )
    for name in ("ports", "notPorts"):
        yield Validation(
            path=path,
            field=f".destination.{name}",
            rule=f"!has(self.destination) || !has(self.destination.services) || {unset(f'self.destination.{name}')}",
            message="can't be combined with services: a Service's endpoints have ports of their own",
            reason="FieldValueForbidden",
        )


def _entity_validations(path: str) -> Iterator[Validation]:
    for name in ("selector", "notSelector"):
        yield no_global(path, name)
    yield no_global(f"{path}.serviceAccounts", "selector")
    yield Validation(
        path=path,
        field=".namespaceSelector",
        rule="!has(self.namespaceSelector) || !self.namespaceSelector.contains('global(') || "
        r"self.namespaceSelector.matches('^[ \t(!]*global\\([ \t]*\\)[ \t)]*$')",
        message="global() can't be combined with anything: write global() alone, or two rules",
    )
    yield Validation(
        path=f"{path}.services",
        field=".name",
        rule=f"!{unset('self.name')}",
        message="is empty: name the Service",
        reason="FieldValueRequired",
    )
    for name in ("nets", "notNets", "selector", "notSelector", "namespaceSelector"):
        yield _beside_services(path, name, unset(f"self.{name}"))
    yield _beside_services(path, "serviceAccounts", "!has(self.serviceAccounts)")
    yield Validation(
        path=f"{path}.notNets[]",
        rule="!self.endsWith('/0')",
        message="leaves no address to match: leave the rule out",
    )


def _beside_services(path: str, name: str, absent: str) -> Validation:
    return Validation(
        path=path,
        field=f".{name}",
        rule=f"!has(self.services) || {absent}",
        message="can't be combined with services: a Service's endpoints say who is meant",
        reason="FieldValueForbidden",
    )
