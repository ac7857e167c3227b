#!/usr/bin/env bash
# Installs what building and running Hob needs beside Rust, Node and git. Does nothing where nothing is missing.
#
# usage: scripts/setup.sh [tests]      also what the tests drive: pip, curl and pgrep inside, a registry of images
set -euo pipefail
cd "$(dirname "$0")/.."

# Where an administrator's programs are, also for whoever is not one.
PATH="$PATH:/usr/sbin:/sbin"

say() { printf 'setup: %s\n' "$*" >&2; }

# program → the Debian package that brings it.
declare -A package_of=(
    [bwrap]=bubblewrap # enters the sandbox's namespaces
    [newuidmap]=uidmap # maps a range of users where Hob does not run as root
    [cc]=gcc           # links, and compiles SQLite
    [git]=git
)
if [ "${1:-}" = tests ]; then
    package_of[pip3]=python3-pip
    package_of[curl]=curl
    package_of[pgrep]=procps
    package_of[docker-registry]=docker-registry
    package_of[redis-server]=redis-server
    package_of[debootstrap]=debootstrap
fi

for given in cargo node npm; do
    command -v "$given" >/dev/null || {
        say "failed to find $given on PATH. Hob is built with Rust ($(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml) or newer), and its demo and tests use Node 18 or newer."
        exit 1
    }
done

missing=()
for program in "${!package_of[@]}"; do
    command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
# gcc alone does not bring the headers and the static library that the guest, a static program, is linked with.
if ! command -v cc >/dev/null || [ "$(cc -print-file-name=libc.a)" = libc.a ]; then
    missing+=(libc6-dev)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    say "failed to install ${missing[*]} (Debian's names): this machine has no apt-get. Please install them with its own package manager."
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        say "failed to install ${missing[*]}: neither root nor sudo here. Please ask an administrator for: apt-get install ${missing[*]}"
        exit 1
    }
    as_root=(sudo)
fi

say "installing ${missing[*]} with apt-get"
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "${missing[@]}")
# A fresh machine has no package lists yet, and an old one has stale ones.
"${install[@]}" >/dev/null 2>&1 || {
    "${as_root[@]}" apt-get update --quiet >/dev/null
    "${install[@]}" >/dev/null
} || {
    say "failed to install ${missing[*]}: see the message of apt-get above"
    exit 1
}
