// Reads a session's evidence from the server and says whether it proves the work: red before, green after.
//
// usage: node demo/proof.mjs SERVER-URL SESSION FILE      (the owner's token in HOB_TOKEN)
//
// Keeps the record in FILE. Exits with 0 when at least one check was red on the base commit, is green now, and no
// check is red because of the change; with 1 otherwise.
import { writeFileSync } from "node:fs";

const [server, session, file] = process.argv.slice(2);
const api = async (path) => {
  const answer = await fetch(`${server}/api/v1/sessions/${session}${path}`, {
    headers: { authorization: `Bearer ${process.env.HOB_TOKEN}` },
    signal: AbortSignal.timeout(10_000),
  });
  if (!answer.ok) throw new Error(`failed to read ${path} of session ${session}: ${answer.status} ${await answer.text()}`);
  return answer.json();
};

const { artifacts } = await api("/artifacts");
const record = artifacts.findLast(({ kind, media_type }) => kind === "evidence" && media_type === "application/json");
if (record === undefined) {
  console.error("demo: the session has no evidence");
  process.exit(1);
}
const evidence = await api(`/artifacts/${record.artifact_id}`);
writeFileSync(file, `${JSON.stringify(evidence, null, 2)}\n`);

const colour = process.stdout.isTTY && !process.env.NO_COLOR;
const paint = (code, text) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text);
const run = (it) => {
  if (it === undefined) return "not run";
  const word = it.exit_code === 0 ? paint(32, "green") : paint(31, "red");
  return `${word}, exit ${it.exit_code} after ${(it.elapsed_ms / 1000).toFixed(1)} s`;
};
for (const { name, command, before, after, fixed, outcome } of evidence.checks) {
  console.log(`  ${paint(1, name)}  ${command}  ${paint(2, `(${outcome})`)}`);
  console.log(`    before  ${run(before)}`);
  for (const { test, message, file: where, line } of fixed) {
    const place = where === undefined ? "" : `${where}${line === undefined ? "" : `:${line}`} `;
    console.log(`            ${place}${test ?? message.split("\n")[0]}`);
  }
  console.log(`    after   ${run(after)}`);
}
const { model_calls: calls, input_tokens: read, output_tokens: written, cost_micro_usd: cost } = evidence.usage;
const price = cost === undefined ? "no price" : `$${(cost / 1e6).toFixed(4)}`;
console.log(`  ${calls} model calls, ${read} tokens read, ${written} written, ${price}`);

const outcomes = evidence.checks.map(({ outcome }) => outcome);
process.exitCode = outcomes.includes("fixed") && !outcomes.includes("red") ? 0 : 1;
