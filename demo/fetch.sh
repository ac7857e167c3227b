#!/usr/bin/env bash
# Builds the demo repository: shell-quote 1.7.2 as it was published, then the tests of 1.7.3.
#
# usage: demo/fetch.sh [FOLDER]        (default: .hob-demo beside this checkout)
#
# npm fetches by name and version; package-lock.json pins each package by its sha512, so that what you get is what
# we saw, or an error. No script of a package runs. A repository that is already there and unchanged is kept. The
# dates and names are fixed, so that the commit ids are the same on every machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$(dirname "$here")/.hob-demo}
packages=$folder/packages
repository=$folder/shell-quote

say() { printf 'demo: %s\n' "$*" >&2; }
fail() {
    say "failed to $*"
    exit 1
}

for program in node npm git; do
    command -v "$program" >/dev/null || fail "find $program: install it, or put it on PATH"
done
mkdir -p "$folder"

# The packages, kept from run to run as long as the lock is the same.
if ! cmp -s "$here/package-lock.json" "$packages/installed.lock"; then
    say "fetching shell-quote 1.7.2, shell-quote 1.7.3 and the test runner tape 4.11.0 with npm"
    rm -rf "$packages" "$repository"
    mkdir -p "$packages"
    cp "$here/package.json" "$here/package-lock.json" "$packages/"
    (cd "$packages" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >"$packages/npm.log" 2>&1) || {
        cat "$packages/npm.log" >&2
        fail "fetch the packages with npm: is the registry reachable? (npm ping)"
    }
    cp "$here/package-lock.json" "$packages/installed.lock"
fi

git_here() {
    # Neither the person's hooks, templates and signing keys nor their ignore rules belong in this repository.
    GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null git -C "$repository" "$@"
}

commit() {
    local at=$1 title=$2 body=$3
    git_here add --all --force
    GIT_AUTHOR_DATE=$at GIT_COMMITTER_DATE=$at git_here \
        -c user.name='Hob demo' -c user.email=demo@hob.invalid \
        commit --quiet --message "$title" --message "$body"
}

build() {
    rm -rf "$repository"
    mkdir -p "$repository/node_modules"
    git_here init --quiet --initial-branch=main --template=
    cp -R "$packages/node_modules/release/." "$repository/"
    local entry
    for entry in "$packages"/node_modules/*; do
        case ${entry##*/} in
            release | fixed) ;;
            *) cp -R "$entry" "$repository/node_modules/" ;;
        esac
    done
    mkdir -p "$repository/node_modules/.bin"
    ln -s ../tape/bin/tape "$repository/node_modules/.bin/tape"
    commit '2019-08-30T12:00:00Z' 'shell-quote 1.7.2, as published' \
        'With tape, the one tool its tests need, in node_modules, so that they run without a network.'

    cp "$packages/node_modules/fixed/test/"*.js "$repository/test/"
    commit '2021-10-20T12:00:00Z' 'test: the test suite of shell-quote 1.7.3' \
        'One case is new, and it is red: it shows the bug that 1.7.3 mended.'
}

if [ -z "$(git_here rev-parse --verify --quiet refs/heads/main 2>/dev/null)" ]; then
    build || fail "build the repository in $repository"
fi
if [ -n "$(git_here status --porcelain)" ]; then
    fail "use $repository: it has uncommitted changes; commit them or remove the folder"
fi
say "$(git_here log -1 --format='%h %s' main), in ${repository#"$PWD"/}"
