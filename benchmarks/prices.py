"""What AWS charges: list prices as they are assumed for November 2026, region us-east-1, in US dollars, without free tiers and discounts.

They are an assumption with a date, not fetched: the pages that list them are named beside them. Look there before a budget rests on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ASSUMED: Final = "2026-11"
REGION: Final = "us-east-1"
MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Price:
    """A price.

    Attributes:
        what: what is paid for.
        dollars: for one of it.
        page: title of the page that lists it.
    """

    what: str
    dollars: float
    page: str


PRICES: Final[Mapping[str, Price]] = {
    "api_requests": Price("requests of the HTTP API", 1.00 / MILLION, "Amazon API Gateway pricing"),
    "invocations": Price("invocations of functions", 0.20 / MILLION, "AWS Lambda pricing"),
    "gb_seconds": Price("GB-seconds of functions, Arm", 0.0000133334, "AWS Lambda pricing"),
    "read_units": Price("read units, on demand", 0.125 / MILLION, "Amazon DynamoDB pricing, on-demand capacity"),
    "write_units": Price("write units, on demand", 0.625 / MILLION, "Amazon DynamoDB pricing, on-demand capacity"),
    "puts": Price("S3 PUT and LIST", 0.005 / 1000, "Amazon S3 pricing, requests"),
    "gets": Price("S3 GET and HEAD", 0.0004 / 1000, "Amazon S3 pricing, requests"),
    "signatures": Price("KMS signatures, ECC", 0.15 / 10_000, "AWS Key Management Service pricing"),
    "state_changes": Price("state transitions, standard workflow", 0.025 / 1000, "AWS Step Functions pricing"),
    "row_gb_months": Price("GB-months of rows", 0.25, "Amazon DynamoDB pricing, storage"),
    "object_gb_months": Price("GB-months of objects, Standard", 0.023, "Amazon S3 pricing, storage"),
}

KEY_MONTH: Final = Price("a month of one KMS key", 1.00, "AWS Key Management Service pricing")
