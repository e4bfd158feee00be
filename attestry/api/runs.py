"""Operations on development runs: what their makers say of them, which stays claimed."""

from __future__ import annotations

from attestry.api.operation import PAGE, Operation, Parameter, listed
from attestry.api.schema import MODEL, NUMBER, SHA256, TIME, Schema, asked, either, flag, many, mapping, maybe, one_of, text, told, whole

READS = ("scientist", "validator", "approver", "auditor", "admin")
LOGS = ("scientist",)
_PATH = "/v1/runs/{run}"
_RUN = text("32 hex digits, made by the client.", pattern="^[0-9a-f]{32}$")
_EXPERIMENT = text("What it belongs to, a name as models have one; who may read a model of that name may read the run.", least=1, most=250)
_STATE = one_of("RUNNING", "FINISHED", "FAILED", description="As its owner says.")
_TEXTS = mapping("Name to text.", text(most=8000))
_FILES = mapping("Name to digest and size, as claimed: the files stay where they are.", asked({"sha256": SHA256, "size": whole()}))
_VALUE = either([{"type": "number"}, one_of("NaN", "Infinity", "-Infinity")], "A double; as text what JSON has no number for.")
_STEP = maybe(whole("Which step of the run it belongs to.", least=None))
_CLAIMED_TIME = text("RFC 3339 in UTC, as claimed; empty where nobody says.")
_LAST = told({"value": _VALUE, "step": _STEP, "at": _CLAIMED_TIME})
_ENVIRONMENT = asked(
    {},
    {
        "python": maybe(text(most=250)),
        "platform": maybe(text(most=250)),
        "cpu_count": maybe(whole()),
        "packages": maybe(mapping("Name to version.", text(most=8000))),
    },
)
_SOURCE = asked({}, {"script": maybe(text(most=250)), "revision": maybe(text(most=250)), "changed": maybe(flag())})
_BRIEF: dict[str, Schema] = {
    "run": _RUN,
    "experiment": _EXPERIMENT,
    "owner": text("The person, or the login, who was authenticated."),
    "state": _STATE,
    "begun": _CLAIMED_TIME,
    "ended": _CLAIMED_TIME,
    "created": TIME,
    "closed": text("When the registry was told of the end, RFC 3339; empty before."),
    "points": whole("Points of all metrics."),
    "batches": whole(),
    "metrics": mapping("Metric to its last point; in a list, the first 20 by name.", _LAST),
}
_SHOWN = told(
    {
        **_BRIEF,
        "error": text(),
        "parameters": _TEXTS,
        "tags": _TEXTS,
        "environment": mapping("As claimed."),
        "source": mapping("As claimed."),
        "files": _FILES,
        "digests": told({"start": SHA256, "metrics": text(), "record": text("What the ledger keeps of its end; empty before.")}),
        "graded": one_of("claimed"),
        "rev": whole("Counts the changes.", least=1),
    }
)
_VERSIONS = many(told({"model": MODEL, "number": NUMBER}), "The first 100 that were imported from it, of those that the caller may read.")
_READ = {**_SHOWN, "properties": {**_SHOWN["properties"], "versions": _VERSIONS}, "required": [*_SHOWN["required"], "versions"]}
_POINT = asked({"name": text(least=1, most=250), "value": _VALUE}, {"step": _STEP, "at": maybe(text("RFC 3339 in UTC."))})

RUNS = (
    Operation(
        "runs.start",
        "POST",
        "/v1/runs",
        "Start a development run; who was authenticated owns it.",
        _SHOWN,
        roles=LOGS,
        body=asked(
            {"run": _RUN, "experiment": _EXPERIMENT},
            {
                "begun": maybe(text("RFC 3339 in UTC.")),
                "parameters": _TEXTS,
                "tags": _TEXTS,
                "environment": maybe(_ENVIRONMENT),
                "source": maybe(_SOURCE),
            },
        ),
        status=(200, 201),
        errors=(409,),
        note="The same start again, however much later, answers 200 with the run as it is.",
    ),
    Operation(
        "runs.list",
        "GET",
        "/v1/runs",
        "List the runs that the caller may read, the newest first.",
        listed("runs", told(_BRIEF)),
        roles=READS,
        query=(
            *PAGE,
            Parameter("experiment", text("Those of an experiment.", least=1)),
            Parameter("owner", text("Those of a person, or of a login without one.", least=1)),
            Parameter("state", _STATE),
        ),
        note="A page may be short and still have a next one, where many runs between are not the caller's to read.",
    ),
    Operation(
        "runs.read",
        "GET",
        _PATH,
        "Show a run, without its points, and the versions that were imported from it.",
        _READ,
        roles=READS,
        errors=(404,),
    ),
    Operation(
        "runs.change",
        "PATCH",
        _PATH,
        "Add parameters, tags or files to a run of one's own, or end it; a run that has ended changes no more.",
        _SHOWN,
        roles=LOGS,
        body=asked(
            {},
            {
                "parameters": _TEXTS,
                "tags": _TEXTS,
                "files": _FILES,
                "state": one_of("FINISHED", "FAILED"),
                "error": text("Why it failed; with `state`.", most=2000),
                "ended": maybe(text("RFC 3339 in UTC; with `state`.")),
            },
        ),
        errors=(404, 409),
        note="A parameter and a file have one value; tags are replaced. The same again changes nothing.",
    ),
    Operation(
        "runs.log",
        "POST",
        f"{_PATH}/metrics",
        "Add a batch of points to a run of one's own.",
        told({"run": _RUN, "batch": _RUN, "number": NUMBER, "points": whole("Of the run, by now."), "repeated": flag()}),
        roles=LOGS,
        body=asked(
            {"batch": _RUN, "points": many(_POINT, "In the order in which they were logged.", least=1, most=1000)},
            {"first": maybe(whole("How many points the run has before these; refused where it has not as many."))},
        ),
        errors=(404, 409),
        note="The points take at most 64 KB in canonical form. A batch that is sent again counts once, after the run's end too.",
    ),
    Operation(
        "runs.metrics",
        "GET",
        f"{_PATH}/metrics",
        "Show the points of one metric, in the order in which they were logged.",
        listed("points", told({"value": _VALUE, "step": _STEP, "at": _CLAIMED_TIME})),
        roles=READS,
        query=(*PAGE, Parameter("metric", text("The metric's name.", least=1), required=True)),
        errors=(404,),
    ),
)
