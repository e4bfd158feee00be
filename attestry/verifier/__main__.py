"""`attestry-verify`: verify evidence offline, without credentials.

Exit codes: 0 PROVEN, 3 SIGNED-UNANCHORED, 4 INCOMPLETE, 5 BROKEN, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from attestry.verifier.command import (
    EXIT_CODES,
    USAGE,
    UnreadableError,
    told_as_json,
    told_as_text,
    verify_bundle_file,
    verify_prediction_files,
    verify_row_file,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if [given.bundle, given.prediction, given.row].count(None) != 2:
        parser.error("give either a bundle, or --row, or --prediction and --delegation")
    if given.prediction is not None and given.delegation is None:
        parser.error("--prediction needs --delegation")
    try:
        if given.bundle is not None:
            verification = verify_bundle_file(given.bundle, root=given.root, files=given.files)
        elif given.row is not None:
            verification = verify_row_file(given.row, root=given.root, given=given.input)
        else:
            verification = verify_prediction_files(
                given.prediction,
                given.delegation,
                root=given.root,
                metadata=given.metadata,
                request=given.request,
                salt=given.salt,
                output=given.output,
            )
    except UnreadableError as error:
        sys.stderr.write(f"attestry-verify: {error.problems[0].field} {error.problems[0].message}\n")
        return USAGE
    sys.stdout.write((told_as_json(verification) if given.json else told_as_text(verification)) + "\n")
    return EXIT_CODES[verification.verdict]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attestry-verify",
        description="Verify the evidence of a prediction, a model version or a row of a scored file, offline and without credentials.",
        epilog="Exit codes: 0 PROVEN, 3 SIGNED-UNANCHORED, 4 INCOMPLETE, 5 BROKEN, 2 wrong usage.",
    )
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE.zip", help="a bundle")
    parser.add_argument("--root", type=Path, metavar="ROOT.json", help="the registry's TUF root that you pinned, got on a way of your own")
    parser.add_argument("--files", type=Path, metavar="DIR", help="hash a downloaded frozen/ folder against the version digest as well")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    row = parser.add_argument_group("a row of a scored file")
    row.add_argument("--row", type=Path, metavar="PROOF.json", help="the row's proof")
    row.add_argument("--input", type=Path, metavar="FILE", help="the input file, to check the row's line as well")
    alone = parser.add_argument_group("a receipt without a bundle (SIGNED-UNANCHORED at best)")
    alone.add_argument("--prediction", metavar="RECEIPT", help="the receipt, or the file that holds it")
    alone.add_argument("--delegation", metavar="DELEGATION", help="the delegation of its key, or the file that holds it")
    alone.add_argument("--metadata", type=Path, metavar="DIR", help="the registry's other TUF files: root/ of one of its bundles")
    alone.add_argument("--request", type=Path, metavar="FILE", help="the request's bytes, to check against the receipt")
    alone.add_argument("--salt", metavar="HEX", help="the answer's request_salt, needed for --request")
    alone.add_argument("--output", type=Path, metavar="FILE", help="the output's bytes")
    return parser


def run() -> None:
    """Run as a console script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
