"""What the registry costs: for a million predictions, and for a thousand governance events.

Calls are counted while the real use cases work over ports in memory (`benchmarks.metering`), then scaled and priced by a table of list
prices with a date (`benchmarks.prices`). What is not counted but assumed stands in `ASSUMED` and is printed. Not in it: training,
processing and evaluation, whose price is that of the user's own computing; building environments; logs; transfer; retries; what runs by the
clock and finds nothing to do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from attestry.usecases.collect import Collector
from attestry.usecases.predict import Predictor
from attestry.usecases.sequence import Sequencer
from attestry.usecases.sign import FunctionDelegator, SigningKeys
from benchmarks.metering import Meter
from benchmarks.prices import ASSUMED as PRICES_OF
from benchmarks.prices import KEY_MONTH, PRICES, REGION
from benchmarks.result import Cell, Result, Table

# The registries in memory belong to the tests, which are not written for the strict checks of this package.
flow: Any = importlib.import_module("tests.flow")
fakes: Any = importlib.import_module("tests.fakes")
ledgers: Any = importlib.import_module("tests.unit.ledger_world")
evidence: Any = importlib.import_module("tests.evidence_world")

MILLION, THOUSAND = 1_000_000, 1_000
MINUTES_OF_A_DAY = 1_440
PROCESSES = 4
PER_MINUTE = 174
"""Predictions of one process in a minute: four processes make a million in a day."""

KEYS_OF_A_DAY = PROCESSES * 32
"""Each process changes its key every 45 minutes."""

ASSUMED: Mapping[str, float] = {
    "predict: seconds at 1 GB": 0.06,
    "inference: seconds at 2 GB": 0.05,
    "collect, sequence: seconds at 1 GB": 1.0,
    "delegate, witness: seconds at 0.5 GB": 0.1,
    "a version's functions, sandbox and evaluation left out: how many": 24,
    "a version's functions: seconds at 1 GB": 1.0,
    "a version's requests of the API": 12,
    "a version's state transitions": 26,
    "months that rows and objects are kept": 1,
}

Usage = Mapping[str, float]


def run() -> Result:
    """Count and price."""
    predictions, parts = _predictions()
    events, count = _governance()
    tables = (
        _table(f"A million predictions in a day, {PROCESSES} serving processes, every payload captured", predictions),
        _table(f"A thousand governance events (a version from upload to deployment has {count})", events),
        _parts(parts),
        _assumptions(),
    )
    facts = {"predictions": dict(predictions), "governance": dict(events), "parts": {name: dict(used) for name, used in parts.items()}}
    return Result("cost", tables, facts={**facts, "prices": {"assumed": PRICES_OF, "region": REGION}})


def _predictions() -> tuple[Usage, dict[str, Usage]]:
    """Let processes predict for a minute, collect and sequence; scale each part to a day of a million predictions."""
    serving, meter = flow.Serving(), Meter()
    made = serving.flow
    ledger_signer, witness_signer, witness_table = (
        fakes.LocalNoteSigner("ledger"),
        fakes.LocalNoteSigner("witness"),
        fakes.MemoryMetaStore(),
    )
    log_key = ledgers.Verifier.of(ledgers.ORIGIN, ledger_signer.public_key())
    witness = ledgers.Witness(witness_table, witness_signer, made.clock, ledgers.WITNESS, {ledgers.ORIGIN: [log_key]})
    witnesses = ledgers.DirectWitnesses(witness)
    sequencer = Sequencer(made.meta, made.store, ledger_signer, witnesses, made.clock, ledgers.ORIGIN)
    collector = Collector(made.meta, made.store, made.clock)
    sequencer.run()
    for table in (made.meta, witness_table):
        meter.watch_table(table)
    meter.watch_store(made.store)
    for signer in (serving.signer, ledger_signer, witness_signer):
        meter.watch_signer(signer)
    meter.watch_functions(made.functions)

    predictors = [_predictor(made) for _ in range(PROCESSES)]
    predict = _caller(serving)
    with meter.counting() as first:
        for predictor in predictors:
            predict(predictor)
    with meter.counting() as warm:
        for predictor in predictors:
            for _ in range(PER_MINUTE - 1):
                predict(predictor)
    with meter.counting() as collect:
        collector.collect()
    with meter.counting() as sequence:
        done = sequencer.run()
    if done.appended < 2 * PROCESSES:
        raise RuntimeError(f"delegations and seals of {PROCESSES} keys are missing in the ledger: {done}")

    one = _scaled(warm, 1 / (PROCESSES * (PER_MINUTE - 1)))
    one = _sum(one, {"api_requests": 1, "invocations": 1, "gb_seconds": _seconds("predict", 1) + _seconds("inference", 2)})
    key = _sum(_scaled(first, 1 / PROCESSES), {"gb_seconds": _seconds("delegate", 0.5)})
    minute = _sum(collect, {"invocations": 1, "gb_seconds": _seconds("collect", 1)})
    append = _sum(sequence, {"invocations": 2, "gb_seconds": _seconds("collect", 1) + _seconds("delegate", 0.5)})
    parts = {"a warm prediction": one, "a process's new key, with a prediction": key}
    parts |= {"a minute's collecting and sealing": minute, "its taking up into the ledger": append}
    whole = _sum(_scaled(one, MILLION), _scaled(key, KEYS_OF_A_DAY), _scaled(_sum(minute, append), MINUTES_OF_A_DAY))
    return whole, parts


def _predictor(made: Any) -> Predictor:
    keys = SigningKeys(FunctionDelegator(made.functions, "delegate"), made.clock)
    return Predictor(meta=made.meta, store=made.store, functions=made.functions, keys=keys, inference="inference", clock=lambda: 0.0)


def _caller(serving: Any) -> Callable[[Predictor], object]:
    body = b'{"instances": [{"a": 1.5, "b": 2.0}]}'
    return lambda predictor: predictor.predict(serving.version.model, "production", body, flow.CONSUMER)


def _governance() -> tuple[Usage, int]:
    """Take a version from upload to deployment, and its events one by one into the ledger."""
    world, meter = evidence.EvidenceWorld(), Meter()
    world.sequence()
    for table in (world.meta, world.witnesses.witness._meta):
        meter.watch_table(table)
    for store in (world.store, world.flow.scratch):
        meter.watch_store(store)
    for signer in (*world.flow.signers.values(), world.artifact_signer, world.ledger_signer, world.witness_signer):
        meter.watch_signer(signer)
    with meter.counting() as acts:
        world.deploy()
    waiting = {key: row for key, row in world.meta.rows.items() if key.partition == "OUTBOX"}
    count = len(waiting)
    with meter.counting() as appends:
        for key in waiting:
            world.meta.rows.pop(key)
        for key, row in sorted(waiting.items(), key=lambda item: item[0].sort):
            world.meta.rows[key] = row
            world.sequence()
    functions = ASSUMED["a version's functions, sandbox and evaluation left out: how many"]
    each = ASSUMED["a version's functions: seconds at 1 GB"]
    own = {
        "invocations": functions + 2 * count,
        "gb_seconds": functions * each + count * (_seconds("collect", 1) + _seconds("delegate", 0.5)),
        "api_requests": ASSUMED["a version's requests of the API"],
        "state_changes": ASSUMED["a version's state transitions"],
    }
    return _scaled(_sum(acts, appends, own), THOUSAND / count), count


def _seconds(function: str, gigabytes: float) -> float:
    return gigabytes * next(value for name, value in ASSUMED.items() if name.partition(":")[0].startswith(function))


def _scaled(used: Usage, by: float) -> Usage:
    return {name: value * by for name, value in used.items()}


def _sum(*parts: Usage) -> Usage:
    whole: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            whole[name] = whole.get(name, 0) + value
    return whole


def _billed(used: Usage) -> dict[str, float]:
    """Return what is paid for: bytes become gigabytes for as many months as they are assumed to be kept."""
    months = ASSUMED["months that rows and objects are kept"]
    kept = {f"{kind}_gb_months": used.get(f"{kind}_bytes", 0) / 1e9 * months for kind in ("row", "object")}
    return {**{name: value for name, value in used.items() if name in PRICES}, **kept}


def _table(title: str, used: Usage) -> Table:
    billed = _billed(used)
    rows: list[tuple[Cell, ...]] = [
        (price.what, round(billed[name], 3), round(billed[name] * price.dollars, 4)) for name, price in PRICES.items() if billed.get(name)
    ]
    rows.append(("together", None, round(sum(billed[name] * price.dollars for name, price in PRICES.items() if name in billed), 2)))
    notes = (
        f"List prices as assumed for {PRICES_OF}, {REGION}, without free tiers (benchmarks/prices.py).",
        f"Besides, each KMS key {KEY_MONTH.dollars:.0f} $ a month.",
    )
    return Table(title, ("what", "how many", "US $"), tuple(rows), notes)


def _parts(parts: Mapping[str, Usage]) -> Table:
    names = ("read_units", "write_units", "puts", "gets", "signatures", "invocations", "row_bytes", "object_bytes")
    rows: list[tuple[Cell, ...]] = [(name, *(round(used.get(n, 0), 2) for n in names)) for name, used in parts.items()]
    return Table("What a million predictions are made of", ("part", *(n.replace("_", " ") for n in names)), tuple(rows))


def _assumptions() -> Table:
    prices = tuple((price.what, f"{price.dollars:.10f}".rstrip("0"), price.page) for price in PRICES.values())
    assumed = tuple((name, value, "assumed, not measured") for name, value in ASSUMED.items())
    return Table("Prices and assumptions", ("of one", "US $, or as it says", "where from"), (*prices, *assumed))
