"""The form of the API in force: answers as they are described, entity tags and idempotency keys through the gateway and the table."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case

from attestry.api.openapi import document
from attestry.api.operation import Operation
from attestry.api.operations import OPERATIONS
from attestry.local.settings import REGION
from tests.embedded.flows import Answer, Registry, example_rows
from tests.fuzzing import description, kinds_of
from tests.unit.test_api_answers import READ, check

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

REQUESTS = int(os.environ.get("ATTESTRY_FUZZ_REQUESTS", "1000"))
"""How many requests each operation is sent."""

CLIENTS = 4
"""So many are under way at once."""

SLOW = 32
"""So many requests come slowly at once."""

PROFILE = {
    "scientist": "dana",
    "approver": "erin",
    "validator": "erin",
    "deployer": "frank",
    "consumer": "frank-consumer",
    "auditor": "grace",
    "admin": "admin",
}


def profile_of(operation: Operation) -> str:
    """Somebody who may call the operation."""
    roles = operation.roles
    return "grace" if "auditor" in roles else PROFILE[next((role for role in roles if role != "validator"), "validator")]


def test_every_read_answers_as_it_is_described(registry: Registry, deployed: tuple[str, int]) -> None:
    model, number = deployed
    made = registry.client("frank-consumer").predict(model, example_rows()[:1])
    manifest = {"name": "manifest.json", "size": 2, "sha256": "0" * 64}
    submission = registry.call("dana", "POST", "/v1/uploads", {"files": [manifest]}).body["submission"]
    values = {"model": model, "number": str(number), "id": made["prediction_id"], "submission": submission, "policy": "none"}
    for operation in OPERATIONS:
        if operation.method != "GET" or any(name not in values for name in operation.path_parameters):
            continue
        profile = "dana" if operation.id == "submissions.read" else profile_of(operation)
        for query in READ.get(operation.id, ("",)):
            answer = registry.call(profile, "GET", operation.path.format(**values) + query.format(**values).replace("@", "%40"))
            if answer.status == 404 and operation.id in ("policies.read", "audit.read", "root.read"):
                # Nobody has made one yet; that the answer is an error of the described form, the next test says.
                continue
            check(operation, answer)


def test_an_error_is_problem_details_through_the_gateway(registry: Registry) -> None:
    answer = registry.call("grace", "GET", "/v1/models/no-such-model")
    assert (answer.status, answer.headers["content-type"], answer.body["code"]) == (404, "application/problem+json", "not_found")
    assert answer.body["instance"] == f"urn:attestry:request:{answer.headers['x-request-id']}"


def test_the_served_document_is_the_kept_one(registry: Registry) -> None:
    assert registry.call("frank-consumer", "GET", "/v1/openapi.json").body == document()


def test_pages_lead_through_a_list(registry: Registry, deployed: tuple[str, int]) -> None:
    whole = registry.call("admin", "GET", "/v1/people").body["people"]
    rows, cursor = [], ""
    while cursor is not None:
        page = registry.call("admin", "GET", f"/v1/people?limit=4{cursor and '&cursor='}{cursor}").body
        rows, cursor = rows + page["people"], page["next"]
        assert len(page["people"]) <= 4
    assert rows == whole
    assert len(whole) > 4
    assert registry.call("admin", "GET", "/v1/people?limit=1&limit=2").body["rule"] == "once"


@pytest.fixture(scope="session")
def fuzzed(registry: Registry) -> tuple[str, int]:
    """A deployed version that requests may do anything to."""
    model, number = registry.made(registry.small_project(model="fuzzed"))
    registry.approve(model, number)
    return model, number


def test_an_act_is_conditional_on_what_was_read_and_done_once(registry: Registry, fuzzed: tuple[str, int]) -> None:
    model, number = fuzzed
    path = f"/v1/models/{model}/versions/{number}"
    shown = registry.call("frank", "GET", path)
    assert registry.call("frank", "GET", path, headers={"If-None-Match": shown.headers["etag"]}).status == 304

    def hold(act: str, **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return registry.call("frank", "POST", f"{path}/{act}", {"reason": "a doubt"}, names)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: hold("hold", Idempotency_Key=f"k-{model}", If_Match=shown.headers["etag"]), range(4)))
    assert {a.status for a in answers} <= {200, 409}
    done = [a for a in answers if a.status == 200]
    assert len({a.raw for a in done}) == 1
    assert registry.kinds(model, number).count("version.held") == 1
    assert hold("release", If_Match=shown.headers["etag"]).code == "precondition_failed"
    assert hold("release").status == 200
    again = hold("hold", Idempotency_Key=f"k-{model}", If_Match=shown.headers["etag"])
    assert (again.status, again.raw, again.headers["idempotency-replayed"]) == (200, done[0].raw, "true")
    assert not registry.head(model, number).held


class Gateway:
    """The embedded API as a WSGI application: it signs what comes, and sends it on."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = str(environ.get("REQUEST_URI") or quote(environ["PATH_INFO"])).partition("?")[0]
        # Written as a signature is computed over it, or the gateway refuses it before anything of ours sees it.
        query = urlencode(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True), safe="", quote_via=quote)
        target = f"{path}?{query}" if query else path
        heeded = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_IDEMPOTENCY_KEY")
        headers = {name[5:].replace("_", "-"): environ[name] for name in heeded if str(environ.get(name, "")).isascii() and name in environ}
        headers = {name: value for name, value in headers.items() if value.isprintable()}
        sent = self._registry.call(environ["HTTP_X_WHO"], environ["REQUEST_METHOD"], target, environ["wsgi.input"].read(), headers)
        told = [(name, value) for name, value in sent.headers.items() if name in ("content-type", "retry-after")]
        start_response(f"{sent.status} {HTTPStatus(sent.status).phrase}", told)
        return [sent.raw]


