"""The life of a model in two environments, as steps like those of `tests.crash.story`.

People are asked before a version is promoted, a canary stands beside it, an approval ends, and a version is made anew.
"""

from __future__ import annotations

from attestry.domain.stages import Stage
from tests.crash.acts import (
    add_person,
    build,
    decide,
    deploy,
    lapse,
    open_approval,
    operate,
    operate_model,
    plan,
    predict,
    publish,
    record,
    register,
    sequence,
    sweep,
    upload,
)
from tests.crash.story import Step, catching_up, scene, up_to
from tests.crash.world import Registry

TO_PRODUCTION = {"to": "production", "people": {"roles": ["approver"], "count": 2}, "valid_days": 5}
STAGED = {"environment": "staging", "promotes_to": ["production"], "promotion": [TO_PRODUCTION]}
CANARY = {"strategy": "canary", "canary": {"steps": [10, 50], "minutes": 60, "predictions": 10}}


def promotion_story() -> list[Step]:
    """The whole of it."""
    return catching_up([*_beginning(), *_promoted(1), *_canary(2), *_ended()])


def _beginning() -> list[Step]:
    people = ("alex", "dana", "erin", "grace", "henry")
    return [
        scene("the root of trust is published", lambda r: publish(r, r.root_files)),
        *(scene(f"{name} is added", add_person(person=name, logins=[name])) for name in people),
        scene("the ledger begins", sequence),
        scene("a version is uploaded", upload(1, **STAGED)),
        scene("it is registered", register(1)),
        scene("the environments are planned", plan(1)),
        scene("the environments are built", build),
    ]


def _promoted(n: int) -> list[Step]:
    """It stands in staging; a promotion is withdrawn, and the next one is approved by two and made."""
    ask = operate(n, "promotion", "henry", to="production", reason="two weeks without an incident")
    return [
        *up_to(n, None, begun=True),
        scene("its policy approves it", open_approval(n)),
        scene("the approval is recorded", record(n, Stage.APPROVAL)),
        scene("it comes to staging", deploy(n)),
        Step("a promotion is asked for", ask),
        scene("a person approves it", decide(n, "erin", promotion="production")),
        Step("a promotion is withdrawn", operate(n, "promotion", "henry", to="production", reason="not this week", withdraw=True)),
        scene("a promotion is asked for anew", ask),
        Step("a person approves a promotion", decide(n, "erin", promotion="production")),
        Step("a second person approves a promotion", decide(n, "grace", promotion="production")),
        Step("a promotion is made", ask),
        Step("a promoted version comes into place", Registry.deliver),
        scene("a prediction where it was promoted to", predict),
    ]


def _canary(n: int) -> list[Step]:
    """It stands as a canary beside the promoted one, is halted, begins again, and takes the place."""
    return [
        *up_to(n, None, **CANARY),
        scene("the approval of the canary is opened", open_approval(n)),
        scene("the approval of the canary is recorded", record(n, Stage.APPROVAL)),
        Step("a canary begins", deploy(n)),
        Step("a canary is advanced", operate_model("rollout", "henry", action="advance", reason="it does well", version=n, step=0)),
        Step("a canary is halted", operate_model("rollout", "henry", action="halt", reason="it is slow", version=n)),
        scene("a person has the canary tried again", operate(n, "deployment", "henry", reason="it was the network")),
        scene("the canary begins again", Registry.deliver),
        Step("a canary is finished", operate_model("rollout", "henry", action="finish", reason="it does well", version=n)),
    ]


def _ended() -> list[Step]:
    """What was promoted is put back, its approval there ends, and a new version is made of it."""
    return [
        scene("a rollback to what was promoted", operate_model("rollback", "henry", to=1, reason="the canary was better alone")),
        scene("days pass", lambda r: r.wait(days=6)),
        Step("the sweep finds an approval that has ended", sweep),
        Step("a version whose approval has ended leaves", lapse),
        Step("a refresh is asked for", operate_model("refresh", "henry", reason="it is old", request="r-1", version=2)),
        scene("the last events enter the ledger", sequence),
    ]
