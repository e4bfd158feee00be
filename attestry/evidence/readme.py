"""README.md of a bundle: the exact commands that check each part without anything of ours.

It follows from the bundle's files and from nothing else, as the report does. A key is named by its fingerprint: a trusted root lists the
keys of years, and the commands take the one that was valid for what they verify.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attestry.evidence.bundle import BundleIndex
from attestry.evidence.readme_keys import NamedKeys, name_keys

_HEAD: Final = """\
# Evidence bundle: {subject}

`REPORT.md` retells what is in here. `bundle.json` lists every file with its SHA-256.

With the verifier (Python 3.11 or newer, offline, no credentials, nothing of AWS):

    pip install attestry_verifier-VERSION-py3-none-any.whl
    attestry-verify BUNDLE.zip --root ROOT.json

The verifier is on no package index: `make verifier` in the registry's sources builds the wheel, which its operator hands out.

`ROOT.json` is the registry's TUF root as you got it on a way of your own: on paper, from a contract, from an earlier audit. Never take
it out of a bundle: anybody can make a bundle with a root of their own. Exit codes: 0 PROVEN, 3 SIGNED-UNANCHORED, 4 INCOMPLETE, 5 BROKEN.

What follows checks each part with tools that are not ours. Unpack the bundle and run the commands in its folder.
"""

_ROOT: Final = """\
## The keys: TUF

`root/` holds TUF metadata (theupdateframework.io). `pip install tuf securesystemslib cryptography`, then, with your ROOT.json:

    python - ROOT.json <<'EOF'
    import glob, sys
    from pathlib import Path
    from tuf.api.metadata import Metadata, Root
    root = Metadata.from_file(sys.argv[1])
    root.verify_delegate("root", root)
    while Path(f"root/{root.signed.version + 1}.root.json").exists():
        new = Metadata.from_file(f"root/{root.signed.version + 1}.root.json")
        root.verify_delegate("root", new); new.verify_delegate("root", new)
        root = new
    timestamp = Metadata.from_file("root/timestamp.json"); root.verify_delegate("timestamp", timestamp)
    number = timestamp.signed.snapshot_meta.version
    timestamp.signed.snapshot_meta.verify_length_and_hashes(Path(f"root/{number}.snapshot.json").read_bytes())
    snapshot = Metadata.from_file(f"root/{number}.snapshot.json"); root.verify_delegate("snapshot", snapshot)
    meta = snapshot.signed.meta["targets.json"]
    meta.verify_length_and_hashes(Path(f"root/{meta.version}.targets.json").read_bytes())
    targets = Metadata.from_file(f"root/{meta.version}.targets.json"); root.verify_delegate("targets", targets)
    targets.signed.targets["trusted_root.json"].verify_length_and_hashes(Path("root/trusted_root.json").read_bytes())
    print("trusted_root.json is what the root's keys signed")
    EOF

`root/trusted_root.json` lists each key with its `validFor`. This writes them as PEM files, named by SHA-256 of the DER, into `keys/`. The
commands below name the keys that were valid at the ledger time of what they verify:

| what | key | |
|---|---|---|
{keys}

    python - <<'EOF'
    import base64, hashlib, json
    from pathlib import Path
    Path("keys").mkdir(exist_ok=True)
    trusted = json.load(open("root/trusted_root.json"))
    for use in ("tlogs", "witnesses", "delegators", "signers", "artifactSigners"):
        for entry in trusted.get(use, []):
            raw = entry["publicKey"]["rawBytes"]
            pem = "-----BEGIN PUBLIC KEY-----\\n" + raw + "\\n-----END PUBLIC KEY-----\\n"
            Path("keys", hashlib.sha256(base64.b64decode(raw)).hexdigest() + ".pem").write_text(pem)
    EOF
"""

_LEDGER: Final = """\
## The ledger: openssl, or Go's own transparency-log packages

`ledger/checkpoint` is a signed note (c2sp.org/signed-note, c2sp.org/tlog-checkpoint). Its signature, with openssl:

    python - <<'EOF'
    import base64
    text, _, lines = open("ledger/checkpoint", newline="").read().rpartition("\\n\\n")
    origin = text.split("\\n")[0]
    line = next(l for l in lines.splitlines() if l.startswith("\\u2014 " + origin + " "))
    open("checkpoint.txt", "w", newline="").write(text + "\\n")
    open("checkpoint.sig", "wb").write(base64.b64decode(line.rsplit(" ", 1)[1])[4:])
    EOF
    openssl pkeyutl -verify -pubin -inkey keys/{ledger}.pem -rawin -in checkpoint.txt -sigfile checkpoint.sig

