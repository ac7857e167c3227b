// Draws what a terminal showed as a picture: bytes with ANSI sequences on stdin, an SVG on stdout.
//
// usage: node scripts/ansi-to-svg.mjs TITLE <typescript >picture.svg
//
// A small terminal: it knows line ends, tabs, the cursor movements that progress lines use, erasing, and colours.
// Nothing is added to the text and nothing is left out.
import { readFileSync } from "node:fs";

const COLUMNS = 106;
const CELL = { width: 8.43, height: 18 };
const PALETTE = [
  "#3b4252", "#e06c75", "#8fbf7f", "#e5c07b", "#7aa2f7", "#c58fe0", "#6cc7d1", "#d8dee9",
  "#7b8494", "#ff8b92", "#a8d99b", "#f2d69b", "#9dbcff", "#dcaef2", "#92e1ea", "#ffffff",
];
const INK = "#d8dee9";
const PAPER = "#161a21";

const screen = [[]];
let row = 0;
let column = 0;
let style = plain();

function plain() {
  return { ink: null, paper: null, bold: false, faint: false, italic: false, underline: false };
}

function put(character) {
  if (column >= COLUMNS) newLine();
  const line = screen[row];
  while (line.length < column) line.push({ character: " ", style: plain() });
  line[column++] = { character, style: { ...style } };
}

function newLine() {
  row += 1;
  column = 0;
  while (screen.length <= row) screen.push([]);
}

// The 256 colours: 16 named ones, a cube of 6 × 6 × 6, 24 greys.
function indexed(index) {
  if (index < 16) return PALETTE[index];
  if (index >= 232) return grey(8 + (index - 232) * 10);
  const part = (value) => (value === 0 ? 0 : 55 + value * 40);
  const cube = index - 16;
  return rgb(part(Math.floor(cube / 36)), part(Math.floor(cube / 6) % 6), part(cube % 6));
}
const rgb = (...parts) => `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
const grey = (value) => rgb(value, value, value);

function select(codes) {
  for (let code = codes.shift(); code !== undefined; code = codes.shift()) {
    if (code === 0) style = plain();
    else if (code === 1) style.bold = true;
    else if (code === 2) style.faint = true;
    else if (code === 3) style.italic = true;
    else if (code === 4) style.underline = true;
    else if (code === 22) style.bold = style.faint = false;
    else if (code === 23) style.italic = false;
    else if (code === 24) style.underline = false;
    else if (code === 39) style.ink = null;
    else if (code === 49) style.paper = null;
    else if (code === 38 || code === 48) {
      const kind = codes.shift();
      const colour = kind === 5 ? indexed(codes.shift()) : rgb(codes.shift(), codes.shift(), codes.shift());
      style[code === 38 ? "ink" : "paper"] = colour;
    } else if (code >= 30 && code <= 37) style.ink = PALETTE[code - 30];
    else if (code >= 90 && code <= 97) style.ink = PALETTE[code - 82];
    else if (code >= 40 && code <= 47) style.paper = PALETTE[code - 40];
  }
}

function control(parameters, command) {
  const numbers = parameters.split(/[;:]/).map((text) => Number.parseInt(text, 10) || 0);
  const count = Math.max(1, numbers[0]);
  if (command === "m") select(numbers);
  else if (command === "A") row = Math.max(0, row - count);
  else if (command === "B") row = Math.min(screen.length - 1, row + count);
  else if (command === "C") column += count;
  else if (command === "D") column = Math.max(0, column - count);
  else if (command === "G") column = count - 1;
  else if (command === "K") {
    if (numbers[0] === 2) screen[row] = [];
    else screen[row].length = Math.min(screen[row].length, column);
  } else if (command === "J") {
    screen[row].length = Math.min(screen[row].length, column);
    screen.length = row + 1;
  }
}

const text = readFileSync(0, "utf8");
// eslint-disable-next-line no-control-regex
const token = /\x1b\[([0-9;:?]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|([\s\S])/gu;
for (const [, parameters, command, character] of text.matchAll(token)) {
  if (command !== undefined) control(parameters, command);
  else if (character === "\n") newLine();
  else if (character === "\r") column = 0;
  else if (character === "\b") column = Math.max(0, column - 1);
  else if (character === "\t") column = (Math.floor(column / 8) + 1) * 8;
  else if (character !== undefined && character >= " ") put(character);
}
while (screen.length > 0 && screen.at(-1).every((cell) => cell.character === " ")) screen.pop();

const escape = (raw) => raw.replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);
const attributes = ({ ink, bold, faint, italic, underline }) =>
  [
    ink && `fill="${ink}"`,
    bold && 'font-weight="bold"',
    faint && 'opacity="0.6"',
    italic && 'font-style="italic"',
    underline && 'text-decoration="underline"',
  ].filter(Boolean).join(" ");

// Cells beside each other that look alike are drawn as one.
function runs(line) {
  const found = [];
  line.forEach(({ character, style: look }, at) => {
    const key = JSON.stringify(look);
    if (found.at(-1)?.key === key) found.at(-1).text += character;
    else found.push({ key, look, at, text: character });
  });
  return found;
}

const margin = 20;
const top = 44;
const width = COLUMNS * CELL.width + 2 * margin;
const height = top + screen.length * CELL.height + margin;
const out = [
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${Math.ceil(width)} ${Math.ceil(height)}" width="${Math.ceil(width)}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">`,
  `<rect width="100%" height="100%" rx="10" fill="${PAPER}"/>`,
  ...["#ff5f57", "#febc2e", "#28c840"].map((fill, i) => `<circle cx="${22 + i * 18}" cy="20" r="6" fill="${fill}"/>`),
  `<text x="${width / 2}" y="25" text-anchor="middle" fill="#7b8494">${escape(process.argv[2] ?? "")}</text>`,
];
screen.forEach((line, index) => {
  const y = top + index * CELL.height;
  for (const { look, at, text: piece } of runs(line)) {
    const x = (margin + at * CELL.width).toFixed(1);
    const length = (piece.length * CELL.width).toFixed(1);
    if (look.paper) out.push(`<rect x="${x}" y="${y}" width="${length}" height="${CELL.height}" fill="${look.paper}"/>`);
    if (piece.trim() === "") continue;
    out.push(
      `<text x="${x}" y="${y + 13}" textLength="${length}" xml:space="preserve" fill="${INK}" ${attributes(look)}>${escape(piece)}</text>`.replace(
        `fill="${INK}" fill=`,
        "fill=",
      ),
    );
  }
});
out.push("</svg>");
console.log(out.join("\n"));
