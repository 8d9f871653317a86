"""What Calico's validation refuses in policies and their rules, and what CalIPy can't do yet.

Source: libcalico-go's validator and the rules in Calico's CRDs (v3.32).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from calipy.resources.cidrs import is_masked, network_of
from calipy.resources.labels import annotation_problems
from calipy.resources.metadata import Problem
from calipy.resources.policy_rules import (
    PROTOCOL_NUMBERS,
    EntityRule,
    ICMPFields,
    PolicySpec,
    Port,
    Protocol,
    Rule,
    ServiceMatch,
    port_range,
    protocol_number,
)
from calipy.resources.selectors import Expression, Global, Join, Not, SelectorError, parse, selector_problems

Direction = Literal["ingress", "egress"]

MOST_RULES, MOST_NETS, MOST_PORTS = 1024, 256, 50

_WITH_PORTS = {PROTOCOL_NUMBERS[name] for name in ("TCP", "UDP", "SCTP")}
_ICMP = {PROTOCOL_NUMBERS["ICMP"]: 4, PROTOCOL_NUMBERS["ICMPv6"]: 6}
"""Protocol -> the IP version that it belongs to."""
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_NAME = re.compile(rf"{_DNS_LABEL.pattern}(\.{_DNS_LABEL.pattern})*")


def policy_problems(spec: PolicySpec, *, namespaced: bool) -> Iterator[Problem]:
    """What is wrong with the fields that policies have in common."""
    if spec.tier and not (len(spec.tier) <= 63 and _DNS_LABEL.fullmatch(spec.tier)):
        yield Problem("spec.tier", spec.tier, "can't be a tier's name", "write the name of a Tier, or leave it out")
    yield from plain_selector_problems("spec.selector", spec.selector)
    yield from plain_selector_problems("spec.serviceAccountSelector", spec.service_account_selector)
    yield from _repeated("spec.types", spec.types)
    yield from _repeated("spec.performanceHints", spec.performance_hints)
    yield from rules_problems("spec.ingress", spec.ingress, "ingress", namespaced=namespaced)
    yield from rules_problems("spec.egress", spec.egress, "egress", namespaced=namespaced)


def rules_problems(field: str, rules: tuple[Rule, ...], direction: Direction, *, namespaced: bool) -> Iterator[Problem]:
    """What is wrong with a list of rules. `namespaced`: a Service may be meant without its namespace."""
    yield from _too_many(field, rules, MOST_RULES)
    for index, rule in enumerate(rules):
        where = f"{field}[{index}]"
        yield from _rule_problems(where, rule)
        yield from _service_problems(where, rule, direction, namespaced=namespaced)


def plain_selector_problems(field: str, text: str) -> Iterator[Problem]:
    """What is wrong with a selector in which `global()` has no meaning."""
    yield from selector_problems(field, text)
    if _has_global(text):
        yield Problem(field, text, "global() has no meaning here", "it belongs into a rule's namespaceSelector, alone")


def port_name_problems(field: str, text: str) -> Iterator[Problem]:
    """What is wrong with the name of a port (RFC 6335, IANA_SVC_NAME, in lower-case letters)."""
    if len(text) > 15 or not _PORT_NAME.fullmatch(text):
        remedy = "lower-case letters, digits and single dashes between them, 15 at most, a letter among them"
        yield Problem(field, text, "can't be the name of a port", remedy)


def _rule_problems(field: str, rule: Rule) -> Iterator[Problem]:
    if rule.ip_version not in (None, 4, 6):
        yield Problem(f"{field}.ipVersion", rule.ip_version, "is no IP version", "write 4 or 6, or leave it out")
    yield from _protocol_problems(field, rule)
    yield from _icmp_problems(f"{field}.icmp", rule.icmp)
    yield from _icmp_problems(f"{field}.notICMP", rule.not_icmp)
    if rule.http is not None:
        reason = "needs a proxy that reads HTTP, which CalIPy doesn't have"
        yield Problem(f"{field}.http", _shown(rule.http), reason, "match addresses and ports, and leave http out")
    yield from _entity_problems(f"{field}.source", rule.source)
    yield from _entity_problems(f"{field}.destination", rule.destination)
    yield from _ports_problems(field, rule)
    yield from _nets_problems(field, rule)
    if rule.metadata is not None:
        yield from annotation_problems(f"{field}.metadata.annotations", rule.metadata.annotations)


def _protocol_problems(field: str, rule: Rule) -> Iterator[Problem]:
    for name, value in (("protocol", rule.protocol), ("notProtocol", rule.not_protocol)):
        if value is None:
            continue
        number = _number(value)
        if number is None:
            known = ", ".join(PROTOCOL_NUMBERS)
            yield Problem(f"{field}.{name}", value, "is no protocol", f"write 1 to 255, or one of {known}")
        elif rule.ip_version in (4, 6) and _ICMP.get(number, rule.ip_version) != rule.ip_version:
            reason = f"is a protocol of IPv{_ICMP[number]}, and ipVersion is {rule.ip_version}"
            yield Problem(f"{field}.{name}", value, reason, "change one of them, or leave ipVersion out")
    if rule.icmp is not None and (rule.protocol is None or _number(rule.protocol) not in _ICMP):
        yield Problem(f"{field}.icmp", _shown(rule.icmp), "is for ICMP only", "set protocol to ICMP or ICMPv6")


def _icmp_problems(field: str, icmp: ICMPFields | None) -> Iterator[Problem]:
    if icmp is None:
        return
    for name, value, most in (("type", icmp.type, 254), ("code", icmp.code, 255)):
        if value is not None and not 0 <= value <= most:
            yield Problem(f"{field}.{name}", value, "is out of range", f"write 0 to {most}")
    if icmp.code is not None and icmp.type is None:
        yield Problem(f"{field}.code", icmp.code, "means nothing without its type", "set type too")


def _entity_problems(field: str, entity: EntityRule) -> Iterator[Problem]:
    yield from plain_selector_problems(f"{field}.selector", entity.selector)
    yield from plain_selector_problems(f"{field}.notSelector", entity.not_selector)
    yield from _namespace_selector_problems(f"{field}.namespaceSelector", entity.namespace_selector)
    for name, ports in (("ports", entity.ports), ("notPorts", entity.not_ports)):
        yield from _too_many(f"{field}.{name}", ports, MOST_PORTS)
        for index, port in enumerate(ports):
            yield from _port_problems(f"{field}.{name}[{index}]", port)
    for name, nets in (("nets", entity.nets), ("notNets", entity.not_nets)):
        yield from _too_many(f"{field}.{name}", nets, MOST_NETS)
        yield from _repeated(f"{field}.{name}", nets)
    if (accounts := entity.service_accounts) is not None:
        yield from _repeated(f"{field}.serviceAccounts.names", accounts.names)
        yield from plain_selector_problems(f"{field}.serviceAccounts.selector", accounts.selector)
    if entity.services is not None:
        yield from _service_match_problems(f"{field}.services", entity.services)
        for name, value in _beside_services(entity):
            reason = "can't be combined with services: a Service's endpoints say who is meant"
            yield Problem(f"{field}.{name}", value, reason, "keep one of them, or write two rules")


def _beside_services(entity: EntityRule) -> Iterator[tuple[str, object]]:
    for name, value in (
        ("nets", list(entity.nets)),
        ("notNets", list(entity.not_nets)),
        ("selector", entity.selector),
        ("notSelector", entity.not_selector),
        ("namespaceSelector", entity.namespace_selector),
    ):
        if value:
            yield name, value
    if entity.service_accounts is not None:
        yield "serviceAccounts", _shown(entity.service_accounts)


def _namespace_selector_problems(field: str, text: str) -> Iterator[Problem]:
    yield from selector_problems(field, text)
    if _has_global(text) and not isinstance(parse(text).expression, Global):
        yield Problem(field, text, "global() can't be combined with anything", "write global() alone, or two rules")


def _has_global(text: str) -> bool:
    try:
        return any(isinstance(part, Global) for part in _parts(parse(text).expression))
    except SelectorError:
        return False


def _parts(expression: Expression) -> Iterator[Expression]:
    yield expression
    operands: Iterable[Expression] = ()
    if isinstance(expression, Join):
        operands = expression.operands
    elif isinstance(expression, Not):
        operands = (expression.operand,)
    for operand in operands:
        yield from _parts(operand)


def _port_problems(field: str, port: Port) -> Iterator[Problem]:
    try:
        found = port_range(port)
    except ValueError:
        yield Problem(field, port, "is no port", "write 1 to 65535, min:max, or the name of a container's port")
        return
    if found is None:
        yield from port_name_problems(field, str(port))


def _ports_problems(field: str, rule: Rule) -> Iterator[Problem]:
    """Ports are ports of a protocol; names know theirs."""
    number = None if rule.protocol is None else _number(rule.protocol)
    if number in _WITH_PORTS or (rule.protocol is not None and number is None):
        return
    for end, entity in (("source", rule.source), ("destination", rule.destination)):
        for name, ports in (("ports", entity.ports), ("notPorts", entity.not_ports)):
            nameless = [port for port in ports if not _is_name(port)]
            if rule.protocol is None and nameless:
                reason = "are of no protocol, and only names know theirs"
                yield Problem(f"{field}.{end}.{name}", nameless, reason, "set protocol to TCP, UDP or SCTP")
            elif rule.protocol is not None and ports:
                reason = f"protocol {rule.protocol} has no ports"
                yield Problem(f"{field}.{end}.{name}", list(ports), reason, "set protocol to TCP, UDP or SCTP")


def _nets_problems(field: str, rule: Rule) -> Iterator[Problem]:
    """All CIDRs of a rule are of one family, for no packet has two."""
    families: set[int] = {rule.ip_version} if rule.ip_version in (4, 6) else set()
    of = f"ipVersion is {rule.ip_version}" if families else ""
    for end, entity in (("source", rule.source), ("destination", rule.destination)):
        for name, nets in (("nets", entity.nets), ("notNets", entity.not_nets)):
            for index, net in enumerate(nets):
                where = f"{field}.{end}.{name}[{index}]"
                family = yield from _net_problems(where, net, negated=name == "notNets")
                if family and not families:
                    families, of = {family}, f"{where} is IPv{family}"
                elif family and family not in families:
                    yield Problem(where, net, f"is IPv{family}, but {of}", "write one rule for each IP version")


def _net_problems(field: str, text: str, *, negated: bool) -> Generator[Problem, None, int]:
    """Gives back the family, 0 where it has none."""
    try:
        network = network_of(text)
    except ValueError:
        yield Problem(field, text, "is not a CIDR", "write an address and a prefix length, 10.0.0.0/8 or 10.0.0.1/32")
        return 0
    if not is_masked(text):
        yield Problem(field, text, "has bits set behind its prefix", f"write {network}")
    elif negated and not network.prefixlen:
        yield Problem(field, text, "leaves no address to match", "leave the rule out")
    return network.version


def _service_match_problems(field: str, match: ServiceMatch) -> Iterator[Problem]:
    if not match.name:
        yield Problem(f"{field}.name", "", "is empty", "name the Service")
    for name, text in (("name", match.name), ("namespace", match.namespace)):
        if text and not (len(text) <= 253 and _DNS_NAME.fullmatch(text)):
            remedy = "lower-case letters, digits, dashes, dots; a letter or digit at both ends; 253 at most"
            yield Problem(f"{field}.{name}", text, "can't be a name", remedy)


def _service_problems(field: str, rule: Rule, direction: Direction, *, namespaced: bool) -> Iterator[Problem]:
    """A Service is meant at the far end only, and its endpoints' ports are the ports."""
    near, far = ("destination", "source") if direction == "ingress" else ("source", "destination")
    ends = {"source": rule.source, "destination": rule.destination}
    if (misplaced := ends[near].services) is not None:
        reason = f"{direction} rules can't have it: their {near} is the policy's own workload"
        yield Problem(f"{field}.{near}.services", _shown(misplaced), reason, f"move it to {far}, or leave it out")
    services = ends[far].services
    if services is not None and not services.namespace and not namespaced:
        reason = "is empty, and there is no namespace that could be meant"
        yield Problem(f"{field}.{far}.services.namespace", "", reason, "name the Service's namespace")
    if rule.destination.services is not None:
        for name, ports in (("ports", rule.destination.ports), ("notPorts", rule.destination.not_ports)):
            if ports:
                reason = "can't be combined with services: a Service's endpoints have ports of their own"
                yield Problem(f"{field}.destination.{name}", list(ports), reason, "keep one of them")


def _shown(value: Struct) -> object:
    """As it stands in the document."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _number(protocol: Protocol) -> int | None:
    try:
        return protocol_number(protocol)
    except ValueError:
        return None


def _is_name(port: Port) -> bool:
    try:
        return port_range(port) is None
    except ValueError:
        return False


def _too_many(field: str, found: tuple[object, ...], most: int) -> Iterator[Problem]:
    if len(found) > most:
        yield Problem(field, f"{len(found)} entries", "are too many", f"{most} at most")


def _repeated(field: str, found: tuple[str, ...]) -> Iterator[Problem]:
    twice = sorted(each for each, count in Counter(found).items() if count > 1)
    if twice:
        yield Problem(field, twice, "is there twice" if len(twice) == 1 else "are there twice", "write each once")
