"""What the use cases need from the world, each contract stated.

Adapters over boto3 live in `attestry.aws`; in-memory ones, for tests of rules, in `tests/fakes.py`. One contract suite
(`tests/contract`) runs against both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from attestry.domain.audit import AuditedAct
    from attestry.domain.endpoints import EndpointState
    from attestry.domain.telling import Told

Item = dict[str, Any]
"""Attributes of a row: str, int, bool, None, bytes, lists and mappings of these. No floats: the caller writes text."""


@dataclass(frozen=True)
class Key:
    """Primary key of a row."""

    partition: str
    sort: str = "HEAD"


@dataclass(frozen=True)
class When:
    """Condition of a write; all parts must hold.

    Attributes:
        exists: the row must exist (True), must not exist (False), or either (None).
        equals: attribute to value that it must have. A value of None means that the attribute must be absent.
        differs: attribute to value that it must not have; an absent attribute differs from everything.
        lacks: attribute that is a list to value that must not be among its items; an absent attribute has none.
    """

    exists: bool | None = None
    equals: Mapping[str, Any] = field(default_factory=dict)
    differs: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, Any] = field(default_factory=dict)


ABSENT = When(exists=False)
PRESENT = When(exists=True)


@dataclass(frozen=True)
class Put:
    """Write a whole row."""

    key: Key
    item: Item
    when: When = ABSENT


@dataclass(frozen=True)
class Update:
    """Set attributes of a row, leave the others; attributes set to None are removed. Without `exists` it makes a missing row."""

    key: Key
    changes: Item
    when: When = PRESENT


@dataclass(frozen=True)
class Delete:
    """Remove a row."""

    key: Key
    when: When = PRESENT


@dataclass(frozen=True)
class Check:
    """Take part in a transaction by a condition alone."""

    key: Key
    when: When


Write = Put | Update | Delete | Check


class MetaStore(Protocol):
    """The rows of the registry. Reads are strongly consistent unless a method says otherwise.

    A row is read as it was written, with its key as `pk` and `sk`. It has at most 400 KB.
    """

    def get(self, key: Key) -> Item | None:
        """Return the row with its key as `pk` and `sk`, or None."""

    def get_many(self, keys: Sequence[Key], *, only: Sequence[str] = ()) -> dict[Key, Item]:
        """Return the rows that exist, in one round trip for up to 100 keys.

        Args:
            keys: the rows.
            only: the attributes that the caller reads, besides the key; others may be missing. All where none is named.
        """

    def query(
        self,
        partition: str,
        *,
        prefix: str = "",
        after: str | None = None,
        before: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        only: Sequence[str] = (),
    ) -> list[Item]:
        """Return the rows of a partition in order of their sort key, each with its `sk`; all of them, or `limit`.

        Args:
            partition: the partition key.
            prefix: only rows whose sort key starts with this.
            after: only rows whose sort key is greater than this (not together with `prefix`).
            before: only rows whose sort key is less than this (not together with `prefix`).
            newest_first: descending order.
            limit: at most this many.
            only: the attributes that the caller reads, besides the key; others may be missing. All where none is named.
        """

    def list_collection(
        self, collection: str, *, after: str | None = None, limit: int | None = None, newest_first: bool = False
    ) -> list[Item]:
        """Return rows by the `gsi_pk` collection, ordered by `gsi_sk`; only those behind `after` in this order. Eventually consistent."""

    def transact(self, writes: Sequence[Write]) -> None:
        """Apply all writes or none, at most 100 and 4 MB, each row once.

        A lost answer is retried with the same client token, so a write is never applied twice.

        Raises:
            ConditionFailedError: a condition did not hold, or another transaction was in the way; nothing took effect.
            UnavailableError: the outcome is unknown; the caller reads before it tries again.
            InvalidInputError: too many writes, or too large a row or transaction; nothing took effect.
        """


@dataclass(frozen=True)
class StoredObject:
    """Where an object is, exactly."""

    key: str
    version_id: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ListedVersion:
    """One entry of a versioned listing."""

    key: str
    version_id: str
    size: int
    is_latest: bool
    is_delete_marker: bool


class ObjectStore(Protocol):
    """A versioned bucket whose objects are written once."""

    def put_new(
        self, key: str, body: bytes | IO[bytes], *, content_type: str = "application/octet-stream", retain: bool = False
    ) -> StoredObject:
        """Write an object that must not exist yet, digesting on the way.

        If the key exists with the same bytes the call succeeds and returns what is there, so a retry is harmless.

        Args:
            key: the key.
            body: the bytes, or a stream that is read once.
            content_type: media type.
            retain: put the object under Object Lock with the configured mode and period.

        Raises:
            IntegrityError: the key exists with other bytes.
        """

    def put(self, key: str, body: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write or overwrite an object that is not evidence (status objects, jobs)."""

    def open(self, key: str, version_id: str | None = None) -> IO[bytes]:
        """Return a stream over the object.

        Raises:
            NotFoundError: no such object or version.
        """

    def read(self, key: str, version_id: str | None = None, *, max_bytes: int) -> bytes:
        """Return the bytes.

        Raises:
            NotFoundError: no such object or version.
            InvalidInputError: the object is larger than `max_bytes`.
        """

    def stat(self, key: str) -> StoredObject | None:
        """Return where the latest version is, without its digest (empty string), or None."""

    def list_versions(self, prefix: str) -> Iterator[ListedVersion]:
        """Yield every version and delete marker below the prefix, a page of 1,000 per round trip."""

    def presign_get(self, key: str, version_id: str | None, *, seconds: int) -> str:
        """Return a URL that reads exactly this version until it expires."""

    def presign_put_new(self, key: str, *, sha256: str, size: int, seconds: int) -> tuple[str, dict[str, str]]:
        """Return a URL and the headers of a PUT that is refused unless key is free and body has this digest and size."""

    def presign_post(self, key: str, *, max_bytes: int, seconds: int) -> dict[str, Any]:
        """Return `url` and `fields` of a browser-style POST of at most `max_bytes`."""


