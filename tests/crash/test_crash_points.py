"""Every call to AWS of every use case fails once before and once after it has taken effect; then the operation is tried again.

A point is a call of a step of the story, before or after, and how it fails: without an answer, or with the death of the process. After the
step was done again the collector and the sequencer run, and the store alone is asked whether invariants 1 to 6 hold; the table has to be
what the ledger says, and what has happened what it is without the crash (invariant 7). For some points the whole story then goes on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.crash.book import Book, points, written
from tests.crash.story import story

SEED = 20260102
TO_THE_END = 8
"""Points after which the whole story goes on, in the default run."""

GIVEN_UP = 2
"""Points of each step after which nobody does it again, in the default run."""

STEPS = [step.name for step in story() if not step.scene]
AFTER_THE_ROOT = STEPS[1:]
"""Before the root of trust is published nobody can check anything by the store alone."""


@pytest.fixture(scope="module")
def book() -> Iterator[Book]:
    with written(story) as book:
        yield book


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_cut_off_at_any_call_is_made_good_by_doing_it_again(book: Book, name: str) -> None:
    book.survive_each_call(book.chapters[name], random.Random(f"{SEED} {name}"))


def test_the_story_goes_on_to_the_same_end_after_a_crash(book: Book) -> None:
    book.survive_some_to_the_end(TO_THE_END, random.Random(SEED))


@pytest.mark.parametrize("name", AFTER_THE_ROOT)
def test_a_step_that_is_cut_off_and_not_done_again_leaves_every_invariant_whole(book: Book, name: str) -> None:
    rng = random.Random(f"{SEED} {name}")
    chapter = book.chapters[name]
    for point in rng.sample(list(points(chapter.calls, (False, True))), GIVEN_UP):
        book.give_up(chapter, point)


@pytest.mark.long
@pytest.mark.parametrize("name", AFTER_THE_ROOT)
def test_a_step_that_is_cut_off_anywhere_and_not_done_again_leaves_every_invariant_whole(book: Book, name: str) -> None:
    chapter = book.chapters[name]
    for point in points(chapter.calls, (False, True)):
        book.give_up(chapter, point)


@pytest.mark.long
@pytest.mark.parametrize("name", STEPS)
def test_the_story_goes_on_to_the_same_end_after_a_crash_anywhere(book: Book, name: str) -> None:
    chapter = book.chapters[name]
    for point in points(chapter.calls, (False, True)):
        book.survive(chapter, point, to_the_end=True)


def test_the_number_of_points_that_were_tried_is_told(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    calls = sum(len(chapter.calls) for chapter in book.chapters.values())
    with capsys.disabled():
        print()
        for name, count in book.tried.items():
            print(f"  {count:5}  {name}")
        print(f"  {book.tried.total():5}  crash points tried at {calls} calls of {len(book.chapters)} steps, all survived;", end=" ")
        print(f"after {book.continued} of them the whole story went on to the same end;", end=" ")
        print(f"{book.given_up} more were left as they were, and every invariant held")
