"""A packet, and what becomes of it: what evaluator and walk have in common, and nothing else of theirs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from calipy.resources.cidrs import family_of

Direction = Literal["egress", "ingress"]
Action = Literal["allow", "deny", "pass", "log"]


class Packet(Struct, frozen=True, gc=False, kw_only=True):
    """The first packet of a connection. Ports and ICMP fields are 0 where the protocol has none."""

    source: str
    destination: str
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.destination)


class Step(Struct, frozen=True, gc=False, kw_only=True):
    """A rule that was looked at, or the end of a tier."""

    direction: Direction
    tier: str = ""
    policy: str = ""
    """By Calico's short words for kinds, `np/shop/web`; empty at the end of a tier."""
    profile: str = ""
    """Instead of a tier and its policy."""
    rule: int | None = None
    """Its place in the list of the policy or profile, from 0."""
    action: Action
    """What it does with packets that it matches."""
    unmet: tuple[str, ...] = ()
    """The fields whose conditions don't hold for the packet; none: it matches."""


class Decision(Struct, frozen=True, gc=False, kw_only=True):
    """What was decided for one direction, and by what: a rule of a policy, the end of a tier, or what `reason` says."""

    direction: Direction
    allowed: bool
    tier: str = ""
    policy: str = ""
    rule: int | None = None
    """Of a policy, or a profile."""
    reason: str = ""
    """`not governed`, `own node`, `profile kns.shop`, `no profile`, `defaultEndpointToHostAction`, ..."""

    def __str__(self) -> str:
        where = f"{self.tier}/{self.policy or 'end'}" if self.tier else self.reason
        return f"{self.direction} {where}{f'#{self.rule}' if self.rule is not None else ''}"


class Verdict(Struct, frozen=True, gc=False, kw_only=True):
    """A packet's fate."""

    egress: Decision
    """Where it leaves."""
    ingress: Decision | None = None
    """Where it arrives; None: it never does."""
    steps: tuple[Step, ...] = ()
    """All that was looked at, in order."""

    @property
    def allowed(self) -> bool:
        """True if it arrives."""
        return self.ingress is not None and self.ingress.allowed

    @property
    def deciding(self) -> Decision:
        """The last word."""
        return self.ingress or self.egress
