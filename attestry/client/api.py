"""The registry's HTTP API, called with the caller's AWS credentials (SigV4 for `execute-api`).

    client = RegistryClient()                  # the usual AWS credential chain, the address from SSM or ATTESTRY_API_URL
    client.predict("tumour-diagnosis", [{"mean radius": 14.1, ...}])

Every method returns the answer's JSON as it came, and raises `ApiError` for an error of the registry.
"""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from attestry.client.access import AccessRoutes
from attestry.client.catalogue_routes import CatalogueRoutes
from attestry.client.errors import ApiError, EndpointError
from attestry.client.http import Http, is_confidential
from attestry.client.import_routes import ImportRoutes
from attestry.domain.errors import IntegrityError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from attestry.evidence.packet import Packet

API_URL_VARIABLE: Final = "ATTESTRY_API_URL"
API_URL_PARAMETER: Final = "/attestry/api-url"
TOKEN_VARIABLE: Final = "ATTESTRY_TOKEN"  # noqa: S105 - a variable's name
BEARER_TREE: Final = "/oidc"
"""Before the paths of the routes that take a bearer token."""


_SERVICE = "execute-api"
_RETRY_STATUSES = (429, 503)
_DEFAULT_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_CONNECTION_TRIES = 3
_WITHOUT_KEY = ("/predictions", "/policy-replay", "/v1/uploads", "/v1/imports", "/versions", "/search/models")
"""Ends of the paths whose operations take no idempotency key."""

_WITHOUT_KEY_BELOW = "/v1/webhooks"
"""Beginning of the paths of which that holds as well."""

PAGE_ROWS: Final = 200
"""The most that a page of a list may have."""

Waiting = Callable[[str, float], None]
"""Told why a request waits, and for how many seconds, before it is sent again."""


