"""A run of policies as kernel objects: the verdict map by mask, and a chain for each mask of several policies.

Which addresses have which mask is a map of its own, one for each family, and changes alone. It holds no verdicts: for
each of those the kernel would walk all that can lead to it, whenever an address comes or goes.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from calipy.felix.calc.change import SetKey
from calipy.felix.objects import ObjectName, Objects
from calipy.felix.rules import names, origins
from calipy.felix.rules.values import Ask, Chain, Element, Jump, Rule, SetSpec, Side
from calipy.model.origins import Origin
from calipy.model.policies import Direction, Merged, PolicyId, Run


def compile(merged: Merged) -> Objects:
    """The verdict map with an element for each mask, and the chains that it leads to, but for those of policies."""
    return dict(_objects(merged))


def _objects(merged: Merged) -> Iterator[tuple[ObjectName, Struct]]:
    run = merged.run
    verdicts = names.verdicts_of(run.id)
    yield names.set_(verdicts), SetSpec("masks")
    for mask in merged.masks:
        asked = run.of(mask)
        if len(asked) == 1:
            chain = names.policy_chain(asked[0], run.direction)
        else:
            chain = names.askers_chain(run.id, mask)
            yield names.chain(chain), Chain(tuple(visit(run.tier, run.direction, policy) for policy in asked))
        yield names.element(verdicts, str(mask)), Element(Jump(chain))


def visit(tier: str, direction: Direction, policy: PolicyId) -> Rule:
    """The jump to one policy of a tier."""
    jump = Jump(names.policy_chain(policy, direction))
    return Rule((), jump, origins.of_visit(tier, policy, direction), counted=False)


def ask(run: Run, family: int) -> Rule:
    """The rule that stands for the run in an endpoint's chain, for packets of one family."""
    side: Side = "source" if run.direction == "ingress" else "destination"
    action = Ask(side, names.set_name(SetKey(run.id, family), "askers"), names.verdicts_of(run.id), family)
    return Rule((), action, Origin("visit", f"{run.tier} {run.direction}"), counted=False)
