#!/usr/bin/env bash
# Installs an rpm in a clean root, runs what it installed, upgrades and removes it.
#
#   tests/deploy/rpm.sh RPM        as root; needs rpm and debootstrap
#
# The root is a minimal Debian: rpm's own database, scripts and file handling are what is tested, not the dependencies, which
# `rpm -qp --requires` lists. The removal must leave no file but a changed configuration.
set -euo pipefail

package=$(realpath "$1")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if [ -n "${ROOT_TEMPLATE:-}" ]; then
  cp -a "$ROOT_TEMPLATE/." "$root"
else
  debootstrap --variant=minbase bookworm "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" > /dev/null
fi
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
in_rpm() { rpm --root "$root" --dbpath /var/lib/rpm "$@"; }
files() { (cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./var/lib/rpm -o -path ./usr/lib/sysimage \) -prune -o -print | sort); }
fail() { echo "error: $*" >&2; exit 1; }

# A systemctl that writes down what the scripts ask of it.
printf '#!/bin/sh\necho "$@" >> /systemctl.log\n' > "$root/usr/bin/systemctl"
chmod 0755 "$root/usr/bin/systemctl"
: > "$root/systemctl.log"
in_rpm --initdb
# Directories of other packages on systems with rpm: they stay.
mkdir -p "$root"/usr/share/{licenses,fish/vendor_completions.d,zsh/site-functions}
before=$(files)

in_rpm --install --nodeps "$package"
# Every file has the content, the mode and the owner of the package.
in_rpm --verify --nodeps pullwatch
in_root pullwatch --version
in_root pullwatch config check /etc/pullwatch/pullwatch.yaml
in_root pullwatch demo --no-serve > /dev/null
[ "$(in_rpm --query --configfiles pullwatch | sort | tr '\n' ' ')" = "/etc/logrotate.d/pullwatch /etc/pullwatch/pullwatch.yaml /etc/pullwatch/rules.d/local.yaml " ] ||
  fail "configuration files are not marked as such"
grep -qx daemon-reload "$root/systemctl.log" || fail "the installation does not reload systemd"
! grep -qE '^(enable|start)' "$root/systemctl.log" || fail "the installation starts the service"

# An upgrade keeps what the operator wrote, and restarts a running service.
echo '# mine' >> "$root/etc/pullwatch/pullwatch.yaml"
: > "$root/systemctl.log"
in_rpm --upgrade --replacepkgs --replacefiles --nodeps "$package"
grep -q '# mine' "$root/etc/pullwatch/pullwatch.yaml" || fail "the upgrade replaced the configuration"
! grep -q 'disable' "$root/systemctl.log" || fail "the upgrade disables the service"

: > "$root/systemctl.log"
in_rpm --erase pullwatch
grep -q 'disable --now pullwatch.service' "$root/systemctl.log" || fail "the removal does not stop the service"
[ -e "$root/etc/pullwatch/pullwatch.yaml.rpmsave" ] || fail "the removal deleted a changed configuration"
rm "$root/etc/pullwatch/pullwatch.yaml.rpmsave"
rmdir "$root/etc/pullwatch"
after=$(files)
if [ "$before" != "$after" ]; then
  diff <(echo "$before") <(echo "$after") >&2
  fail "the removal left files"
fi
echo "installed, verified, upgraded and removed without leftovers"
