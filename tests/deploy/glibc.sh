#!/usr/bin/env bash
# Checks that a binary runs with glibc 2.28 (RHEL 8, Debian 10) and later: by the symbols it asks for, and in a root with an old glibc.
#
#   tests/deploy/glibc.sh BINARY           what it needs of the machine; needs readelf, which may be that of another architecture
#   tests/deploy/glibc.sh BINARY --run     also runs it in a clean Debian 11 (glibc 2.31); as root; needs debootstrap
#
# ROOT_TEMPLATE names a root to copy instead of one that debootstrap makes.
set -euo pipefail

binary=$(realpath "$1")
event=$(realpath "$(dirname "$0")")/read.jsonl
max=2.28
fail() { echo "error: $*" >&2; exit 1; }

readelf --program-headers --wide "$binary" | grep INTERP > /dev/null || fail "the binary is not linked dynamically"
libraries=$(readelf --dynamic --wide "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
other=$(grep -vE '^(libc\.so\.6|libm\.so\.6|libdl\.so\.2|libpthread\.so\.0|librt\.so\.1|libutil\.so\.1|ld-linux.*\.so\.[0-9])$' <<< "$libraries" || true)
[ -z "$other" ] || fail "the binary needs libraries that a minimal system may lack: $other"
needed=$(readelf --version-info --wide "$binary" | sed -n 's/.*Name: \([A-Za-z_]*_[0-9.]*\) .*Flags.*/\1/p' | sort -Vu)
[ -n "$needed" ] || fail "the binary names no version of a symbol"
highest=$(tail -n 1 <<< "$needed")
[ "$(printf '%s\nGLIBC_%s\n' "$highest" "$max" | sort -V | tail -n 1)" = "GLIBC_$max" ] ||
  fail "the binary needs $highest: $(readelf --dyn-syms --wide "$binary" | grep -F "@$highest" | awk '{print $8}' | tr '\n' ' ')"
readelf --program-headers --wide "$binary" | grep 'GNU_STACK.* RW ' > /dev/null || fail "the stack of the binary is executable"
readelf --file-header "$binary" | grep 'Type:.*DYN' > /dev/null || fail "the binary is not position-independent"
echo "needs $highest of at most GLIBC_$max, and $(tr '\n' ' ' <<< "$libraries")"
[ "${2:-}" = --run ] || exit 0

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if [ -n "${ROOT_TEMPLATE:-}" ]; then
  cp -a "$ROOT_TEMPLATE/." "$root"
else
  debootstrap --variant=minbase bullseye "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" > /dev/null
fi
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
install -D "$binary" "$root/usr/local/bin/pullwatch"
cp "$event" "$root/read.jsonl"
in_root pullwatch --version
in_root pullwatch demo --no-serve | grep Registry > /dev/null || fail "the demonstration reports nothing"
in_root pullwatch scan --format json /read.jsonl | grep '"rule":"Registry Credential Read"' > /dev/null || fail "the scan does not report the read"

# The daemon, with a source, the store and a sink.
mkdir -p "$root/state"
: > "$root/audit.log"
printf 'sources: [{type: file, paths: [/audit.log]}]\nsinks: [{type: stdout}]\nserver: {listen: "127.0.0.1:0"}\nstate_dir: /state\n' > "$root/pullwatch.yaml"
chroot "$root" /usr/local/bin/pullwatch run --config /pullwatch.yaml > "$root/alerts" 2> "$root/log" &
daemon=$!
stop() { echo "$1" >&2; cat "$root/log" >&2; exit 1; }
cat "$event" >> "$root/audit.log"
until grep -q '"rule":"Registry Credential Read"' "$root/alerts"; do
  kill -0 "$daemon" 2> /dev/null || stop "the daemon ended"
  sleep 0.2
done
kill "$daemon"
wait "$daemon" || stop "the daemon ended with an error"
echo "ran with $(in_root ldd --version | sed -n 1p): version, demonstration, scan and daemon"