@dataclass(frozen=True)
class ObjectLock:
    """What is known of a version of an object without reading it.

    Attributes:
        sha256: hex; empty where the store does not know it of the whole object.
        retained_until: until when it is retained, RFC 3339 in UTC; empty where it is not.
        mode: `GOVERNANCE` or `COMPLIANCE`; empty where it is not retained.
        legal_hold: whether a legal hold stands on it.
    """

    sha256: str = ""
    retained_until: str = ""
    mode: str = ""
    legal_hold: bool = False


class ObjectCustody(Protocol):
    """Locks of objects, and the deletion of versions of them for good; one function of the registry alone has it."""

    def lock_of(self, key: str, version_id: str) -> ObjectLock | None:
        """Return what is known of a version, or None where it is gone."""

    def set_legal_hold(self, key: str, version_id: str, *, on: bool) -> None:
        """Place or lift the legal hold of a version; of one that is gone nothing is done."""

    def retain(self, key: str, version_id: str, *, mode: str, until: datetime) -> None:
        """Retain a version until a time that is not before the one that is set."""

    def delete_version(self, key: str, version_id: str) -> bool:
        """Delete a version for good; one that is gone is deleted. False where a lock stands on it."""


class Signer(Protocol):
    """A signing key whose private half nobody holds."""

    @property
    def key_id(self) -> str:
        """Stable name of the key (its ARN on AWS)."""

    def sign_es256(self, message: bytes) -> bytes:
        """Return the 64-byte r‖s ECDSA P-256 signature over SHA-256 of the message (RFC 7518 section 3.4)."""

    def public_key_der(self) -> bytes:
        """Return the SubjectPublicKeyInfo in DER."""


