"""Which selectors match which labels, kept up to date by what changes.

What has the same labels, its own and inherited, is one subject, however many hold it: a selector is judged once for all
of them. A selector in force is a pattern. Both are found by what a selector asks of labels: a subject that changes is
judged by the patterns that name a label that has changed, a new pattern by the subjects that have what it asks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from calipy.felix.calc.pace import Pace
from calipy.felix.calc.stats import Stats
from calipy.resources.label_restrictions import restrictions
from calipy.resources.selectors import Compare, Expression, Has, In, Join, Not, parse

H = TypeVar("H")
_MANY = 32
"""Of so many subjects it may be one, where they are many."""
Key = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]


class Pattern(Generic[H]):
    """A selector in force."""

    __slots__ = ("asked", "filed", "judge", "names", "subjects", "text")

    def __init__(self, text: str) -> None:
        selector = parse(text)
        self.text = text
        self.judge = selector.matches
        self.names = frozenset(_names(selector.expression))
        """Of all labels that it asks about."""
        self.subjects: set[Subject[H]] = set()
        """Those that it matches."""
        self.asked: tuple[_Drawer, ...] = ()
        """What it asks of labels, as far as an index can tell."""
        self.filed: _Drawer | None = None
        """Where subjects find it; None: each of them meets it."""


class Subject(Generic[H]):
    """Labels, and all that have just these."""

    __slots__ = ("holders", "key", "labels", "patterns", "profiles")

    def __init__(self, key: Key, labels: Mapping[str, str], profiles: tuple[str, ...]) -> None:
        self.key = key
        self.labels = labels
        self.profiles = profiles
        self.patterns: set[Pattern[H]] = set()
        """Those that match it."""
        self.holders: set[H] = set()


class Match(NamedTuple, Generic[H]):
    """A pattern has begun to match a subject, or has ceased to."""

    subject: Subject[H]
    pattern: Pattern[H]
    begun: bool


class _Drawer(NamedTuple):
    """A label that is there on all that a pattern matches, and its values; none: any value."""

    label: str
    values: frozenset[str] | None

    @property
    def keys(self) -> Iterable[str | None]:
        """Under which it is filed."""
        return (None,) if self.values is None else self.values


class Matcher(Generic[H]):
    """Subjects and patterns."""

    def __init__(self, inherited: Callable[[str], Mapping[str, str]], stats: Stats, few: int = 64) -> None:
        """`inherited` gives the labels of a profile, as of now; so few subjects a new pattern may simply ask."""
        self._inherited = inherited
        self._stats = stats
        self._few = few
        self._subjects: dict[Key, Subject[H]] = {}
        self._by_profile: dict[str, set[Subject[H]]] = {}
        self._handed: dict[str, Mapping[str, str]] = {}
        """Profile -> the labels that it hands down to its subjects."""
        self._by_label: dict[str, dict[str, set[Subject[H]]]] = {}
        """Label -> value -> subjects: of labels by which a pattern had to find its own, while any asks for them."""
        self._asking: Counter[str] = Counter()
        """Label -> patterns that ask for it."""
        self._patterns: dict[str, Pattern[H]] = {}
        self._filed: dict[str, dict[str | None, set[Pattern[H]]]] = {}
        """Label -> value -> patterns that ask for it; None: for any value."""
        self._unfiled: set[Pattern[H]] = set()

    # --- subjects ---

    def subject(
        self, labels: Mapping[str, str], profiles: tuple[str, ...], like: Subject[H] | None = None
    ) -> Subject[H]:
        """The subject with these labels, perhaps a new one. `like` is one that differs little from it."""
        key = tuple(sorted(labels.items())), profiles
        found = self._subjects.get(key)
        if found is None:
            found = self._subjects[key] = Subject(key, labels, profiles)
            self._introduce(found, like)
        return found

    def leave(self, subject: Subject[H], holder: H) -> None:
        """A holder goes; with the last one the subject does."""
        subject.holders.discard(holder)
        if subject.holders:
            return
        del self._subjects[subject.key]
        self._reindex(subject, self._by_label, self._labels(subject), {})
        for pattern in subject.patterns:
            pattern.subjects.discard(subject)
        for profile in subject.profiles:
            self._by_profile[profile].discard(subject)
            if not self._by_profile[profile]:
                del self._by_profile[profile], self._handed[profile]

    def _introduce(self, subject: Subject[H], like: Subject[H] | None) -> None:
        for profile in subject.profiles:
            if profile not in self._by_profile:
                self._by_profile[profile], self._handed[profile] = set(), self._inherited(profile)
            self._by_profile[profile].add(subject)
        labels = self._labels(subject)
        self._reindex(subject, self._by_label, {}, labels)
        changed = None if like is None else _differing(self._labels(like), labels)
        for pattern in self._candidates(labels):
            if like is None or changed is None or not pattern.names.isdisjoint(changed):
                matches = self._judge(pattern, labels)
            else:
                matches = pattern in like.patterns
            if matches:
                subject.patterns.add(pattern)
                pattern.subjects.add(subject)

    def relabel(self, profile: str, pace: Pace) -> Iterator[Match[H] | None]:
        """A profile may hand down other labels now. Yields what that changes, and None where it may pause."""
        if profile not in self._by_profile:
            return
        before, after = self._handed[profile], self._inherited(profile)
        self._handed[profile] = after
        changed = _differing(before, after)
        for subject in list(self._by_profile[profile]) if changed else ():
            old, new = self._labels(subject, {profile: before}), self._labels(subject)
            moved = {name for name in changed if old.get(name) != new.get(name)}
            if moved:
                self._reindex(subject, moved, old, new)
                yield from self._judge_again(subject, moved, new)
            if pace.due():
                yield None

    def _judge_again(self, subject: Subject[H], moved: set[str], labels: Mapping[str, str]) -> Iterator[Match[H]]:
        for pattern in {*subject.patterns, *self._candidates(labels)}:
            if pattern.names.isdisjoint(moved):
                continue
            before, matches = pattern in subject.patterns, self._judge(pattern, labels)
            if matches and not before:
                subject.patterns.add(pattern)
                pattern.subjects.add(subject)
            elif before and not matches:
                subject.patterns.discard(pattern)
                pattern.subjects.discard(subject)
            else:
                continue
            yield Match(subject, pattern, matches)

    # --- patterns ---

    def require(self, text: str, pace: Pace) -> Generator[None, None, Pattern[H]]:
        """The pattern of a selector's canonical text, with all subjects that it matches. May pause."""
        if text in self._patterns:
            return self._patterns[text]
        pattern = self._patterns[text] = Pattern(text)
        known = restrictions(parse(text))
        if any(restriction.impossible for restriction in known.values()):
            return pattern
        pattern.asked = tuple(_Drawer(label, each.values) for label, each in known.items() if each.present)
        self._asking.update(drawer.label for drawer in pattern.asked)
        self._file(pattern)
        for subject in (yield from self._askable(pattern, pace)):
            if self._judge(pattern, self._labels(subject)):
                subject.patterns.add(pattern)
                pattern.subjects.add(subject)
            if pace.due():
                yield
        return pattern

    def release(self, text: str, pace: Pace) -> Generator[None, None, None]:
        """A selector is no longer in force. May pause."""
        pattern = self._patterns.pop(text)
        self._unfiled.discard(pattern)
        if pattern.filed is not None:
            self._take_out(pattern, pattern.filed)
        for drawer in pattern.asked:
            self._asking[drawer.label] -= 1
            if not self._asking[drawer.label]:
                del self._asking[drawer.label]
                self._by_label.pop(drawer.label, None)
        for subject in pattern.subjects:
            subject.patterns.discard(pattern)
            if pace.due():
                yield

    def _file(self, pattern: Pattern[H]) -> None:
        """Under that of its labels where the fewest patterns are yet."""
        if not pattern.asked:
            self._unfiled.add(pattern)
            return
        drawer = pattern.filed = min(pattern.asked, key=lambda each: (self._crowd(each), each.values is None))
        by_value = self._filed.setdefault(drawer.label, {})
        for value in drawer.keys:
            by_value.setdefault(value, set()).add(pattern)

    def _crowd(self, drawer: _Drawer) -> int:
        by_value = self._filed.get(drawer.label, {})
        return sum(len(by_value.get(value, ())) for value in drawer.keys)

    def _take_out(self, pattern: Pattern[H], drawer: _Drawer) -> None:
        by_value = self._filed[drawer.label]
        for value in drawer.keys:
            by_value[value].discard(pattern)
            if not by_value[value]:
                del by_value[value]
        if not by_value:
            del self._filed[drawer.label]

    def _candidates(self, labels: Mapping[str, str]) -> set[Pattern[H]]:
        """The patterns that may match these labels."""
        found = set(self._unfiled)
        for label, value in labels.items():
            by_value = self._filed.get(label)
            if by_value:
                found.update(by_value.get(value, ()), by_value.get(None, ()))
        return found

    def _askable(self, pattern: Pattern[H], pace: Pace) -> Generator[None, None, list[Subject[H]]]:
        """The subjects that may have all that a pattern asks for: by that of its labels that the fewest have, where
        this is known; the subjects are sorted by another label only if they are many still."""
        enough, best, found = max(self._few, len(self._subjects) // _MANY), len(self._subjects), None
        for drawer in sorted(pattern.asked, key=lambda each: (each.label not in self._by_label, each.values is None)):
            if best <= enough:
                break
            yield from self._index(drawer.label, pace)
            count = sum(map(len, self._having(drawer)))
            if count < best:
                best, found = count, drawer
        if found is None:
            return list(self._subjects.values())
        return [subject for subjects in self._having(found) for subject in subjects]

    def _having(self, drawer: _Drawer) -> Iterator[set[Subject[H]]]:
        by_value = self._by_label[drawer.label]
        for value in by_value if drawer.values is None else drawer.values:
            yield by_value.get(value, set())

    def _index(self, label: str, pace: Pace) -> Generator[None, None, None]:
        """Sorts the subjects by a label that is asked for the first time."""
        if label in self._by_label:
            return
        by_value = self._by_label[label] = {}
        for subject in self._subjects.values():
            value = self._label(subject, label)
            if value is not None:
                by_value.setdefault(value, set()).add(subject)
            if pace.due():
                yield

    def _reindex(
        self, subject: Subject[H], names: Iterable[str], before: Mapping[str, str], after: Mapping[str, str]
    ) -> None:
        for name in names:
            by_value, old, new = self._by_label.get(name), before.get(name), after.get(name)
            if by_value is None or old == new:
                continue
            if old is not None:
                by_value[old].discard(subject)
                if not by_value[old]:
                    del by_value[old]
            if new is not None:
                by_value.setdefault(new, set()).add(subject)

    # --- labels ---

    def _judge(self, pattern: Pattern[H], labels: Mapping[str, str]) -> bool:
        self._stats.evaluations += 1
        return pattern.judge(labels)

    def _labels(self, subject: Subject[H], instead: Mapping[str, Mapping[str, str]] = {}) -> dict[str, str]:
        """Its own labels over those that it inherits; `instead` of what some profiles have now, these."""
        found: dict[str, str] = {}
        for profile in reversed(subject.profiles):
            found.update(instead[profile] if profile in instead else self._handed[profile])
        found.update(subject.labels)
        return found

    def _label(self, subject: Subject[H], label: str) -> str | None:
        if label in subject.labels:
            return subject.labels[label]
        found = (self._handed[profile].get(label) for profile in subject.profiles)
        return next((value for value in found if value is not None), None)


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    """The labels that only one of both has, or each with another value."""
    return {name for name, _ in one.items() ^ other.items()}


def _names(expression: Expression) -> Iterator[str]:
    match expression:
        case Has(label) | Compare(label) | In(label):
            yield label
        case Not(operand):
            yield from _names(operand)
        case Join(_, operands):
            for operand in operands:
                yield from _names(operand)
