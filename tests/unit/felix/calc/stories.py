"""Stories: what happens, in batches with a flush after each, and what the graph makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from calipy.felix.calc.change import Change, NodeState, apply, merge
from calipy.felix.calc.graph import Graph
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.world import Event
from tests.unit.felix.calc.worlds import ME


def flush(graph: Graph) -> Change:
    """A flush to its end."""
    pauses = graph.flush()
    while True:
        try:
            next(pauses)
        except StopIteration as end:
            return end.value


def told(batches: Iterable[Sequence[Event]]) -> tuple[Graph, NodeState, Change]:
    """The graph after a story, the state that its changes led to, and all of them merged."""
    graph = Graph(ME, {})
    state, merged = NodeState(settings=FelixSettings()), Change()
    for batch in ([], *batches):
        graph.update(batch)
        change = flush(graph)
        state, merged = apply(state, change), merge(merged, change)
    return graph, state, merged


def tellings(events: Sequence[Event]) -> Iterator[tuple[str, list[Event]]]:
    """The ways in which the same may be told."""
    yield "forward", list(events)
    yield "reversed", list(reversed(events))
    yield "each twice", [event for event in events for _ in range(2)]
    yield "all of it twice", [*events, *events]


def cadences(events: Sequence[Event]) -> Iterator[tuple[str, list[Sequence[Event]]]]:
    """When it is flushed: after each event, after some, at the end, and between all of them when nothing has come."""
    yield "split", [[event] for event in events]
    yield "by threes", [events[at : at + 3] for at in range(0, len(events), 3)]
    yield "squashed", [events]
    yield "with empty flushes", [batch for event in events for batch in ([event], [])]