class NoteSigner(Protocol):
    """An Ed25519 key that signs notes, whose private half nobody holds."""

    @property
    def key_id(self) -> str:
        """Stable name of the key (its ARN on AWS)."""

    def sign_ed25519(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature (RFC 8032, not the prehashed variant) over a message of at most 4,096 bytes.

        Raises:
            UnavailableError: the key did not answer.
        """

    def public_key(self) -> bytes:
        """Return the public key, 32 bytes."""


@dataclass(frozen=True)
class WitnessRequest:
    """What a witness is asked besides the checkpoint.

    Attributes:
        old_size: size of the checkpoint that the witness is thought to have cosigned last; 0 where none is known of.
        proof: consistency proof from there, 32 bytes each.
    """

    old_size: int
    proof: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class WitnessAnswer:
    """What a witness answered.

    Attributes:
        lines: signature lines, each with its newline; none where it did not cosign.
        size: of the checkpoint that it cosigned last, where `old_size` was another; else None.
        error: why it did not cosign, else empty.
    """

    lines: tuple[str, ...] = ()
    size: int | None = None
    error: str = ""


class Witnesses(Protocol):
    """Who vouches that a log only ever grew (C2SP tlog-witness)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the witnesses' names, which are their keys' names."""

    def cosign(self, note: bytes, asked: Mapping[str, WitnessRequest]) -> dict[str, WitnessAnswer]:
        """Ask witnesses for their cosignatures, all at once, each within a time limit; never raises for one that fails.

        Args:
            note: the signed checkpoint.
            asked: name to what that witness is asked.

        Returns:
            The answer of each that was asked. Lines were checked where the witness's key is known.
        """


class Functions(Protocol):
    """Other functions of the registry."""

    def call(self, name: str, payload: Mapping[str, Any], *, tenant: str | None = None) -> Any:
        """Invoke and wait.

        Raises:
            UnavailableError: the function failed or timed out.
        """

    def send(self, name: str, payload: Mapping[str, Any]) -> None:
        """Invoke without waiting."""


@dataclass(frozen=True)
class EndpointAnswer:
    """What an endpoint answered: the variant that did, as SageMaker says, and the bytes."""

    variant: str
    body: bytes


class EndpointRuntime(Protocol):
    """Calls of SageMaker's endpoints."""

    def invoke(self, endpoint: str, variant: str, body: bytes) -> EndpointAnswer:
        """Have a production variant answer a JSON document, once.

        Raises:
            NotReadyError: the variant's container is not ready yet.
            PredictionFailedError: the container failed, or did not answer in time.
            UnavailableError: there is no such endpoint or variant, or no answer came.
        """


class Endpoints(Protocol):
    """SageMaker's endpoints, their configurations and models. A request has the form of the API's.

    What is made has a name that the caller chose. Making it again changes nothing: whoever wants to know what lies under the name reads it.
    """

    def state(self, name: str) -> EndpointState | None:
        """Return how an endpoint is, or None where there is none."""

    def model(self, name: str) -> Mapping[str, Any] | None:
        """Return a model's description, or None where there is none."""

    def config(self, name: str) -> Mapping[str, Any] | None:
        """Return the description of an endpoint's configuration, or None where there is none."""

    def make_model(self, request: Mapping[str, Any]) -> None:
        """Make a model, if there is none of that name.

        Raises:
            StageFailedError: SageMaker does not take the request.
        """

    def make_config(self, request: Mapping[str, Any]) -> None:
        """Make a configuration, if there is none of that name.

        Raises:
            StageFailedError: SageMaker does not take the request.
        """

    def make_endpoint(self, name: str, config: str, tags: Sequence[Mapping[str, str]]) -> bool:
        """Make an endpoint; False where there is one of that name.

        Raises:
            StageFailedError: SageMaker does not take the request.
        """

    def update_endpoint(self, name: str, config: str) -> bool:
        """Have an endpoint run another configuration; False, and it is left alone, where it is being changed.

        Raises:
            StageFailedError: SageMaker does not take the request.
        """

    def remove_endpoint(self, name: str) -> None:
        """Remove an endpoint; one that is being changed, or that is not there, is left alone."""

    def remove_config(self, name: str) -> None:
        """Remove a configuration, if it is there."""

    def remove_model(self, name: str) -> None:
        """Remove a model, if it is there."""


class Pipeline(Protocol):
    """The executions of the state machine."""

    def start(self, execution_id: str, payload: Mapping[str, Any]) -> str:
        """Start an execution and return its ARN; the same ID again is not an error."""

    def status(self, execution_id: str) -> str | None:
        """Return RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED, or None where there is no such execution."""

    def resume(self, token: str, output: Mapping[str, Any]) -> bool:
        """Send a task token; False when the execution no longer waits for it."""


@dataclass(frozen=True)
class CallRecord:
    """What CloudTrail says about a call that a person made in the AWS console.

    Attributes:
        arn: the caller's ARN.
        user_id: the caller's unique ID.
        account: the caller's account.
        address: source IP address.
        identity_type: `IAMUser`, `AssumedRole`, ...; `AWSService` for what a service did for somebody.
        event_id: ID of the CloudTrail event.
        call: name of the call: `StartExecution`, `RedriveExecution`, `SendAutomationSignal`.
        at: when, RFC 3339 in UTC; empty where the event does not say.
        mfa: whether the session was authenticated with a second factor.
        issuer: ARN of the role that the session is one of; empty for an IAM user.
        digest: SHA-256, hex, of the event in canonical JSON (RFC 8785).
        parameters: texts of the call's parameters that CloudTrail shows and that can be compared: `stateMachineArn`, `name`,
            `automationExecutionId`, `signalType`.
    """

    arn: str
    user_id: str
    account: str
    address: str
    identity_type: str
    event_id: str
    call: str = ""
    at: str = ""
    mfa: bool = False
    issuer: str = ""
    digest: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    def to_item(self) -> dict[str, Any]:
        """Return the record as it is stored."""
        return {**vars(self), "parameters": dict(self.parameters)}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> CallRecord:
        """Return the record that `to_item` wrote."""
        return cls(**{name: item[name] for name in cls.__dataclass_fields__ if name in item})


class Trail(Protocol):
    """CloudTrail's event history."""

    def find_start(self, execution_arn: str, *, since: datetime) -> CallRecord | None:
        """Return who started the execution, or None while CloudTrail does not say; a redrive is what is returned where there was one.

        Raises:
            UnavailableError: CloudTrail did not answer.
        """

    def find_signals(self, automation_id: str, *, since: datetime) -> list[CallRecord]:
        """Return who sent signals to an automation, as far as CloudTrail says.

        Raises:
            UnavailableError: CloudTrail did not answer.
        """


@dataclass(frozen=True)
class ExecutionDescription:
    """An execution as Step Functions describes it.

    Attributes:
        arn: its ARN.
        state_machine_arn: the state machine.
        name: its name.
        started: when it was started.
        input: its input, as it was given.
        redrives: how often it was redriven.
    """

    arn: str
    state_machine_arn: str
    name: str
    started: datetime
    input: str
    redrives: int = 0


class Executions(Protocol):
    """Executions that people start in the AWS console."""

    def describe(self, execution_arn: str) -> ExecutionDescription | None:
        """Return what the service says of an execution, or None where there is none.

        Raises:
            UnavailableError: Step Functions did not answer.
        """


@dataclass(frozen=True)
class ApproverDecision:
    """What an approver answered to an `aws:approve` step, as Systems Manager tells it.

    Attributes:
        approver: ARN of who answered.
        decision: `Approve` or `Reject`.
        at: when, as the service writes it.
        comment: what they wrote with it, or empty.
    """

    approver: str
    decision: str
    at: str
    comment: str = ""


@dataclass(frozen=True)
class AutomationDescription:
    """An automation as Systems Manager describes it.

    Attributes:
        automation_id: its execution ID.
        document: name of the document.
        started: when it was started.
        parameters: the first value of each of its parameters.
        message: what its `aws:approve` step shows, empty before that step.
        decisions: the answers to that step.
    """

    automation_id: str
    document: str
    started: datetime
    parameters: Mapping[str, str]
    message: str = ""
    decisions: tuple[ApproverDecision, ...] = ()


class Automations(Protocol):
    """Automations of Systems Manager in which people approve."""

    def start(self, model: str, number: int, *, token: str, promotion: str = "") -> str:
        """Start the runbook for a version and return the execution's ID; with the same token it is started once, and the ID may be empty.

        Args:
            model: the model's name.
            number: the version's number.
            token: 64 hex digits.
            promotion: the environment, of a promotion; empty for the version's own approval.

        Raises:
            UnavailableError: Systems Manager did not answer.
        """

    def describe(self, automation_id: str) -> AutomationDescription | None:
        """Return what the service says of an automation, or None where there is none.

        Raises:
            UnavailableError: Systems Manager did not answer.
        """


class Auditor(Protocol):
    """Where audited acts are noted down that change nothing."""

    def note(self, act: AuditedAct) -> None:
        """Note an act; failures are logged, never raised: a note changes neither an answer nor an error."""


class Alarms(Protocol):
    """The alarms of the account."""

    def states(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return the states (`OK`, `ALARM`, `INSUFFICIENT_DATA`) of up to 100 alarms by their names; one that is not there is left out.

        Raises:
            UnavailableError: no answer.
        """


@dataclass(frozen=True)
class AlarmState:
    """An alarm of CloudWatch: its name, its state (OK, ALARM, INSUFFICIENT_DATA), and since when, RFC 3339."""

    name: str
    state: str
    since: str


class AlarmReader(Protocol):
    """One alarm, with the time of its state."""

    def find(self, name: str) -> AlarmState | None:
        """Return the alarm of that name, or None where there is none.

        Raises:
            UnavailableError: CloudWatch did not answer.
        """


class Notifier(Protocol):
    """Tells people."""

    def notify(self, subject: str, message: Mapping[str, Any]) -> None:
        """Publish; failures are logged, never raised: a notification is not part of the record."""


class EventBus(Protocol):
    """The bus on which events are told to whoever subscribes."""

    def put(self, told: Sequence[Told]) -> None:
        """Put events on the bus, in order; returns once all of them are taken.

        Raises:
            UnavailableError: the bus did not take all of them; those that it took may be put again.
        """


class Deliveries(Protocol):
    """The queue of what is to be delivered to webhooks."""

    def send(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Queue messages; returns once all of them are taken.

        Raises:
            UnavailableError: not all were taken; those that were may be queued again.
        """


class MacKey(Protocol):
    """A key for message authentication codes that nobody holds."""

    def mac(self, message: bytes) -> bytes:
        """Return HMAC-SHA256 (RFC 2104) over a message of at most 4,096 bytes: 32 bytes, the same each time.

        Raises:
            UnavailableError: the key did not answer.
        """


class Sender(Protocol):
    """Sends requests to addresses that users of the registry gave."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Send a POST once, follow nothing, and return the answer's status.

        Raises:
            InvalidInputError: the URL, or the address that its name has, is one that requests may not go to; nothing was sent.
            UnavailableError: no connection, or no answer in time.
        """


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Return the time in UTC."""


Writes = Iterable[Write]
