"""A registry in memory whose version stands deployed in staging, and whose manifest asks people before it comes to production.

world = PromotionWorld().staged()
world.ask()                                # a deployer asks; the gate freezes the packet
world.decide(ERIN); world.decide(GRACE)    # two approvers, neither of whom asked or submitted
world.place()                              # the deployer's second `promote`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.domain.approvals import Verdict
from attestry.domain.principal import Principal
from attestry.domain.version import Version
from attestry.evidence.delegation import Delegation, jwk_of
from attestry.usecases.decide import Decision
from attestry.usecases.decide_promotion import decide_promotion
from attestry.usecases.delegate import delegate_signing
from attestry.usecases.deploy import Deployment, begin_deployment, roll_back, swap_pointer
from attestry.usecases.open_promotion import open_promotion
from attestry.usecases.people import add_person
from attestry.usecases.predict import Predictor
from attestry.usecases.promotion import withdraw_promotion
from tests.evidence_world import ADMIN, CONSUMER, DEPLOYER, ERIN, GRACE, REQUEST, EvidenceWorld
from tests.ssh_keys import SshPerson
from tests.versions import session

IVAN = session("approver", "ivan", person="ivan")
VERA = session("validator", "vera", person="vera")
TWO: Mapping[str, Any] = {"to": "production", "people": {"roles": ["approver"], "count": 2}}

__all__ = ["DEPLOYER", "ERIN", "GRACE", "IVAN", "TWO", "VERA", "PromotionWorld"]


class PromotionWorld(EvidenceWorld):
    """See the module."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.made = 0
        for person in ("ivan", "vera", "henry"):
            add_person(self.meta, person, [person], name="", by=ADMIN, at=self.clock.now(), ssh_keys=[SshPerson(person).public])

    def staged(self, *promotion: Mapping[str, Any], to: Sequence[str] = ("production",), **deployment: Any) -> PromotionWorld:
        """Take another version all the way into staging, under a manifest that promotes it to the environments `to`."""
        self.made += 1
        self.validate(edit=self.edit(*(promotion or (TWO,)), to=to, memory_mib=2048 + self.made, **deployment))
        self.open()
        self.approve()
        self.place("staging")
        return self

    @staticmethod
    def edit(*promotion: Mapping[str, Any], to: Sequence[str] = ("production",), **deployment: Any) -> Any:
        """Return what makes a manifest one of these."""

        def edit(manifest: dict[str, Any]) -> None:
            asked = {"promotion": [dict(p) for p in promotion]} if promotion else {}
            manifest["deployment"] |= {"environment": "staging", "promotes_to": list(to), **asked, **deployment}

        return edit

    def told(self, by: Principal, reason: str = "the change is agreed", environment: str = "production") -> dict[str, Any]:
        return {"environment": environment, "by": by, "reason": reason, "at": self.clock.now()}

    def ask(self, by: Principal = DEPLOYER, environment: str = "production") -> Version:
        ports = (self.meta, self.flow.attestors["gate"], self.store, self.flow.notifier)
        return open_promotion(*ports, self.head.model, self.head.number, **self.told(by, environment=environment))

    def withdraw(self, by: Principal = DEPLOYER, environment: str = "production") -> Version:
        told = self.told(by, environment=environment)
        return withdraw_promotion(self.meta, self.flow.attestors["operate"], self.head.model, self.head.number, **told)

    def decide(
        self, by: Principal, verdict: Verdict = Verdict.APPROVE, *, signed: bool = False, environment: str = "production", **more: Any
    ) -> Decision:
        if signed:
            more["signature"] = SshPerson(str(by.person)).sign(str(self.head.promotions[environment]["packet"]))
        ports = (self.meta, self.flow.attestors["decide"], self.store, self.head.model, self.head.number, verdict)
        return decide_promotion(*ports, **self.told(by, "reviewed", environment), **more)

    def approved(self, *people: Principal) -> PromotionWorld:
        """Ask for the promotion and have it approved."""
        self.ask()
        for person in people or (ERIN, GRACE):
            self.decide(person)
        return self

    def place(self, environment: str = "production", number: int | None = None) -> Deployment:
        """Put a version in place by the deploy function."""
        version, attestor = self.head, self.flow.attestors["deploy"]
        if number is None:
            begin_deployment(self.meta, attestor, version, by=DEPLOYER, reason="approved", at=self.clock.now())
        told = self.told(DEPLOYER, environment=environment)
        return swap_pointer(self.meta, attestor, version.model, number or version.number, capture_rate="1", **told)

    def back(self, to: int | None = None, environment: str = "production") -> Deployment:
        return roll_back(self.meta, self.flow.attestors["operate"], self.head.model, to=to, **self.told(DEPLOYER, environment=environment))

    def delegate(self, environment: str = "production") -> Delegation:
        jwk = jwk_of(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
        what: dict[str, Any] = {"model": self.head.model, "environment": environment, "jwk": jwk, "at": self.clock.now()}
        return delegate_signing(self.meta, self.delegator, **what)

    def predict_in(self, environment: str) -> str:
        """Return the ID of a prediction that an environment makes."""
        ports: dict[str, Any] = {"meta": self.meta, "store": self.store, "functions": self.flow.functions, "keys": self.keys}
        predictor = Predictor(**ports, inference="inference", clock=lambda: 0.0)
        return predictor.predict(self.head.model, environment, REQUEST, CONSUMER).prediction_id
