#!/usr/bin/env bash
# Builds the release binary, a deb and an rpm, into target/packages.
#
#   deploy/packages/build.sh [TARGET]      TARGET: a Rust target, default: that of this machine
#
# A target ending in -gnu.2.28 is the binary for that version of glibc and later, without packages, which contain the static one.
#
# Needs binutils, cargo-deb and cargo-generate-rpm (cargo install --locked cargo-deb cargo-generate-rpm), and for a version of glibc
# cargo-zigbuild and zig (pip install cargo-zigbuild ziglang).
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${1:-}
out=target/packages
rm -rf "$out"
mkdir -p "$out/man"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}

build=build
case $target in
*-musl) . deploy/packages/musl.env ;;
*-gnu.*)
  . deploy/packages/gnu.env
  build=zigbuild
  ;;
esac

# With debug information, which goes to a file of its own: gdb and addr2line find it by the link in the binary.
CARGO_PROFILE_RELEASE_STRIP=none cargo $build --locked --release --bin pullwatch ${target:+--target "$target"}
# The directory has the name of Rust's target, without the version of glibc.
built=target/${target:+${target/-gnu.*/-gnu}/}release/pullwatch
objcopy --only-keep-debug --compress-debug-sections "$built" "$out/pullwatch.debug"
objcopy --strip-all --add-gnu-debuglink="$out/pullwatch.debug" "$built" "$out/pullwatch"
case $target in
*-musl) check_size "$out/pullwatch" ;;
*-gnu.*)
  check_size "$out/pullwatch"
  tests/deploy/glibc.sh "$out/pullwatch"
  (cd "$out" && rmdir man && sha256sum pullwatch pullwatch.debug > SHA256SUMS)
  exit
  ;;
esac
# Where the packages take it from.
install -D "$out/pullwatch" target/release/pullwatch

# The pages and scripts come from the binary itself; one for another machine is run by an emulator, or the pages of this machine serve.
run=$out/pullwatch
"$run" man "$out/man"
gzip -9n "$out"/man/*.1
"$run" completions bash > "$out/pullwatch.bash"
"$run" completions zsh > "$out/_pullwatch"
"$run" completions fish > "$out/pullwatch.fish"

cargo deb --no-build --no-strip --output "$out/"
cargo generate-rpm --output "$out/"
(cd "$out" && sha256sum pullwatch pullwatch.debug ./*.deb ./*.rpm > SHA256SUMS)
ls -l "$out"
