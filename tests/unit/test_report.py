"""The documents in a bundle: the report answers a lawyer's questions and says nothing else; the commands in README.md work."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attestry.evidence.bundle import read_bundle
from attestry.evidence.readme import render_readme
from attestry.evidence.report import plain, render_report
from tests.evidence_world import EvidenceWorld, rewrite
from tests.flow import GOOD
from tests.unit.test_verification import Made


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


@pytest.fixture(scope="module")
def report(made) -> str:
    return read_bundle(made.bundle).files["REPORT.md"].decode()


def section(report: str, title: str) -> str:
    return report.split(f"## {title}\n")[1].split("\n## ")[0]


class TestReport:
    def test_it_says_how_the_version_was_trained(self, report):
        told = section(report, "How it was trained")
        for fact in ("train.py", "SUCCEEDED", "lambda, 2048 MiB", "| C | 0.1 |", "| max\\_iter | 2000 |"):
            assert fact in told

    def test_it_says_on_what_data_and_whose_word_that_is(self, report):
        told = section(report, "On what data")
        assert "wisconsin-breast-cancer" in told
        assert "CC-BY-4.0" in told
        assert "by the word of who submitted" in told

    def test_it_says_with_what_code(self, report):
        told = section(report, "With what code")
        assert "https://git.example.com/models.git" in told
        assert "scikit-learn==" in told

    def test_it_says_by_which_rules_it_was_judged_and_that_they_came_first(self, report):
        told = section(report, "How it was judged")
        assert "fixed before the evaluation: they were logged at leaf 8" in told
        assert "the result at leaf 9" in told
        assert "| recall\\_score | minimum | 0.9 | 0.96 | passed |" in told

    def test_it_says_who_approved_and_how_that_is_recorded(self, report):
        told = section(report, "How it was approved")
        assert "asks for 1 of: approver; never who submitted" in told
        assert "| erin | approver | approve | gates and data reviewed |" in told
        assert "signed by person" in told

    def test_it_lists_every_move_with_its_place_in_the_ledger(self, report):
        rows = [line for line in section(report, "How it was promoted").splitlines() if re.match(r"\| \d+ \|", line)]
        assert [int(r.split("|")[1]) for r in rows] == list(range(1, 12))
        assert all("leaf" in r for r in rows)

    def test_it_says_what_it_does_not_show_and_that_it_is_no_evidence(self, report):
        assert "It is not evidence itself" in report
        assert "left out" in section(report, "What this does not show")

    def test_it_follows_from_the_files_alone(self, made):
        bundle = read_bundle(made.bundle)
        files = {n: b for n, b in bundle.files.items() if n not in ("README.md", "REPORT.md")}
        assert render_report(bundle.index, files).encode() == bundle.files["REPORT.md"]
        assert render_readme(bundle.index, files).encode() == bundle.files["README.md"]

    def test_a_rejected_an_unfinished_and_a_killed_version_have_one_too(self):
        world = EvidenceWorld()
        world.version = world.flow.register_example()
        world.sequence()
        assert "has not been opened" in read_bundle(world.version_bundle()).files["REPORT.md"].decode()
        world = EvidenceWorld()
        world.validate(metrics={**GOOD, "recall_score": 0.1})
        world.sequence()
        assert "| FAILED |" in read_bundle(world.version_bundle()).files["REPORT.md"].decode()
        world = EvidenceWorld()
        world.deploy()
        world.kill()
        world.sequence()
        assert "version.killed by alex" in read_bundle(world.version_bundle()).files["REPORT.md"].decode()

    def test_a_bundle_that_lacks_most_files_still_has_one(self, made):
        bundle = read_bundle(made.world.version_bundle())
        assert "In short" in render_report(bundle.index, {})
        assert rewrite(made.world.version_bundle(), {n: None for n in bundle.files if not n.startswith("root/")})

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a | b", "a \\| b"),
            ("one\n## Approved by everybody\n", "one \\#\\# Approved by everybody "),
            ("<script>", "\\<script\\>"),
            ("[x](http://y)", "\\[x\\](http://y)"),
            ("a\u202eb\u200bc\x1b[0m", "a b c \\[0m"),
            ("", "-"),
            (None, "-"),
            (["a", 1], '\\["a", 1\\]'),
        ],
    )
    def test_what_people_wrote_stays_in_its_place(self, text: Any, shown: str):
        assert plain(text) == shown


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    for name, body in read_bundle(made.bundle).files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
    (folder / "ROOT.json").write_bytes(made.world.pin)
    return folder


class TestCommands:
    """The commands of README.md, taken from it and run in the unpacked bundle."""

    def block(self, folder: Path, start: str, *, shell: str = "") -> subprocess.CompletedProcess[str]:
        """Run the indented block of README.md that begins with this line, and the lines that follow at once."""
        lines = (folder / "README.md").read_text().splitlines()
        first = next(i for i, line in enumerate(lines) if line.strip().startswith(start))
        last = next(i for i in range(first, len(lines) + 1) if i == len(lines) or not lines[i].startswith("    "))
        script = "\n".join(line[4:] for line in lines[first:last]).replace("python ", f"{sys.executable} ", 1) + shell
        return subprocess.run(["/bin/sh", "-c", script], cwd=folder, capture_output=True, text=True, check=False)

    def test_each_part_is_checked_by_the_commands_of_others(self, folder):
        done = self.block(folder, "python - ROOT.json")
        assert "trusted_root.json is what the root's keys signed" in done.stdout, done.stderr
        text = (folder / "README.md").read_text()
        keys = next(b for b in re.findall(r"    python - <<'EOF'\n.*?\n    EOF", text, re.S) if "mkdir" in b)
        dsse = next(b for b in re.findall(r"    python - <<'EOF'\n.*?\n    EOF", text, re.S) if "securesystemslib.dsse" in b)
        note = next(b for b in re.findall(r"    python - <<'EOF'\n.*?-sigfile checkpoint.sig", text, re.S) if "checkpoint.txt" in b)
        receipt = next(b for b in re.findall(r"    python - <<'EOF'\n.*?-sigfile receipt.sig", text, re.S) if "receipt.txt" in b)
        receipt = "    python - <<'EOF'" + receipt.rpartition("python - <<'EOF'")[2]
        note = "    python - <<'EOF'" + note.rpartition("python - <<'EOF'")[2]
        self.shell(folder, keys)
        assert self.shell(folder, dsse).stdout.count("verified") == 11
        for block in (note, receipt):
            if shutil.which("openssl"):
                assert "Verified Successfully" in self.shell(folder, block).stdout

    @pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
    def test_the_same_commands_refuse_what_was_changed(self, folder, tmp_path):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        checkpoint = copy / "ledger" / "checkpoint"
        checkpoint.write_text(checkpoint.read_text().replace("\n16\n", "\n17\n"))
        text = (copy / "README.md").read_text()
        for marker in ("mkdir", "checkpoint.txt"):
            block = next(b for b in re.findall(r"    python - <<'EOF'\n.*?\n    EOF\n(?:    openssl[^\n]*\n)?", text, re.S) if marker in b)
            done = self.shell(copy, "    python - <<'EOF'" + block.rpartition("python - <<'EOF'")[2], check=False)
        assert "Verified Successfully" not in done.stdout
        assert done.returncode != 0

    @pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
    def test_the_approvers_signature_is_checked_by_ssh_keygen(self, made, folder):
        (folder / "allowed_signers").write_text(f"erin {made.world.ssh.public}\n")
        lines = [line.strip() for line in (folder / "README.md").read_text().splitlines()]
        commands = [
            line.replace("PERSON", "erin") for line in lines if line.startswith(("sha256sum version/packet", "ssh-keygen -Y verify"))
        ]
        done = subprocess.run(["/bin/sh", "-ec", "\n".join(commands)], cwd=folder, capture_output=True, text=True, check=False)
        assert 'Good "attestry-approval" signature' in done.stdout, done.stderr

    def shell(self, folder: Path, block: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        script = "\n".join(line[4:] for line in block.splitlines()).replace("python -", f"{sys.executable} -")
        done = subprocess.run(["/bin/sh", "-ec", script], cwd=folder, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done
