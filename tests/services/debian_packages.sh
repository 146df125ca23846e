#!/usr/bin/env bash
# Installs the Debian packages that the tests use, where they are missing:
# the Mosquitto broker and its clients, and Chromium.
#
# Only root can install. For everybody else it says what is missing and succeeds:
# the tests that need it skip, and say so.
set -euo pipefail

readonly PACKAGES=(mosquitto mosquitto-clients chromium)
readonly POLICY=/usr/sbin/policy-rc.d

find_missing() {
    local package
    missing=()
    for package in "${PACKAGES[@]}"; do
        # A removed package whose configuration is left is known to dpkg as well.
        dpkg -s "$package" 2>/dev/null | grep '^Status: install ok installed$' >/dev/null ||
            missing+=("$package")
    done
}

if ! command -v dpkg >/dev/null || ! command -v apt-get >/dev/null; then
    echo "packages: not a Debian system; install yourself what you lack of: ${PACKAGES[*]}"
    exit 0
fi

find_missing
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ((EUID != 0)); then
    echo "packages: missing, and only root can install them: ${missing[*]}"
    exit 0
fi

exec 9>/run/lock/iot-ingest-packages.lock
flock 9
find_missing
if ((${#missing[@]} == 0)); then
    exit 0
fi

# Debian starts a server when it is installed, unless this file says no. The
# tests start their own, and nobody asked for one on the broker's usual port.
if [[ ! -e $POLICY ]]; then
    trap 'rm -f -- "$POLICY"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\n# Made by %s for the time of its run.\nexit 101\n' \
        "${BASH_SOURCE[0]##*/}" >"$POLICY"
    chmod 755 "$POLICY"
fi

export DEBIAN_FRONTEND=noninteractive
readonly options=(-qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
quietly() {
    local output
    if ! output=$("$@" 2>&1); then
        printf '%s\n' "$output" >&2
        echo "packages: failed: $*" >&2
        return 1
    fi
}

echo "packages: installing ${missing[*]}"
quietly apt-get "${options[@]}" update
quietly apt-get "${options[@]}" install --yes --no-install-recommends "${missing[@]}"
