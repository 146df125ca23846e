#!/usr/bin/env bash
# Builds the InfluxDB server that the tests talk to.
#
#   build_influxd.sh CACHE_DIR  ->  CACHE_DIR/influxd-2.7.12/influxd
#
# The version comes from influxd/go.mod. The result has no web interface: its
# assets cannot be had from the Go module proxy or from crates.io, and no test
# looks at them. A second copy stays in the user's cache folder, so that another
# clone on the same machine needs no build.
#
# Exit codes: 0 the binary is there; 1 the build failed; 2 wrong usage;
# 3 a program that the build needs is missing.
set -euo pipefail

readonly VERSION=2.7.12
readonly MODULE=github.com/influxdata/influxdb/v2

say() { printf 'influxd %s: %s\n' "$VERSION" "$1"; }

if [[ $# -ne 1 || -z $1 ]]; then
    echo "usage: ${0##*/} CACHE_DIR" >&2
    exit 2
fi
mkdir -p -- "$1"
target=$(cd -- "$1" && pwd)/influxd-$VERSION/influxd
readonly target

# Only a finished and checked binary ever gets this name.
if [[ -x $target ]]; then
    say "ready, $target"
    exit 0
fi

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
user_cache=${XDG_CACHE_HOME:-$HOME/.cache}/iot-ingest
kept=$user_cache/influxd-$VERSION/influxd
readonly here user_cache kept

says_version() {
    local answer
    answer=$("$1" version 2>/dev/null) && [[ $answer == "InfluxDB v$VERSION "* ]]
}

# install_binary FROM TO: TO is absent or whole at every moment.
install_binary() {
    local from=$1 to=$2 partial=$2.$$.partial
    mkdir -p -- "$(dirname -- "$to")"
    ln -f -- "$from" "$partial" 2>/dev/null || cp -f -- "$from" "$partial"
    mv -f -- "$partial" "$to"
    # rename(2) does nothing when both names are links to one file.
    rm -f -- "$partial"
}

require_programs() {
    local program
    for program in "$@"; do
        if ! command -v "$program" >/dev/null; then
            say "cannot be built: the program '$program' is not installed" >&2
            exit 3
        fi
    done
}

mkdir -p -- "$user_cache"
# One lock for all clones: they share the Go cache, into which pkg-config copies
# the flux sources without regard to a second one doing the same.
require_programs flock
exec 9>"$user_cache/influxd-build.lock"
if ! flock --nonblock 9; then
    say "waiting for another build to finish"
    flock 9
fi

if [[ -x $target ]]; then
    say "ready, $target"
    exit 0
fi
if says_version "$kept"; then
    install_binary "$kept" "$target"
    say "ready, $target (taken from $kept)"
    exit 0
fi
require_programs go cargo cc pkg-config

# What a killed build left; none runs now, as the lock is ours.
rm -rf -- "$user_cache"/influxd-build.??????
work=$(mktemp -d "$user_cache/influxd-build.XXXXXX")
log=$work/build.log
readonly work log
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# stage TEXT COMMAND...: one line now, the command's output only if it fails.
stage() {
    say "$1"
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 -- "$log" >&2
        say "build failed in: $*" >&2
        exit 1
    fi
}

export GOWORK=off CGO_ENABLED=1 GOFLAGS=-buildvcs=false
export PKG_CONFIG=$work/pkg-config
# flux pins a Rust that need not be installed.
export RUSTUP_TOOLCHAIN=stable
export RUSTC_WRAPPER=$here/influxd/rustc_cap_lints.sh
# pkg-config looks for the library in cargo's default place only.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_BUILD_TARGET
readonly tags=sqlite_foreign_keys,sqlite_json

cd -- "$here/influxd"
stage "1/4 fetching Go modules" \
    go list -deps -tags "$tags" "$MODULE/cmd/influxd" github.com/influxdata/pkg-config
stage "2/4 building pkg-config for flux" \
    go build -o "$PKG_CONFIG" github.com/influxdata/pkg-config

read -r flux_version flux_sources < <(
    go list -m -f '{{.Version}} {{.Dir}}' github.com/influxdata/flux)
# An interrupted copy of the sources is never completed by pkg-config. Before
# cargo has made its target folder, the copy may be such a one.
flux_copy=$(go env GOCACHE)/pkgconfig/github.com/influxdata/flux@$flux_version
[[ -d $flux_copy/libflux/target ]] || rm -rf -- "$flux_copy"
# As Go would do it in stage 4, from the folder of the flux sources: pkg-config
# reads the go.mod above its working folder and stumbles over our tool lines.
stage "3/4 building libflux with cargo (minutes when nothing is cached)" \
    env --chdir="$flux_sources" "$PKG_CONFIG" --libs flux

stage "4/4 compiling influxd (minutes when nothing is cached)" \
    go build -trimpath -tags "$tags" -o "$work/influxd" \
    -ldflags "-s -w -X main.version=v$VERSION -X main.commit=module" "$MODULE/cmd/influxd"

if ! says_version "$work/influxd"; then
    say "the built binary does not say that it is v$VERSION" >&2
    exit 1
fi
install_binary "$work/influxd" "$kept"
install_binary "$kept" "$target"
say "ready, $target (built in $SECONDS s)"