class RegistryClient(AccessRoutes, CatalogueRoutes, ImportRoutes):
    """The routes of the API, a method each.

    Args:
        session: credentials and region; by default, the usual AWS chain.
        api_url: start of the API's URL; by default ATTESTRY_API_URL, else SSM parameter `/attestry/api-url`.
        token: bearer token of an identity provider, instead of AWS credentials; by default ATTESTRY_TOKEN, where no
            session is given.
        patience_seconds: how long to wait in all while the registry answers that it is busy or not ready (503 with
            Retry-After).
        on_wait: told before each wait.
    """

    def __init__(
        self,
        session: boto3.Session | None = None,
        api_url: str | None = None,
        *,
        token: str | None = None,
        patience_seconds: float = 60,
        on_wait: Waiting | None = None,
    ) -> None:
        self._session = session or boto3.Session()
        self._token = token or (os.environ.get(TOKEN_VARIABLE, "") if session is None else "")
        self._given_url = api_url or os.environ.get(API_URL_VARIABLE)
        self.patience_seconds = patience_seconds
        self._on_wait: Waiting = on_wait or (lambda _why, _seconds: None)
        bundle = self._session._session.get_config_variable("ca_bundle")
        self.http = Http(str(bundle) if bundle else None)

    @cached_property
    def api_url(self) -> str:
        """Where the API is, without a slash at the end.

        Raises:
            EndpointError: nobody says, or it would send signed requests in the clear.
        """
        url = (self._given_url or self._discovered_url()).rstrip("/")
        if not is_confidential(url):
            raise EndpointError(f"the registry's address {url} is neither HTTPS nor on this machine")
        return url

    def whoami(self) -> Any:
        """Return the caller as the registry sees it."""
        return self._get("/v1/me")

    def models(self) -> list[dict[str, Any]]:
        """Return all models."""
        return list(self._every("/v1/models", "models"))

    def model(self, model: str) -> Any:
        """Return a model and what is deployed where."""
        return self._get(f"/v1/models/{_part(model)}")

    def versions(self, model: str) -> list[dict[str, Any]]:
        """Return the versions of a model."""
        return list(self._every(f"/v1/models/{_part(model)}/versions", "versions"))

    def version(self, model: str, number: int) -> Any:
        """Return all that is recorded of a version."""
        return self._get(_version(model, number))

    def diff(self, model: str, before: int, after: int) -> list[dict[str, Any]]:
        """Return what differs between two versions."""
        return _rows(self._get(f"/v1/models/{_part(model)}/diff", {"from": before, "to": after}), "differences")

    def log(self, model: str, number: int, stage: str) -> Any:
        """Return the log of a stage's latest run."""
        return self._get(f"{_version(model, number)}/logs", {"stage": stage})

    def data(self, model: str, number: int, name: str) -> Any:
        """Return the files of a data set of a version, with URLs that read them."""
        return self._get(f"{_version(model, number)}/data", {"set": name})

    def packet(self, model: str, number: int) -> Packet:
        """Return the packet that a decision on a version rests on, its digest checked.

        Raises:
            IntegrityError: the text has another digest than the registry says, or it is of another version.
        """
        from attestry.evidence.packet import Packet

        answer = self._get(f"{_version(model, number)}/packet")
        packet = Packet.parse(str(answer["content"]).encode())
        if packet.sha256 != answer["sha256"] or packet.reference != f"{model}@{number}":
            raise IntegrityError(f"the registry showed a packet of {packet.reference} with another digest than it says")
        return packet

    def decide(
        self,
        model: str,
        number: int,
        decision: str,
        reason: str,
        *,
        packet_sha256: str = "",
        signature: str = "",
        conditions: Mapping[str, Any] | None = None,
    ) -> Any:
        """Approve or reject a version that waits for it.

        Args:
            model: the model's name.
            number: the version's number.
            decision: `approve` or `reject`.
            reason: why.
            packet_sha256: digest of the packet that was read; refused where the version has another.
            signature: the caller's own signature over it, armored; only to approve.
            conditions: under what the caller approves: `until` (day), `max_predictions`, `segments` (feature to values).
        """
        given = (("packet_sha256", packet_sha256), ("signature", signature), ("conditions", dict(conditions or {})))
        seen = {name: value for name, value in given if value}
        return self._post(f"{_version(model, number)}/decision", {"decision": decision, "reason": reason, **seen})

    def declare_conflict(self, model: str, reason: str, *, person: str = "", withdraw: bool = False) -> Any:
        """Record a conflict of interest of the caller's on a model; an admin names another person, or withdraws one."""
        return self._post(f"/v1/models/{_part(model)}/conflicts", {"reason": reason, "person": person, "withdraw": withdraw})

    def conflicts(self, model: str) -> list[dict[str, Any]]:
        """Return the conflicts of interest that were declared on a model, what was withdrawn included."""
        return list(self._every(f"/v1/models/{_part(model)}/conflicts", "conflicts"))

    def deploy(self, model: str, number: int, reason: str, *, strategy: str | None = None) -> Any:
        """Begin to put an approved version in place, by its manifest's strategy or `all-at-once`."""
        return self._post(f"{_version(model, number)}/deployment", {"reason": reason, **_given(strategy=strategy)})

    def promote(self, model: str, number: int, to: str, reason: str) -> Any:
        """Begin to put a version in place in the environment after the one where it stands deployed."""
        return self._post(f"{_version(model, number)}/promotion", {"to": to, "reason": reason})

    def rollout(self, model: str, *, environment: str = "production") -> Any:
        """Return what stands beside the deployed version: `canary` and `shadow`, each empty or with what was seen of it."""
        return self._get(f"/v1/models/{_part(model)}/rollout", {"environment": environment})

    def change_rollout(self, model: str, action: str, reason: str, *, environment: str = "production") -> Any:
        """Advance, halt or finish the rollout of an environment."""
        return self._post(f"/v1/models/{_part(model)}/rollout", {"action": action, "reason": reason, "environment": environment})

    def rollback(self, model: str, reason: str, *, to: int | None = None, environment: str | None = None) -> Any:
        """Put the version that is kept for rollback, or another approved one, back in place.

        Args:
            model: the model's name.
            reason: why.
            to: number of that version. Without it the registry refuses a rollback right after a rollback.
            environment: where; by default in production.
        """
        return self._post(f"/v1/models/{_part(model)}/rollback", {"reason": reason, **_given(to=to, environment=environment)})

    def retry(self, model: str, number: int, reason: str) -> Any:
        """Try a failed version again."""
        return self._post(f"{_version(model, number)}/retry", {"reason": reason})

    def hold(self, model: str, number: int, reason: str) -> Any:
        """Hold a version: it begins no stage, and is neither approved nor put in place, until it is released."""
        return self._post(f"{_version(model, number)}/hold", {"reason": reason})

    def release(self, model: str, number: int, reason: str) -> Any:
        """End the hold of a version."""
        return self._post(f"{_version(model, number)}/release", {"reason": reason})

    def redo(self, model: str, number: int, stage: str, reason: str, *, attempt: int | None = None) -> Any:
        """Have PROCESSING or VALIDATION run again, and every stage behind it.

        Args:
            model: the model's name.
            number: the version's number.
            stage: which.
            reason: why.
            attempt: the attempt that is to be followed by another one, so that a request that is sent twice is done once.
        """
        return self._post(f"{_version(model, number)}/redo", {"stage": stage, "reason": reason, **_given(attempt=attempt)})

    def transition(self, model: str, number: int, to: str, reason: str, *, attempt: int | None = None) -> Any:
        """Have a version moved towards a stage or standing, by what may lead there; `attempt` as for `redo`."""
        return self._post(f"{_version(model, number)}/transition", {"to": to, "reason": reason, **_given(attempt=attempt)})

    def claim(self, model: str, number: int) -> Any:
        """Make the caller the submitter of a version that was uploaded by hand under the caller's own prefix."""
        return self._post(f"{_version(model, number)}/claim", {})

    def findings(self, model: str | None = None) -> list[dict[str, Any]]:
        """Return the open findings of reconciliation, of one model or of all."""
        return list(self._every("/v1/findings", "findings", {"model": model} if model else {}))

    def kill(self, model: str, number: int, reason: str) -> Any:
        """Take a version out of use at once; it answers nothing from 5 seconds after this returns on."""
        return self._post(f"{_version(model, number)}/kill", {"reason": reason})

    def retire(self, model: str, number: int, reason: str, *, on: str | None = None, even_if_deployed: bool = False) -> Any:
        """Take a version out of use, now or from 00:00 UTC of a day (`YYYY-MM-DD`) on.

        Args:
            model: the model's name.
            number: the version's number.
            reason: why.
            on: the day; None for now.
            even_if_deployed: also where it stands deployed, so that nothing does afterwards.
        """
        body = {"reason": reason, "even_if_deployed": even_if_deployed, **({"on": on} if on else {})}
        return self._post(f"{_version(model, number)}/retirement", body)

    def set_capture(self, model: str, rate: str, reason: str, *, environment: str = "production") -> Any:
        """Set the share of predictions, 0 to 1, whose payload is kept for what is deployed."""
        return self._post(f"/v1/models/{_part(model)}/capture", {"rate": rate, "reason": reason, "environment": environment})

    def refresh(
        self, model: str, reason: str, *, version: int | None = None, data: Mapping[str, Any] | None = None, request: str = ""
    ) -> Any:
        """Have a new version made of what is deployed, or of `version`; `data` is what `bring_data` returned."""
        more = {"version": version, "data": dict(data or {}), "request": request}
        return self._post(f"/v1/models/{_part(model)}/refresh", {"reason": reason, **{k: v for k, v in more.items() if v}})

    def refreshes(self, model: str) -> Any:
        """Return what is known of a model's refreshes."""
        return self._get(f"/v1/models/{_part(model)}/refreshes")

    def reproduce(self, model: str, number: int, reason: str, *, request: str = "") -> Any:
        """Have a version's recipe run again, to be compared."""
        more = {"request": request} if request else {}
        return self._post(f"{_version(model, number)}/reproduction", {"reason": reason, **more})

    def predict(self, model: str, instances: Sequence[Mapping[str, Any]], *, environment: str = "", routing_key: str = "") -> Any:
        """Return predictions with their ID and receipt; waits while the version loads.

        Args:
            model: the model's name.
            instances: what is asked for.
            environment: where; by default in production.
            routing_key: requests with the same key go to a canary or not alike; by default each goes by chance.
        """
        query = {name: value for name, value in (("environment", environment), ("routing_key", routing_key)) if value}
        return self._post(f"/v1/models/{_part(model)}/predictions", {"instances": list(instances)}, query)

    def trace(self, prediction_id: str, *, deep: bool = False) -> Any:
        """Return the trace document of a prediction; `deep` has every file hashed again."""
        return self._get(f"/v1/predictions/{_part(prediction_id)}/trace", {"deep": "true"} if deep else {})

    def lineage(self, node: str, *, direction: str = "both", depth: int = 20) -> Any:
        """Return the graph around a node: `start`, `nodes`, `edges`, `truncated`."""
        return self._get("/v1/lineage", {"node": node, "direction": direction, "depth": depth})

    def compliance(self, *, after: str = "") -> Any:
        """Return the deployed versions with what their lineage lacks; go on behind `next` until it is None."""
        return self._get("/v1/compliance", {"after": after} if after else {})

    def prediction_bundle(self, prediction_id: str, *, payload: bool = False) -> Any:
        """Have a prediction's bundle made: `url`, `sha256`, `size`; `payload` puts in request and output, for roles that may see them."""
        return self._get(f"/v1/predictions/{_part(prediction_id)}/bundle", {"payload": "true"} if payload else {})

    def version_bundle(self, model: str, number: int) -> Any:
        """Have the bundle of a version made: `url`, `sha256`, `size`."""
        return self._get(f"{_version(model, number)}/bundle")

    def ledger_file(self, path: str) -> bytes:
        """Return a published file of the ledger: `checkpoint`, or a path of C2SP tlog-tiles.

        Raises:
            NotFoundError: there is none.
        """
        try:
            answer = self._get("/v1/ledger/file", {"path": path})
        except ApiError as error:
            if error.status == NotFoundError.status:
                raise NotFoundError(error.message) from error
            raise
        return base64.b64decode(answer["content"], validate=True)

    def audit_batches(self, *, since: str = "") -> Iterator[dict[str, Any]]:
        """Yield the batches of audited acts, the latest first, a page when it is needed."""
        return self._every("/v1/ledger/audit", "batches", {"since": since} if since else {})

    def audit_batch(self, number: int) -> Any:
        """Return where a batch of audited acts can be read, and the leaf of the event that names it."""
        return self._get(f"/v1/ledger/audit/{number}")

    def root(self) -> Any:
        """Return the root of trust: all its metadata, and what it says."""
        return self._get("/v1/root")

    def root_keys(self) -> Any:
        """Return the public keys that the deployment signs with."""
        return self._get("/v1/root/keys")

    def publish_root(self, files: Mapping[str, str]) -> Any:
        """Publish metadata of the root of trust, file name to text."""
        return self._post("/v1/root", {"files": dict(files)})

    def people(self) -> list[dict[str, Any]]:
        """Return the persons and their logins."""
        return list(self._every("/v1/people", "people"))

    def add_person(self, person: str, logins: Sequence[str], name: str = "", *, ssh_keys: Sequence[str] = ()) -> Any:
        """Add a person, or logins and SSH keys (lines of `.pub` files) to one."""
        more = {**({"name": name} if name else {}), **({"ssh_keys": list(ssh_keys)} if ssh_keys else {})}
        return self._post("/v1/people", {"person": person, "logins": list(logins), **more})

    def policies(self) -> list[dict[str, Any]]:
        """Return the policies in force, each with its document."""
        return list(self._every("/v1/policies", "policies"))

    def policy_editions(self, name: str) -> list[dict[str, Any]]:
        """Return all editions of a policy, the first one first."""
        return list(self._every(f"/v1/policies/{_part(name)}", "editions"))

    def publish_policy(self, document: Mapping[str, Any], reason: str) -> Any:
        """Put an edition of a policy in force; the same document again is answered like the first time."""
        return self._post("/v1/policies", {"document": dict(document), "reason": reason})

    def replay_policy(self, document: Mapping[str, Any], since: str, *, after: str = "") -> Any:
        """Judge the promotions since a day (`YYYY-MM-DD`) by a policy; go on behind `next` until it is None."""
        return self._post("/v1/policy-replay", {"document": dict(document), "since": since, **({"after": after} if after else {})})

    def withdraw_keys(self, person: str, fingerprints: Sequence[str], reason: str) -> Any:
        """Withdraw SSH keys of a person, for good, by their fingerprints (`SHA256:...`)."""
        return self._post("/v1/people", {"person": person, "withdraw": list(fingerprints), "reason": reason})

    def announce_upload(self, files: Sequence[Mapping[str, Any]]) -> Any:
        """Announce files (`name`, `size`, `sha256`) and return where each is to be PUT."""
        return self._post("/v1/uploads", {"files": list(files)})

    def submission(self, submission: str) -> Any:
        """Return what became of a submission."""
        return self._get(f"/v1/submissions/{_part(submission)}")

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Send a request and return the answer's JSON.

        While the registry answers 503 or 429, or 409 because the same request is under way, the request is sent again after its
        Retry-After, until the patience is used up. A connection that breaks is tried again for a GET, which changes nothing, and for a
        request with an idempotency key, which is done once however often it comes.

        Raises:
            ApiError: the registry answered with an error.
            UnavailableError: there is no connection.
            EndpointError: the API's address, or credentials, are not known.
        """
        deadline, failures = time.monotonic() + self.patience_seconds, 0
        without = method == "GET" or path.startswith(_WITHOUT_KEY_BELOW) or path.endswith(_WITHOUT_KEY)
        key = "" if without else str(uuid.uuid4())
        while True:
            try:
                answer = self.http.send(self._signed(method, path, query, body, key))
            except UnavailableError:
                failures += 1
                if (method != "GET" and not key) or failures >= _CONNECTION_TRIES:
                    raise
                time.sleep(0.2 * 2**failures)
                continue
            if answer.status_code < 400:
                return _json(answer)
            error = ApiError.from_answer(answer.status_code, _json(answer), str(answer.headers.get("x-request-id", "")))
            pause = _pause(answer)
            again = error.status in _RETRY_STATUSES or error.code == "in_progress"
            if not again or time.monotonic() + pause > deadline:
                raise error
            self._on_wait(error.message, pause)
            time.sleep(pause)

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self.call("GET", path, query=query)

    def _every(self, path: str, name: str, query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of a list, page by page."""
        asked = {**(query or {}), "limit": PAGE_ROWS}
        while True:
            page = self._get(path, asked)
            yield from page[name]
            if page.get("next") is None:
                return
            asked["cursor"] = page["next"]

    def _post(self, path: str, body: Any, query: Mapping[str, Any] | None = None) -> Any:
        return self.call("POST", path, query=query, body=body)

    def _signed(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any, key: str = "") -> AWSRequest:
        url = f"{self.api_url}{BEARER_TREE if self._token else ''}{path}" + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode() if body is not None else b""
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if data else {})}
        if key:
            headers["Idempotency-Key"] = key
        if self._token:
            return AWSRequest(method=method, url=url, data=data, headers={**headers, "Authorization": f"Bearer {self._token}"})
        request = AWSRequest(method=method, url=url, data=data, headers=headers)
        SigV4Auth(self._credentials(), _SERVICE, self._region()).add_auth(request)
        return request

    def _credentials(self) -> Credentials:
        try:
            credentials = self._session.get_credentials()
            if credentials is None:
                raise EndpointError("no AWS credentials were found; choose a profile, or log in")
            frozen = credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise EndpointError(f"the AWS credentials cannot be used: {error}") from error
        return Credentials(str(frozen.access_key), str(frozen.secret_key), frozen.token)

    def _region(self) -> str:
        if region := self._session.region_name:
            return region
        labels = (urlsplit(self.api_url).hostname or "").split(".")
        if len(labels) > 3 and labels[1] == _SERVICE:
            return labels[2]
        raise EndpointError("no AWS region is set; choose a profile that has one, or set AWS_REGION")

    def _discovered_url(self) -> str:
        try:
            parameter = self._session.client("ssm").get_parameter(Name=API_URL_PARAMETER)
        except (BotoCoreError, ClientError) as error:
            raise EndpointError(
                f"the registry's address is not known: {API_URL_VARIABLE} is not set, and the SSM parameter "
                f"{API_URL_PARAMETER} cannot be read: {error}"
            ) from error
        return str(parameter["Parameter"].get("Value", ""))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _version(model: str, number: int) -> str:
    return f"/v1/models/{_part(model)}/versions/{number}"


def _part(text: str) -> str:
    return quote(text, safe="")


def _rows(body: Any, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = body[name]
    return rows


def _json(answer: AWSResponse) -> Any:
    try:
        return json.loads(answer.content)
    except ValueError:
        # A proxy on the way answers in HTML; what counts then is the status.
        return None


def _pause(answer: AWSResponse) -> float:
    text = str(answer.headers.get("Retry-After", ""))
    return min(float(text), _LONGEST_PAUSE) if text.isdigit() else _DEFAULT_PAUSE
