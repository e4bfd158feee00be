// Verifies delegations, receipts and attestations with `jose` and `@sigstore/verify`.
//
// It reads a JSON array of cases from standard input and writes an array of the reasons why each does not hold: an empty text where it does.
//   {kind: "delegation", token, delegator, issuer, audience, at}
//   {kind: "receipt", token, delegation, delegator, issuer, audience, at}
//   {kind: "bundle", bundle, payloadType, hint, key}
// `delegator` is a public JWK, `at` a time in seconds, `bundle` a Sigstore bundle over a DSSE envelope, `hint` the only name of a key that
// is trusted, `key` that key in PEM.

import { createHash, createPublicKey } from "node:crypto";
import { bundleFromJSON } from "@sigstore/bundle";
import { toSignedEntity, toTrustMaterial, Verifier } from "@sigstore/verify";
import { calculateJwkThumbprint, compactVerify, importJWK, jwtVerify } from "jose";

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

function fail(reason) {
  throw new Error(reason);
}

async function verifyDelegation({ token, delegator, issuer, audience, at }) {
  const { payload, protectedHeader } = await jwtVerify(token, await importJWK(delegator, "ES256"), {
    algorithms: ["ES256"],
    typ: "predkey+jwt",
    issuer,
    audience,
    currentDate: new Date(at * 1000),
    requiredClaims: ["sub", "standing", "cnf", "iat", "nbf", "exp", "jti"],
  });
  if (protectedHeader.kid !== (await calculateJwkThumbprint(delegator))) fail("the delegation names another key");
  return payload;
}

function keyId(token) {
  let bits = "";
  for (const byte of createHash("sha256").update(token, "ascii").digest()) bits += byte.toString(2).padStart(8, "0");
  return bits.match(/.{1,5}/g).map((group) => BASE32[parseInt(group.padEnd(5, "0"), 2)]).join("");
}

async function verifyReceipt({ token, delegation, ...rest }) {
  const grant = await verifyDelegation({ token: delegation, ...rest });
  const key = await importJWK(grant.cnf.jwk, "Ed25519");
  const { payload, protectedHeader } = await compactVerify(token, key, { algorithms: ["Ed25519"] });
  const claims = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  const kid = keyId(delegation);
  if (protectedHeader.typ !== "prediction+jws") fail("the token is no receipt");
  if (protectedHeader.kid !== kid) fail("the receipt names another delegation");
  if (claims.prediction_id !== `${kid}-${claims.sequence}`) fail("the receipt names the prediction of another key");
  if (claims.version !== grant.sub) fail("the receipt speaks of another version");
  if (claims.time_ms < grant.nbf * 1000 || claims.time_ms >= grant.exp * 1000) fail("the receipt was signed outside the delegation's time");
}

function verifyBundle({ bundle, payloadType, hint, key }) {
  const found = bundleFromJSON(bundle);
  if (found.content.$case !== "dsseEnvelope") fail("the bundle holds no envelope");
  const none = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
  const trusted = toTrustMaterial(none, (name) =>
    name === hint ? { publicKey: createPublicKey(key), validFor: () => true } : fail("the bundle is signed by another key"),
  );
  // The registry's own ledger, not Sigstore's, says when: what is asked here is the signature alone.
  new Verifier(trusted, { ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 0 }).verify(toSignedEntity(found));
  if (found.content.dsseEnvelope.payloadType !== payloadType) fail("the payload is of another type");
}

const KINDS = { delegation: verifyDelegation, receipt: verifyReceipt, bundle: verifyBundle };

let input = "";
for await (const chunk of process.stdin.setEncoding("utf8")) input += chunk;
const reasons = [];
for (const { kind, ...given } of JSON.parse(input)) {
  try {
    await KINDS[kind](given);
    reasons.push("");
  } catch (error) {
    reasons.push(`${error.code ?? error.name}: ${error.message}`);
  }
}
process.stdout.write(JSON.stringify(reasons));
