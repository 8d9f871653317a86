"""Selectors of policies and rules -> one expression over the labels that workloads and network sets have and inherit
(calico.md 1.2).

The expressions are put together as Calico puts its texts together, so that their canonical texts, and with them the
identities of sets, are Calico's.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from calipy.conversion.workloads import ACCOUNT_PREFIX, NAMESPACE, NAMESPACE_PREFIX, ORCHESTRATOR, SERVICE_ACCOUNT
from calipy.model.sets import SelectorSet, SetId
from calipy.resources.label_selectors import LabelSelector, LabelSelectorRequirement
from calipy.resources.policy_rules import EntityRule, ServiceAccountMatch
from calipy.resources.selectors import All, Compare, Expression, Global, Has, In, Join, Not, Selector, parse


def selector_set(expression: Expression) -> SelectorSet:
    """The set of what an expression matches."""
    selector = Selector(expression)
    return SelectorSet(SetId(selector.id), selector.canonical)


def of_namespaced_policy(namespace: str, selector: str, service_accounts: str) -> Expression:
    """Whom a NetworkPolicy governs."""
    found = _both(_given(selector), Compare(NAMESPACE, "==", namespace))
    return _both(found, _prefixed(service_accounts, ACCOUNT_PREFIX))


def of_global_policy(selector: str, namespaces: str, service_accounts: str) -> Expression:
    """Whom a GlobalNetworkPolicy governs. With a selector of namespaces, or of service accounts, all() is what lies in
    one, or has one: that of `selector` too."""
    found = _given(selector)
    for part, label in (
        (_prefixed(namespaces, NAMESPACE_PREFIX), NAMESPACE),
        (_prefixed(service_accounts, ACCOUNT_PREFIX), SERVICE_ACCOUNT),
    ):
        if part is not None:
            found = _narrowed(_both(found, part), label)
    return All() if found is None else found


def of_entity(entity: EntityRule, namespace: str) -> tuple[Expression | None, Expression | None]:
    """Who must be at one end of a rule, and who must not. None: nothing is asked. `namespace` is the policy's, empty
    for one of the whole cluster. A policy of a namespace means its own where it names none, once it selects at all."""
    chosen, excluded = _chosen(entity), _given(entity.not_selector)
    place = _prefixed(entity.namespace_selector, NAMESPACE_PREFIX)
    if place is not None:
        chosen = _both(_narrowed(place, NAMESPACE), chosen)
    elif namespace and (chosen is not None or excluded is not None):
        chosen = _both(Compare(NAMESPACE, "==", namespace), chosen)
    if chosen is None or excluded is None:
        return chosen, excluded
    # Whoever is excluded is known by labels, as those are who are chosen: one set does for both.
    return _both(chosen, Not(excluded)), None


def of_pods(pods: LabelSelector, namespace: str) -> Expression:
    """The pods of a namespace that a Kubernetes NetworkPolicy governs."""
    return _both(_pods(pods), Compare(NAMESPACE, "==", namespace))


def of_peer(pods: LabelSelector | None, namespaces: LabelSelector | None, namespace: str) -> Expression:
    """The pods that a peer of a Kubernetes NetworkPolicy means: those of the policy's own `namespace` where it selects
    no namespaces."""
    place: Expression = Compare(NAMESPACE, "==", namespace)
    if namespaces is not None:
        terms = _terms(namespaces)
        place = _each(_joined(terms), _renamed(NAMESPACE_PREFIX)) if terms else Has(NAMESPACE)
    return _both(place, _pods(pods or LabelSelector()))


def _chosen(entity: EntityRule) -> Expression | None:
    """Those that an entity's own selectors choose, wherever they are."""
    parts = [part for part in (_accounts(entity.service_accounts), _given(entity.selector)) if part is not None]
    return _joined(parts) if parts else None


def _accounts(match: ServiceAccountMatch | None) -> Expression | None:
    if match is None:
        return None
    found = _prefixed(match.selector, ACCOUNT_PREFIX)
    return _both(found, In(SERVICE_ACCOUNT, tuple(sorted(set(match.names))))) if match.names else found


def _pods(selector: LabelSelector) -> Expression:
    return _joined([Compare(ORCHESTRATOR, "==", "k8s"), *_terms(selector)])


def _terms(selector: LabelSelector) -> list[Expression]:
    terms: list[Expression] = [Compare(name, "==", value) for name, value in sorted(selector.match_labels.items())]
    return terms + [_requirement(requirement) for requirement in selector.match_expressions]


def _requirement(requirement: LabelSelectorRequirement) -> Expression:
    key, values = requirement.key, tuple(sorted(set(requirement.values)))
    match requirement.operator:
        case "In":
            return In(key, values)
        case "NotIn":
            return In(key, values, negated=True)
        case "Exists":
            return Has(key)
        case "DoesNotExist":
            return Not(Has(key))


def _given(text: str) -> Expression | None:
    return parse(text).expression if text else None


def _prefixed(text: str, prefix: str) -> Expression | None:
    found = _given(text)
    return None if found is None else _each(found, _renamed(prefix))


def _both(one: Expression | None, other: Expression | None) -> Expression:
    return _joined([part for part in (one, other) if part is not None])


def _joined(parts: list[Expression]) -> Expression:
    return parts[0] if len(parts) == 1 else Join("&&", tuple(parts))


def _each(expression: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """The expression with each of its leaves changed."""
    match expression:
        case Join(operator, operands):
            return Join(operator, tuple(_each(operand, change) for operand in operands))
        case Not(operand):
            return Not(_each(operand, change))
    return change(expression)


def _renamed(prefix: str) -> Callable[[Expression], Expression]:
    """Puts a prefix before labels."""

    def rename(leaf: Expression) -> Expression:
        return structs.replace(leaf, label=prefix + leaf.label) if isinstance(leaf, Has | Compare | In) else leaf

    return rename


def _narrowed(expression: Expression, label: str) -> Expression:
    """all() becomes what has the label, global() what hasn't."""

    def narrow(leaf: Expression) -> Expression:
        match leaf:
            case All():
                return Has(label)
            case Global():
                return Not(Has(label))
        return leaf

    return _each(expression, narrow)
