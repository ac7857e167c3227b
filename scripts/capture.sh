#!/usr/bin/env bash
# Draws docs/run.svg, the picture in README.md: runs `make run` on a terminal and keeps what it showed, as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
make --silent setup
record=$(mktemp)
trap 'rm -f "$record"' EXIT
# Once before, so that the picture shows the work and not the compiler.
scripts/run.sh >/dev/null
script --quiet --return --command 'stty cols 100 rows 60; exec scripts/run.sh' "$record" >/dev/null
sed -e '1{/^Script started/d}' -e '/^Script done/d' "$record" | node scripts/ansi-to-svg.mjs 'make run' >docs/run.svg
echo "capture: docs/run.svg, $(wc -c <docs/run.svg) bytes"
