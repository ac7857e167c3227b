// Prints the figures of a file of JSON lines as a table for people. See scripts/bench.sh for the shape of a line.
import { readFileSync } from "node:fs";

const figures = readFileSync(process.argv[2], "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line));
const number = (value) => {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  return value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2);
};
const rows = [["", "p50", "p95", "unit", "n", "against", "ratio"]];
for (const { name, unit, p50, p95, n, against, ratio } of figures) {
  const other = typeof against === "object" && against !== null ? `${against.name} ${number(against.p50)}` : (against ?? "");
  rows.push([name, number(p50), number(p95), unit, String(n), other, ratio == null ? "" : `${number(ratio)}×`]);
}
const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
const isText = (column) => column === 0 || column === 3 || column === 5;
console.log();
for (const row of rows) {
  console.log(row.map((cell, i) => (isText(i) ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join("  ").trimEnd());
}
