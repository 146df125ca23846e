#!/bin/sh
# RUSTC_WRAPPER of build_influxd.sh: lints stay warnings.
#
# flux is written for Rust 1.72 and forbids warnings; newer compilers warn about
# more, so without this its build fails. Cargo already caps the lints of the
# dependencies, and rustc refuses the option when it is given twice.
set -eu
for argument in "$@"; do
    case $argument in
    --cap-lints | --cap-lints=*) exec "$@" ;;
    esac
done
exec "$@" --cap-lints warn
