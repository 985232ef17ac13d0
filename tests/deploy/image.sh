#!/usr/bin/env bash
# Builds the image from the Dockerfile, without a container engine, and tries it.
#
#   tests/deploy/image.sh             on the image that the Dockerfile names
#   tests/deploy/image.sh --debian    on a clean Debian 12 with this machine's Rust toolchain, where no registry can be reached
#   tests/deploy/image.sh --built     tries the image that the last build left
#
# As root; needs buildah and readelf, and debootstrap and rustup for --debian. Takes as long as a release build. Not a step of CI.
# The image must be below 35 MB, contain nothing but what the Dockerfile puts there, run the demonstration, refuse to listen on all
# addresses without a token, report its health, and report a read of a registry credential that is appended to a log.
set -euo pipefail
cd "$(dirname "$0")/../.."
event=tests/deploy/read.jsonl

work=$(mktemp -d)
image=localhost/pullwatch:test
containers=()
cleanup() {
  for container in "${containers[@]}"; do buildah rm "$container" > /dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "error: $*" >&2; exit 1; }

arguments=()
if [ "${1:-}" = --debian ]; then
  base=localhost/rust:debian
  debootstrap --variant=minbase --include=ca-certificates,gcc,g++,make,perl,libc6-dev bookworm "$work/root" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" > "$work/debootstrap.log" || { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
  # What this machine trusts, so that its mirrors can be used.
  cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/"
  rustup target add "$(uname -m)-unknown-linux-musl"
  toolchain=$(basename "$(rustc --print sysroot)")
  mkdir -p "$work/root/usr/local/rustup/toolchains" "$work/root/usr/local/cargo/bin"
  cp -a "$(rustc --print sysroot)" "$work/root/usr/local/rustup/toolchains/"
  cp "$(command -v rustup)" "$work/root/usr/local/cargo/bin/rustup"
  for tool in cargo rustc; do ln -s rustup "$work/root/usr/local/cargo/bin/$tool"; done
  cp "${RUSTUP_HOME:-$HOME/.rustup}/settings.toml" "$work/root/usr/local/rustup/settings.toml"
  container=$(buildah from scratch)
  containers+=("$container")
  buildah copy -q "$container" "$work/root" / > /dev/null
  buildah config --env RUSTUP_HOME=/usr/local/rustup --env CARGO_HOME=/usr/local/cargo --env "RUSTUP_TOOLCHAIN=$toolchain" \
    --env PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  buildah commit -q "$container" "$base" > /dev/null
  rm -rf "$work/root"
  arguments+=(--build-arg "BUILD_IMAGE=$base")
fi

[ "${1:-}" = --built ] || buildah bud --isolation chroot --network host --format docker "${arguments[@]}" --build-arg REVISION=test -t "$image" .

# What it is made of.
container=$(buildah from "$image")
containers+=("$container")
root=$(buildah mount "$container")
size=$(du -sb "$root" | cut -f 1)
[ "$size" -lt 35000000 ] || fail "the image has $size bytes"
files=$(cd "$root" && find . -type f | sort | tr '\n' ' ')
[ "$files" = "./etc/group ./etc/passwd ./etc/ssl/certs/ca-certificates.crt ./usr/local/bin/pullwatch " ] || fail "the image contains $files"
[ "$(stat -c '%u:%g %a' "$root/var/lib/pullwatch")" = "65532:65532 700" ] || fail "state directory: $(stat -c '%u:%g %a' "$root/var/lib/pullwatch")"
if readelf --program-headers --wide "$root/usr/local/bin/pullwatch" | grep -q INTERP; then fail "the binary is not static"; fi
inspect() { buildah inspect --type image --format "{{$1}}" "$image"; }
[ "$(inspect .Docker.Config.User)" = 65532:65532 ] || fail "user: $(inspect .Docker.Config.User)"
inspect .Docker.Config.Healthcheck.Test | grep -q 'pullwatch health' || fail "no health check"
inspect .Docker.Config.Labels | grep -q 'org.opencontainers.image.revision:test' || fail "no label for the revision"

# What it does.
run() { buildah run --isolation chroot --network host "$@"; }
run "$container" -- /usr/local/bin/pullwatch demo --no-serve > "$work/demo"
grep -q 'Registry' "$work/demo" || fail "the demonstration reports nothing"
mkdir "$work/etc"
: > "$work/etc/audit.log"
printf 'sources: [{type: file, paths: [/etc/pullwatch/audit.log]}]\nsinks: [{type: stdout}]\n' > "$work/etc/pullwatch.yaml"
chmod -R a+rX "$work" "$work/etc"
volume=(--volume "$work/etc:/etc/pullwatch:ro")
if run "${volume[@]}" "$container" -- /usr/local/bin/pullwatch run --config /etc/pullwatch/pullwatch.yaml > "$work/refused" 2>&1; then
  fail "it listens on all addresses without a token"
fi
grep -q token_file "$work/refused" || fail "it does not say what to do: $(cat "$work/refused")"
head -c 24 /dev/urandom | base64 > "$work/etc/token"
echo 'server: {token_file: /etc/pullwatch/token}' >> "$work/etc/pullwatch.yaml"
chmod 0444 "$work/etc/token"
run "${volume[@]}" "$container" -- /usr/local/bin/pullwatch run --config /etc/pullwatch/pullwatch.yaml > "$work/alerts" 2> "$work/log" &
daemon=$!
until run "$container" -- /usr/local/bin/pullwatch health; do
  kill -0 "$daemon" 2> /dev/null || { cat "$work/log" >&2; fail "the daemon ended"; }
  sleep 0.2
done
cat "$event" >> "$work/etc/audit.log"
until grep -q 'Registry Credential Read' "$work/alerts"; do
  kill -0 "$daemon" 2> /dev/null || { cat "$work/log" >&2; fail "the daemon ended"; }
  sleep 0.2
done
pkill -TERM -f '^/usr/local/bin/pullwatch run --config /etc/pullwatch/pullwatch.yaml' || true
wait "$daemon" || fail "the daemon ended with an error: $(tail -n 5 "$work/log")"
echo "built, $size bytes, ran the demonstration, refused to run without a token, was healthy, reported a read, and ended on a signal"