@pytest.mark.long
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)
def test_no_request_fails_the_registry(
    registry: Registry,
    deployed: tuple[str, int],
    fuzzed: tuple[str, int],
    operation: Operation,
    record_property: Callable[[str, object], None],
) -> None:
    """Several at once, as clients come; `--junitxml` keeps how many were answered how. An operation without input has one request."""
    model, number = deployed if operation.method == "GET" else fuzzed
    known = {"model": model, "number": str(number)}
    schema = description(Gateway(registry))
    profile, kinds = profile_of(operation), kinds_of(operation)
    registry.session(profile).get_credentials()  # found once before several ask: the SDK's search is not for threads
    answers = Counter[int]()
    failed: list[str] = []
    with ThreadPoolExecutor(CLIENTS) as clients:
        under_way = deque[Future[tuple[int, str]]]()

        def take() -> None:
            status, told = under_way.popleft().result()
            answers[status] += 1
            if status == HTTPStatus.ACCEPTED:
                stop_pipelines(registry, fuzzed[0])
            if told:
                failed.append(told)

        for kind in kinds:

            @settings(max_examples=REQUESTS // len(kinds), deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=schema[operation.path][operation.method].as_strategy(generation_mode=kind), there=st.booleans())
            def ask(case: Case, there: bool) -> None:
                if there:
                    case.path_parameters.update({name: value for name, value in known.items() if name in operation.path_parameters})
                case.headers["x-who"] = profile
                under_way.append(clients.submit(answer_to, case))
                if len(under_way) > 2 * CLIENTS:
                    take()

            ask()
        while under_way:
            take()
    record_property("answers", dict(sorted(answers.items())))
    assert failed == []


def stop_pipelines(registry: Registry, model: str) -> None:
    """End what requests have begun, which would keep the machine busy for an hour: dozens of versions, each with all its stages."""
    states, machine = registry.aws("stepfunctions"), registry.stack.outputs["PipelineArn"]
    for execution in states.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]:
        if execution["name"].startswith(f"{model}-"):
            states.stop_execution(executionArn=execution["executionArn"])


def answer_to(case: Case) -> tuple[int, str]:
    """Send a request, and return the status of the answer, 0 without one, and of a failure of ours what was asked and answered."""
    try:
        answer = case.call()
    except (OSError, HTTPException) as error:
        return 0, f"{case.as_curl_command()}: {error!r}"
    # A registry that is busy says so, and when to come again.
    if answer.status_code < 500 or (answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and "retry-after" in answer.headers):
        return answer.status_code, ""
    return answer.status_code, f"{case.as_curl_command()}: {answer.status_code} {answer.text}"


def test_a_body_that_comes_slowly_holds_nobody_up_and_does_nothing_before_it_is_whole(
    registry: Registry, deployed: tuple[str, int]
) -> None:
    """On AWS the gateway collects the body; the embedded one has to as well."""
    model, number = deployed
    path = f"/v1/models/{model}/versions/{number}/annotations"
    text = f"slowly {uuid.uuid4().hex}"
    body = json.dumps({"text": text}).encode()
    with ExitStack() as open_ones:
        senders = [open_ones.enter_context(_begun(registry, path, body)) for _ in range(SLOW)]
        for sent in range(1, 4):
            for sender in senders:
                sender.sendall(body[sent : sent + 1])
            assert registry.call("grace", "GET", f"/v1/models/{model}").status == 200
        assert text not in _remarks(registry, model, number)
        senders[0].sendall(body[4:])
        assert senders[0].recv(65536).startswith(b"HTTP/1.1 20")
    assert _remarks(registry, model, number).count(text) == 1


def _remarks(registry: Registry, model: str, number: int) -> list[str]:
    return [row["text"] for row in registry.client("grace").annotations(model, number)]


def _begun(registry: Registry, path: str, body: bytes) -> socket.socket:
    """A request whose headers are sent, and of its body the first byte."""
    request = AWSRequest("POST", registry.stack.api_url + path, data=body, headers={"Content-Type": "application/json"})
    credentials = registry.session("dana").get_credentials()
    assert credentials is not None
    SigV4Auth(credentials.get_frozen_credentials(), "execute-api", REGION).add_auth(request)
    url = urlsplit(str(request.url))
    lines = [f"POST {url.path} HTTP/1.1", f"Host: {url.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name.lower() not in ("host", "content-length")]
    sender = socket.create_connection((str(url.hostname), int(url.port or 80)), timeout=60)
    sender.sendall("\r\n".join([*lines, "", ""]).encode() + body[:1])
    return sender