Each leaf in `ledger/leaves/` is in the tree (RFC 6962); `ledger/proofs.json` holds the audit paths. In Go, with the packages that the Go
command itself uses for its checksum database:

    go mod init check && go get golang.org/x/mod && cat > main.go <<'EOF'
    package main

    import (
        "encoding/hex"; "encoding/json"; "fmt"; "log"; "os"; "strconv"
        "golang.org/x/mod/sumdb/note"; "golang.org/x/mod/sumdb/tlog"
    )

    func main() {
        raw, _ := os.ReadFile("ledger/checkpoint")
        key, err := note.NewVerifier(os.Args[1]) // the ledger's vkey: NAME+ID+KEY
        if err != nil { log.Fatal(err) }
        opened, err := note.Open(raw, note.VerifierList(key))
        if err != nil { log.Fatal(err) }
        var size int64; var origin, root string
        fmt.Sscanf(opened.Text, "%s\\n%d\\n%s\\n", &origin, &size, &root)
        hash, _ := tlog.ParseHash(root)
        var proofs struct{ Proofs map[string][]string }
        data, _ := os.ReadFile("ledger/proofs.json")
        json.Unmarshal(data, &proofs)
        for index, path := range proofs.Proofs {
            n, _ := strconv.ParseInt(index, 10, 64)
            leaf, _ := os.ReadFile(fmt.Sprintf("ledger/leaves/%012d.json", n))
            var proof tlog.RecordProof
            for _, text := range path {
                bytes, _ := hex.DecodeString(text)
                var h tlog.Hash; copy(h[:], bytes); proof = append(proof, h)
            }
            if err := tlog.CheckRecord(proof, size, hash, n, tlog.RecordHash(leaf)); err != nil { log.Fatal(index, err) }
        }
        fmt.Println(len(proofs.Proofs), "leaves are in the tree of", size)
    }
    EOF
    go run . "$(python - <<'EOF'
    import base64, hashlib, json
    der = lambda entry: base64.b64decode(entry["publicKey"]["rawBytes"])
    tlogs = json.load(open("root/trusted_root.json"))["tlogs"]
    entry = next(e for e in tlogs if hashlib.sha256(der(e)).hexdigest() == "{ledger}")
    key = b"\\x01" + der(entry)[-32:]
    name = entry["baseUrl"]
    print(f"{name}+{hashlib.sha256(name.encode() + bytes([10]) + key).hexdigest()[:8]}+{base64.b64encode(key).decode()}")
    EOF
    )"
"""

_ATTESTATIONS: Final = """\
## The attestations: securesystemslib, cosign or any DSSE library

Each file in `attestations/` is a DSSE envelope over an in-toto statement; an event in the ledger names it by its SHA-256, its file name.

    python - <<'EOF'
    import glob, hashlib, json
    from pathlib import Path
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey
    for name in sorted(glob.glob("attestations/*.json")):
        body = json.load(open(name))
        assert hashlib.sha256(Path(name).read_bytes()).hexdigest() == Path(name).stem
        keyid = body["signatures"][0]["keyid"]
        key = SSlibKey(keyid, "ecdsa", "ecdsa-sha2-nistp256", {"public": Path("keys", keyid + ".pem").read_text()})
        envelope = Envelope.from_dict(body)
        envelope.verify([key], 1)
        statement = json.loads(envelope.payload)
        print("verified", statement["predicateType"], statement["subject"][0]["name"])
    EOF

Which function a key belongs to, and from when to when, is in `root/trusted_root.json` under `signers`; the time to compare with is
`logged` of the leaf whose event names the attestation.
"""

_ARTIFACT: Final = """\
## The artifact: sha256sum and model_signing

The version digest is the SHA-256 of `version/artifact-manifest.json`, which lists every file of the version:

    sha256sum version/artifact-manifest.json

The files of the version, downloaded as the folder `frozen/`, are signed by OpenSSF Model Signing (`pip install model-signing`):

    model_signing verify key frozen/ --signature version/model.sig --public_key keys/{artifact}.pem --no-ignore-git-paths

or, hashing each file against the artifact manifest: `attestry-verify BUNDLE.zip --root ROOT.json --files frozen/`.
"""

_SIGNATURES: Final = """\
## The approvers' own signatures: ssh-keygen

A signature in `signatures/` is the person's own, over the SHA-256 of `version/packet.json` and a line feed. With the person's public key,
which you should have from the person:

    echo "PERSON $(cat PERSON.pub)" > allowed_signers
    sha256sum version/packet.json | cut -c1-64 > packet.sha256
    ssh-keygen -Y verify -f allowed_signers -I PERSON -n attestry-approval -s signatures/PERSON.sig < packet.sha256

The key that was used can be read from the signature: `ssh-keygen -Y check-novalidate -n attestry-approval -s signatures/PERSON.sig`.
"""

_POLICIES: Final = """\
## The registry's policies: sha256sum

