"""A story that has happened once without a crash, so that each of its steps can be cut off at any of its calls."""

from __future__ import annotations

import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from attestry.domain.errors import UnavailableError
from tests.crash.acts import collect, reconcile, sequence, sweep
from tests.crash.index import compare_table, outcome
from tests.crash.invariants import check_invariants
from tests.crash.story import Step, perform
from tests.crash.world import Registry, Snapshot
from tests.fakes import Killed


@dataclass(frozen=True)
class Point:
    """Where a step is cut off.

    Attributes:
        call: which of its calls, from 1.
        after: whether the call has taken effect.
        killed: whether the process dies with it; else it hears of no answer.
    """

    call: int
    after: bool
    killed: bool

    def __str__(self) -> str:
        return f"call {self.call}, {'after' if self.after else 'before'} its effect, {'killed' if self.killed else 'no answer'}"


@dataclass
class Chapter:
    """A step of the undisturbed story.

    Attributes:
        step: the step.
        place: its place among all steps and scenes.
        before: the moment before it.
        calls: the calls that it makes.
        outcome: what has happened by then.
    """

    step: Step
    place: int
    before: Snapshot
    calls: list[str]
    outcome: dict[str, Any]


@dataclass
class Book:
    """The undisturbed story, and what was tried.

    Attributes:
        registry: where it happens.
        story: returns its steps.
    """

    registry: Registry
    story: Callable[[], list[Step]]
    chapters: dict[str, Chapter] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    tried: Counter[str] = field(default_factory=Counter)
    given_up: int = 0
    continued: int = 0

    def write(self) -> None:
        """Let the story happen once."""
        for place, step in enumerate(self.story()):
            before = self.registry.snapshot()
            self.registry.restore(before)
            assert perform(self.registry, step) == 1
            if step.scene:
                continue
            assert step.name not in self.chapters, f"two steps are called {step.name}"
            calls, after = list(self.registry.faults.calls), self.registry.snapshot()
            self.chapters[step.name] = Chapter(step, place, before, calls, self.check())
            self.registry.restore(after)
        self.end = self.check()

    def check(self) -> dict[str, Any]:
        """Let the schedules run and check every invariant; return what has happened."""
        registry = self.registry
        registry.faults.clear()
        collect(registry)
        sequence(registry)
        evidence = check_invariants(registry.store, pin=registry.pin, acknowledged=registry.facts["acknowledged"])
        compare_table(evidence, registry.meta.rows)
        return outcome(evidence, registry.meta.rows)

    def crash(self, chapter: Chapter, point: Point) -> None:
        """Cut a step off at a point, and do it again."""
        self.plan(chapter, point)
        perform(self.registry, chapter.step)
        assert not self.registry.faults._planned, "the step has fewer calls than without the crash"
        self.tried[chapter.step.name] += 1

    def plan(self, chapter: Chapter, point: Point) -> None:
        """Go back to the moment before a step, and let one of its calls fail."""
        self.registry.restore(chapter.before)
        error = Killed() if point.killed else UnavailableError("injected fault: no answer")
        faults = self.registry.faults
        (faults.fail_after if point.after else faults.fail_before)(point.call, error=error)

    def give_up(self, chapter: Chapter, point: Point) -> None:
        """Cut a step off at a point, and do nothing but what the schedules do."""
        registry = self.registry
        self.plan(chapter, point)
        with contextlib.suppress(Killed, UnavailableError):
            chapter.step.act(registry)
        with told(chapter, point):
            self.check()
            registry.wait(minutes=20)
            sweep(registry)
            registry.deliver()
            self.check()
        self.given_up += 1

    def survive(self, chapter: Chapter, point: Point, *, to_the_end: bool = False) -> None:
        """Cut a step off at a point; after it was done again all must be well."""
        with told(chapter, point):
            self.crash(chapter, point)
            after = self.registry.snapshot() if to_the_end else None
            assert self.check() == chapter.outcome
            if after is not None:
                self.registry.restore(after)
                self.go_on(chapter)

    def survive_each_call(self, chapter: Chapter, rng: random.Random) -> None:
        """Cut a step off before and after each of its calls, one way or the other."""
        for call in range(1, len(chapter.calls) + 1):
            for after in (False, True):
                self.survive(chapter, Point(call, after, rng.random() < 0.5))

    def survive_some_to_the_end(self, count: int, rng: random.Random) -> None:
        """Cut some steps off at a point, and tell the whole story from there."""
        for chapter in rng.sample(list(self.chapters.values()), count):
            self.survive(chapter, rng.choice(list(points(chapter.calls, (False, True)))), to_the_end=True)

    def go_on(self, chapter: Chapter) -> None:
        """Tell the rest of the story."""
        for step in self.story()[chapter.place + 1 :]:
            perform(self.registry, step)
        assert self.check() == self.end
        reconcile(self.registry)
        self.continued += 1


@contextlib.contextmanager
def told(chapter: Chapter, point: Point) -> Iterator[None]:
    """Let what fails say at which point."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{chapter.step.name}: {point} ({chapter.calls[point.call - 1]})")
        raise


@contextlib.contextmanager
def written(story: Callable[[], list[Step]]) -> Iterator[Book]:
    """Let a story happen once over the real handlers, which are installed for as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
        logging.disable(logging.CRITICAL)
        book = Book(Registry(), story)
        book.registry.install(patch)
        book.write()
        yield book
        logging.disable(logging.NOTSET)


def points(calls: Sequence[str], kinds: Sequence[bool]) -> Iterator[Point]:
    for call in range(1, len(calls) + 1):
        for after in (False, True):
            for killed in kinds:
                yield Point(call, after, killed)
