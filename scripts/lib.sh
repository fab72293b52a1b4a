# Sourced by the other scripts: where things are, and how to say something.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=${0##*/}

# What is kept between builds and between checkouts: the RocksDB archive, cargo-deny.
cache=${RAFT_ACTOR_CACHE:-${XDG_CACHE_HOME:-${HOME:?neither RAFT_ACTOR_CACHE nor HOME is set}/.cache}/raft-actor}

# Cargo's target folder, absolute.
target=${CARGO_TARGET_DIR:-$root/target}
[[ $target == /* ]] || target=$root/$target

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 1; }

# The version of one crate in a Cargo.lock; of several versions the last.
locked_version() { # CRATE LOCKFILE
  awk -v crate="name = \"$1\"" '
    $0 == crate { hit = 1; next }
    hit && /^version = / { gsub(/^version = "|"$/, ""); version = $0; hit = 0 }
    END { print version }' "$2"
}
