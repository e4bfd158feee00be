"""Promotions, rollouts, ends of approvals and refreshes, each step cut off at every call like those of `test_crash_points`."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.crash.book import Book, points, written
from tests.crash.promotion_story import promotion_story

SEED = 20260103
TO_THE_END = 4
"""Points after which the whole story goes on, in the default run."""

STEPS = [step.name for step in promotion_story() if not step.scene]


@pytest.fixture(scope="module")
def book() -> Iterator[Book]:
    with written(promotion_story) as book:
        yield book


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_cut_off_at_any_call_is_made_good_by_doing_it_again(book: Book, name: str) -> None:
    book.survive_each_call(book.chapters[name], random.Random(f"{SEED} {name}"))


def test_the_story_goes_on_to_the_same_end_after_a_crash(book: Book) -> None:
    book.survive_some_to_the_end(TO_THE_END, random.Random(SEED))


def test_steps_that_are_cut_off_and_not_done_again_leave_every_invariant_whole(book: Book) -> None:
    rng = random.Random(SEED)
    for name in STEPS:
        book.give_up(book.chapters[name], rng.choice(list(points(book.chapters[name].calls, (False, True)))))


@pytest.mark.long
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_cut_off_anywhere_goes_on_to_the_same_end_or_leaves_every_invariant_whole(book: Book, name: str) -> None:
    chapter = book.chapters[name]
    for point in points(chapter.calls, (False, True)):
        book.survive(chapter, point, to_the_end=True)
        book.give_up(chapter, point)
