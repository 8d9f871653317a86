"""What decides a packet, as a rule's origin says it in the kernel and to people, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from calipy.felix.calc.change import NodeState
from calipy.model.origins import Origin
from calipy.model.policies import Direction, Policy, PolicyId, Profile

_MOST = 200
"""An origin of more bytes goes into the kernel with a hash for its name: a rule's user data has 256."""


class Decider(Struct, frozen=True, gc=False, kw_only=True):
    """What a rule with a say over a packet stands for."""

    kind: Literal["policy", "tier", "profile", "no profile", "refused"]
    """A rule of a policy; the end of a tier none of whose policies decided; a rule of a profile; the end of all, where
    no profile decided either; or what stands in for a policy or profile that the kernel refuses."""
    direction: Direction
    tier: str = ""
    policy: PolicyId | None = None
    profile: str = ""
    number: int | None = None
    """The rule's place in the list of the policy or profile."""


def of_rule(whose: Policy | Profile, direction: Direction, number: int) -> Origin:
    """`policy default/np/shop/web ingress 0`, `profile kns.shop egress 0`."""
    return Origin(_kind(whose), f"{_name(whose)} {direction} {number}")


def of_visit(tier: str, policy: PolicyId, direction: Direction) -> Origin:
    """Of the jump to a policy."""
    return Origin("visit", f"{tier}/{policy} {direction}")


def of_profile_visit(name: str, direction: Direction) -> Origin:
    """Of the jump to a profile."""
    return Origin("visit", f"{name} {direction}")


def of_tier(tier: str, direction: Direction) -> Origin:
    """Of what a tier does with packets that its policies govern and none of them decides."""
    return Origin("tier", f"{tier} {direction}")


def of_no_profile(direction: Direction) -> Origin:
    """Of what becomes of packets that nothing has decided."""
    return Origin("no profile", direction)


def of_refused(whose: Policy | Profile, direction: Direction) -> Origin:
    """Of what stands in for a policy or profile that the kernel refuses."""
    return Origin("refused", f"{_name(whose)} {direction}")


def text(origin: Origin) -> str:
    """An origin as it goes into the kernel; a name too long for it is its hash, what follows stays."""
    whole = str(origin)
    if len(whole.encode()) <= _MOST:
        return whole
    name, _, rest = origin.name.partition(" ")
    short = f"{origin.kind} {_hash(name)} {rest}".rstrip()
    return short if len(short.encode()) <= _MOST else f"{origin.kind} {_hash(origin.name)}"


def decider(found: str, state: NodeState) -> Decider | None:
    """What an origin's text from the kernel stands for; None for a rule that has no say of its own, and for a policy
    or profile that a hash stands for and that `state` doesn't know."""
    kind, _, rest = found.partition(" ")
    if found.startswith("no profile "):
        return Decider(kind="no profile", direction=_direction(found.removeprefix("no profile ")))
    parts = rest.split(" ")
    if kind == "tier" and len(parts) == 2:
        return Decider(kind="tier", tier=parts[0], direction=_direction(parts[1]))
    if kind not in ("policy", "profile", "refused") or len(parts) < 2 or parts[1] not in ("ingress", "egress"):
        return None
    name = _whole(parts[0], state) if parts[0].startswith("#") else parts[0]
    if not name:
        return None
    tier, slash, policy = name.partition("/")
    return Decider(
        kind=kind,  # type: ignore[arg-type]
        direction=_direction(parts[1]),
        tier=tier if slash else "",
        policy=policy_id(policy) if slash else None,
        profile="" if slash else name,
        number=int(parts[2]) if len(parts) > 2 else None,
    )


def policy_id(text: str) -> PolicyId:
    """The inverse of str(PolicyId)."""
    kind, _, rest = text.partition("/")
    namespace, slash, name = rest.partition("/")
    return PolicyId(kind, namespace if slash else "", name if slash else rest)  # type: ignore[arg-type]


def _kind(whose: Policy | Profile) -> str:
    return "policy" if isinstance(whose, Policy) else "profile"


def _name(whose: Policy | Profile) -> str:
    return f"{whose.tier}/{whose.id}" if isinstance(whose, Policy) else whose.name


def _hash(name: str) -> str:
    return "#" + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _whole(short: str, state: NodeState) -> str:
    known: Iterable[Policy | Profile] = (*state.policies.values(), *state.profiles.values())
    return next((name for name in map(_name, known) if _hash(name) == short), "")


def _direction(text: str) -> Direction:
    return "egress" if text == "egress" else "ingress"
