"""What must be true of the labels of everything that a selector matches: an index finds by it whom to ask.

As Calico's LabelRestrictions: sound, not complete. What is said here holds for every match; more may hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, reduce

from msgspec import Struct

from calipy.resources.selectors import Compare, Expression, Has, In, Join, Not, Selector


class Restriction(Struct, frozen=True, gc=False):
    """What is known of one label."""

    present: bool = False
    """It is there."""
    absent: bool = False
    """It is not there."""
    values: frozenset[str] | None = None
    """Its value is one of these; None: nothing is known of it."""

    @property
    def impossible(self) -> bool:
        """True if nothing can be so, and the selector matches nothing."""
        return (self.present and self.absent) or self.values == frozenset()


def restrictions(selector: Selector) -> Mapping[str, Restriction]:
    """Label -> what is known of it; of a label that isn't there nothing is known."""
    return _of(selector.expression)


@lru_cache(maxsize=4096)
def _of(expression: Expression) -> Mapping[str, Restriction]:
    match expression:
        case Has(label):
            return {label: Restriction(present=True)}
        case Compare(label, "==", value):
            return {label: Restriction(present=True, values=frozenset([value]))}
        case Compare(label, operator) if operator != "!=":
            return {label: Restriction(present=True)}
        case In(label, values, negated=False):
            return {label: Restriction(present=True, values=frozenset(values))}
        case Not(Has(label)):
            return {label: Restriction(absent=True)}
        case Join("&&", operands):
            return reduce(_both, map(_of, operands))
        case Join("||", operands):
            return reduce(_either, map(_of, operands))
    return {}


def _both(one: Mapping[str, Restriction], other: Mapping[str, Restriction]) -> Mapping[str, Restriction]:
    return {**one, **{label: _and(one[label], found) if label in one else found for label, found in other.items()}}


def _and(one: Restriction, other: Restriction) -> Restriction:
    known = [values for values in (one.values, other.values) if values is not None]
    values = frozenset.intersection(*known) if known else None
    return Restriction(one.present or other.present, one.absent or other.absent, values)


def _either(one: Mapping[str, Restriction], other: Mapping[str, Restriction]) -> Mapping[str, Restriction]:
    found = {label: _or(one[label], other[label]) for label in one if label in other}
    return {label: restriction for label, restriction in found.items() if restriction != Restriction()}


def _or(one: Restriction, other: Restriction) -> Restriction:
    values = None if one.values is None or other.values is None else one.values | other.values
    return Restriction(one.present and other.present, one.absent and other.absent, values)
