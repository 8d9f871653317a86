"""Which selectors match which labels: kept up to date, it is always what asking everybody would give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from calipy.felix.calc.matching import Matcher, Pattern, Subject
from calipy.felix.calc.pace import Pace
from calipy.felix.calc.stats import Stats
from calipy.resources.selectors import parse
from tests.effort import examples

LABELS = st.sampled_from([{}, {"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "2"}])
OWN = st.sampled_from([{}, {}, {"a": "1"}, {"b": "1"}])
"""Most of what decides is inherited."""
PROFILES = st.sampled_from([("p",), ("p", "q"), ("q", "p"), ()])
SELECTORS = [
    "has(a)", "a == '1'", "a == '2'", "a in {'1', '2'}", "a == '1' && b == '2'", "has(a) && has(b)", "!has(a)",
    "all()", "a == '1' || has(b)", "a == '1' && a == '2'", "a starts with '1' && b not in {'2'}",
]  # fmt: skip


def run(steps: Iterable[object]) -> Any:
    """To its end; what a generator gives back."""
    pauses = iter(steps)
    while True:
        try:
            next(pauses)
        except StopIteration as end:
            return end.value


class Machine(RuleBasedStateMachine):
    """Holders, profiles and patterns that come and go, against a plain list of each."""

    few = 0

    def __init__(self) -> None:
        super().__init__()
        self.profiles: dict[str, dict[str, str]] = {"p": {}, "q": {}}
        self.matcher: Matcher[int] = Matcher(lambda name: dict(self.profiles[name]), Stats(), self.few)
        self.holders: dict[int, Subject[int]] = {}
        self.labels: dict[int, tuple[dict[str, str], tuple[str, ...]]] = {}
        self.patterns: dict[str, Pattern[int]] = {}

    @rule(number=st.integers(0, 2), labels=OWN, profiles=PROFILES)
    def hold(self, number: int, labels: dict[str, str], profiles: tuple[str, ...]) -> None:
        old = self.holders.get(number)
        new = self.matcher.subject(labels, profiles, old)
        new.holders.add(number)
        self.holders[number], self.labels[number] = new, (labels, profiles)
        if old is not None and old is not new:
            self.matcher.leave(old, number)

    @rule(number=st.integers(0, 2))
    def leave(self, number: int) -> None:
        if number in self.holders:
            self.matcher.leave(self.holders.pop(number), number)
            del self.labels[number]

    @rule(name=st.sampled_from("pq"), labels=LABELS)
    def relabel(self, name: str, labels: dict[str, str]) -> None:
        before = {text: self._matched(text) for text in self.patterns}
        self.profiles[name] = labels
        for match in self.matcher.relabel(name, Pace()):
            if match is not None:
                assert match.begun == (match.pattern in match.subject.patterns)
                moved = before[match.pattern.text]
                moved ^= match.subject.holders
        assert before == {text: self._matched(text) for text in self.patterns}, "all that changed was said, once"

    @rule(text=st.sampled_from(SELECTORS))
    def require(self, text: str) -> None:
        text = parse(text).canonical
        self.patterns[text] = run(self.matcher.require(text, Pace()))

    @rule(text=st.sampled_from(SELECTORS))
    def release(self, text: str) -> None:
        text = parse(text).canonical
        if self.patterns.pop(text, None) is not None:
            run(self.matcher.release(text, Pace()))

    @invariant()
    def as_asking_everybody(self) -> None:
        for text, pattern in self.patterns.items():
            found = {number for subject in pattern.subjects for number in subject.holders}
            assert found == self._matched(text)
            assert all(subject.holders for subject in pattern.subjects), "whoever nobody holds is forgotten"
        for subject in self.holders.values():
            assert {pattern.text for pattern in subject.patterns} == {
                text for text, pattern in self.patterns.items() if subject in pattern.subjects
            }

    def _matched(self, text: str) -> set[int]:
        matches = parse(text).matches
        return {number for number in self.labels if matches(self._effective(number))}

    def _effective(self, number: int) -> dict[str, str]:
        own, profiles = self.labels[number]
        found: dict[str, str] = {}
        for name in reversed(profiles):
            found.update(self.profiles[name])
        return {**found, **own}


class AskingMachine(Machine):
    """The same where new patterns ask everybody: they are few."""

    few = 64


TestSorted = Machine.TestCase
TestAsking = AskingMachine.TestCase
TestSorted.settings = settings(examples(150), stateful_step_count=40)
TestAsking.settings = settings(examples(50), stateful_step_count=40)


def matcher(subjects: int) -> tuple[Matcher[int], Stats]:
    """One with so many subjects, half of them `kind` even."""
    stats = Stats()
    found: Matcher[int] = Matcher(lambda name: {}, stats, few=0)
    for number in range(subjects):
        labels = {"name": str(number), "kind": "even" if number % 2 == 0 else "odd"}
        found.subject(labels, ()).holders.add(number)
    return found, stats


def test_a_new_pattern_asks_those_that_may_match() -> None:
    found, stats = matcher(100)
    for text, asked in (
        ("name == '7'", 1), ("name in {'7', '8', 'none'} && kind == 'odd'", 2), ("kind == 'odd'", 50), ("has(none)", 0),
        ("kind == 'odd' && kind == 'even'", 0), ("name != '7'", 100),
    ):  # fmt: skip
        stats.evaluations = 0
        run(found.require(parse(text).canonical, Pace()))
        assert stats.evaluations == asked, text


def test_a_new_subject_is_asked_by_those_that_may_match() -> None:
    found, stats = matcher(0)
    for number in range(50):
        run(found.require(f'name == "{number}"', Pace()))
        run(found.require(f'(has(name) && kind == "k{number}")', Pace()))
    run(found.require("!has(none)", Pace()))
    stats.evaluations = 0
    old = found.subject({"name": "7", "kind": "k1"}, ())
    assert stats.evaluations == 3
    assert len(old.patterns) == 3
    stats.evaluations = 0
    new = found.subject({"name": "7", "kind": "k2"}, (), like=old)
    assert stats.evaluations == 1, "what doesn't ask about kind is as before"
    assert {pattern.text for pattern in new.patterns} == {'name == "7"', '(has(name) && kind == "k2")', "!has(none)"}


def test_subjects_are_found_by_what_they_inherit_now() -> None:
    handed = {"p": {"a": "1"}}
    found: Matcher[int] = Matcher(lambda name: handed[name], Stats(), few=0)
    subject = found.subject({}, ("p",))
    subject.holders.add(1)
    run(found.require('a == "1"', Pace()))
    handed["p"] = {"a": "2"}
    assert [match.begun for match in found.relabel("p", Pace()) if match] == [False]
    assert run(found.require("has(a)", Pace())).subjects == {subject}
    assert run(found.require('a in {"1", "3"}', Pace())).subjects == set()
    found.leave(subject, 1)
    assert run(found.require('a in {"2", "3"}', Pace())).subjects == set()


def test_long_work_pauses() -> None:
    found, _ = matcher(2_000)
    assert sum(1 for _ in found.require("!has(none)", Pace())) >= 20
    assert sum(1 for _ in found.release("!has(none)", Pace())) >= 20