`policies/NAME#NUMBER.json` is an edition of a policy of the registry that the version was held against. The version's first event names
each with its SHA-256, and so does the event `policy.published` that put it in force:

    sha256sum policies/*.json
    python - <<'EOF'
    import glob, json
    for name in sorted(glob.glob("ledger/leaves/*.json")):
        leaf = json.load(open(name))
        event = leaf["event"]
        if event["kind"] in ("candidate.registered", "version.imported", "policy.published"):
            print(leaf["logged"], event["kind"], event["subject"], event["data"].get("policies") or event["data"].get("sha256"))
    EOF
"""

_PREDICTION: Final = """\
## The prediction: any JOSE library, or openssl

`prediction/delegation.jwt` is an ES256 JWT by a delegator key; `prediction/receipt.jws` an Ed25519 JWS by the key in its `cnf.jwk`.
With npm `jose` (`npm install jose`, Node 20 or newer), saved as `check.mjs`:

    import { readFileSync } from "node:fs";
    import { createHash } from "node:crypto";
    import { importSPKI, importJWK, jwtVerify, compactVerify } from "jose";
    const token = readFileSync("prediction/delegation.jwt", "utf8"), receipt = readFileSync("prediction/receipt.jws", "utf8");
    const key = await importSPKI(readFileSync("keys/{delegator}.pem", "utf8"), "ES256");
    const at = JSON.parse(Buffer.from(token.split(".")[1], "base64url")).iat;
    const { payload } = await jwtVerify(token, key, { algorithms: ["ES256"], typ: "predkey+jwt", currentDate: new Date(at * 1000) });
    const signed = await compactVerify(receipt, await importJWK(payload.cnf.jwk, "Ed25519"), { algorithms: ["Ed25519"] });
    console.log(payload.sub, JSON.parse(new TextDecoder().decode(signed.payload)));
    console.log("sha256 of the delegation, which the event key.delegated names:", createHash("sha256").update(token).digest("hex"));

With openssl alone:

    python - <<'EOF'
    import base64, json
    part = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    receipt, token = (open(f"prediction/{n}").read() for n in ("receipt.jws", "delegation.jwt"))
    open("receipt.txt", "w").write(receipt.rpartition(".")[0])
    open("receipt.sig", "wb").write(part(receipt.rpartition(".")[2]))
    open("delegation.txt", "w").write(token.rpartition(".")[0])
    raw = part(token.rpartition(".")[2])
    numbers = [half.lstrip(b"\\0") for half in (raw[:32], raw[32:])]
    body = b"".join(b"\\2" + bytes([len(n)]) + n for n in (b"\\0" * (n[0] >> 7) + n for n in numbers))
    open("delegation.sig", "wb").write(b"\\x30" + bytes([len(body)]) + body)
    x = part(json.loads(part(token.split(".")[1]))["cnf"]["jwk"]["x"])
    open("receipt.der", "wb").write(bytes.fromhex("302a300506032b6570032100") + x)
    EOF
    openssl pkeyutl -verify -pubin -keyform DER -inkey receipt.der -rawin -in receipt.txt -sigfile receipt.sig
    openssl dgst -sha256 -verify keys/{delegator}.pem -signature delegation.sig delegation.txt

`prediction/proof.json` leads from the receipt (as a leaf of RFC 6962: SHA-256 of a zero byte and the text) to the `root` in the event
`key.sealed`.
"""

_AUDIT: Final = """\
## The audited acts: sha256sum

The one leaf in `ledger/leaves/` is the event `audit.batch`; its `event.data.sha256` is the SHA-256 of the acts, a line each:

    sha256sum audit/batch.jsonl
    python -c "import glob, json; print(json.load(open(glob.glob('ledger/leaves/*.json')[0]))['event']['data'])"
"""


def render_readme(index: BundleIndex, files: Mapping[str, bytes]) -> str:
    """Return README.md.

    Args:
        index: what the bundle is.
        files: its files; README.md and REPORT.md are not looked at.
    """
    keys = name_keys(files)
    sections = [_HEAD.format(subject=index.subject), _ROOT.replace("{keys}", _listed(index, files, keys)), _LEDGER]
    if index.kind == "audit":
        return _named([*sections, _AUDIT], keys)
    sections.append(_ATTESTATIONS)
    if "version/artifact-manifest.json" in files:
        sections.append(_ARTIFACT)
    if any(name.startswith("signatures/") for name in files):
        sections.append(_SIGNATURES)
    if any(name.startswith("policies/") for name in files):
        sections.append(_POLICIES)
    if index.kind == "prediction":
        sections.append(_PREDICTION)
    return _named(sections, keys)


def _listed(index: BundleIndex, files: Mapping[str, bytes], keys: NamedKeys) -> str:
    """Return a row for each key that a command of this bundle names."""
    rows = [("`ledger/checkpoint`", keys.ledger)]
    if "version/model.sig" in files:
        rows.append(("`version/model.sig`", keys.artifact))
    if index.kind == "prediction":
        rows.append(("`prediction/delegation.jwt`", keys.delegator))
    return "\n".join(f"| {what} | `keys/{named.fingerprint}.pem` | {named.window} |" for what, named in rows)


def _named(sections: Sequence[str], keys: NamedKeys) -> str:
    """Return the sections with the keys put in; not by `str.format`, since the commands are full of braces."""
    text = "\n".join(sections)
    for place, named in (("{ledger}", keys.ledger), ("{delegator}", keys.delegator), ("{artifact}", keys.artifact)):
        text = text.replace(place, named.fingerprint)
    return text
