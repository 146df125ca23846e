#!/bin/sh
# Writes .env with random secrets for docker-compose.yml, readable by its owner only.
#
#   make-env.sh [FILE]     FILE: default .env beside docker-compose.yml
#
# Never overwrites. Exit codes: 0 written; 1 it exists or cannot be written; 2 wrong usage.
set -eu

if [ $# -gt 1 ]; then
    echo "usage: ${0##*/} [FILE]" >&2
    exit 2
fi
file=${1:-$(cd -- "$(dirname -- "$0")/.." && pwd)/.env}

# random_hex BYTES: hexadecimal digits need no quoting in any of the files that use them.
random_hex() {
    od -An -v -N "$1" -tx1 /dev/urandom | tr -d ' \n'
}

content="# Secrets of docker-compose.yml. Keep this file out of version control and backups of code.
INFLUXDB_ADMIN_PASSWORD=$(random_hex 16)
INFLUXDB_ADMIN_TOKEN=$(random_hex 32)
GRAFANA_INFLUXDB_PASSWORD=$(random_hex 16)
GRAFANA_ADMIN_PASSWORD=$(random_hex 16)
GRAFANA_SECRET_KEY=$(random_hex 32)"

if [ -e "$file" ]; then
    echo "make-env: $file exists and is left as it is. The databases keep the secrets that" \
        "they were set up with: remove the file only together with their volumes." >&2
    exit 1
fi
umask 077
# With noclobber the shell creates the file with O_EXCL: of two runs at once one fails.
set -C
if ! { printf '%s\n' "$content" >"$file"; } 2>/dev/null; then
    echo "make-env: cannot write $file" >&2
    exit 1
fi
echo "make-env: wrote $file"
