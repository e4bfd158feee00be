"""What all attacks of a run came to, as one table; it comes last."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.conftest import TOLD

AT_LEAST = 35
FOLDER = Path(__file__).parent


def test_at_least_35_attacks_were_performed_and_each_says_what_came_of_it(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {item.path for item in request.session.items}
    if not set(FOLDER.glob("test_attacks_*.py")) <= files:
        pytest.skip("only some of the attacks were asked for")
    attacks = [item.name for item in request.session.items if item.path.parent == FOLDER and "tell" in getattr(item, "fixturenames", ())]
    told = request.config.stash.get(TOLD, {})
    with capsys.disabled():
        print(f"\n\n{len(attacks)} attacks, {len({a.partition('[')[0] for a in attacks})} tests\n")
        for name in attacks:
            print(f"{name.removeprefix('test_').replace('_', ' ')}\n    -> {'; '.join(told.get(name, ['(no outcome)']))}")
    assert len({a.partition("[")[0] for a in attacks}) >= AT_LEAST
