#!/usr/bin/env bash
# Installs a deb in a clean Debian 12, runs the service's command on a log, and purges it.
#
#   tests/deploy/package.sh DEB        as root; needs debootstrap
#
# The daemon must report a read of a registry credential that is appended to the log, and the purge must leave no file.
set -euo pipefail

deb=$(realpath "$1")
# A read of a registry credential.
event=$(dirname "$0")/read.jsonl
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase bookworm "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" > /dev/null
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

files() { (cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./var/lib/dpkg -o -path ./var/cache -o -path ./var/log/dpkg.log \) -prune -o -print | sort); }
before=$(files)

cp "$deb" "$root/pullwatch.deb"
# Nothing but what is in a minimal system is needed.
in_root dpkg --install /pullwatch.deb
in_root pullwatch --version
in_root pullwatch config check /etc/pullwatch/pullwatch.yaml
in_root pullwatch demo --no-serve > /dev/null
for path in /usr/share/man/man1/pullwatch-run.1.gz /lib/systemd/system/pullwatch.service /etc/pullwatch/rules.d/local.yaml; do
  [ -e "$root$path" ] || [ -e "$root/usr$path" ] || { echo "$path is missing" >&2; exit 1; }
done

# The command of the unit, with its state directory.
mkdir -p "$root/var/log/kubernetes/audit" "$root/var/lib/pullwatch"
: > "$root/var/log/kubernetes/audit/audit.log"
chmod 0600 "$root/var/log/kubernetes/audit/audit.log"
command=$(sed -n 's/^ExecStart=//p' "$root"/lib/systemd/system/pullwatch.service "$root"/usr/lib/systemd/system/pullwatch.service 2> /dev/null | head -n 1)
# shellcheck disable=SC2086
chroot "$root" /usr/bin/env -i PULLWATCH_STATE_DIR=/var/lib/pullwatch $command > "$root/alerts" 2> "$root/daemon.log" &
daemon=$!
until in_root pullwatch health --ready > /dev/null 2>&1; do
  kill -0 "$daemon" || { cat "$root/daemon.log" >&2; exit 1; }
  sleep 0.2
done
cat "$event" >> "$root/var/log/kubernetes/audit/audit.log"
until grep -q '"rule":"Registry Credential Read"' "$root/alerts"; do
  kill -0 "$daemon" || { cat "$root/daemon.log" >&2; exit 1; }
  sleep 0.2
done
kill "$daemon"
wait "$daemon"

# An upgrade keeps what the operator wrote, and starts from what was learned. The newer package differs in its version alone.
echo '# mine' >> "$root/etc/pullwatch/pullwatch.yaml"
dpkg-deb --raw-extract "$deb" "$root/newer"
version=$(dpkg-deb --field "$deb" Version)
sed -i "s/^Version: .*/Version: $version+newer/" "$root/newer/DEBIAN/control"
dpkg-deb --build --root-owner-group "$root/newer" "$root/newer.deb" > /dev/null
rm -rf "$root/newer"
in_root dpkg --install /newer.deb
[ "$(in_root dpkg-query --show --showformat '${Version}' pullwatch)" = "$version+newer" ]
grep -q '# mine' "$root/etc/pullwatch/pullwatch.yaml"
in_root pullwatch alerts list --state-dir /var/lib/pullwatch | grep -q 'Registry Credential Read' || { echo "the upgrade lost the alert" >&2; exit 1; }

in_root dpkg --remove pullwatch
[ -e "$root/etc/pullwatch/pullwatch.yaml" ] || { echo "the removal deleted the configuration" >&2; exit 1; }
in_root dpkg --purge pullwatch
rm -rf "$root/pullwatch.deb" "$root/newer.deb" "$root/alerts" "$root/daemon.log" "$root/var/log/kubernetes"
after=$(files)
if [ "$before" != "$after" ]; then
  diff <(echo "$before") <(echo "$after") >&2
  echo "the purge left files" >&2
  exit 1
fi
echo "installed, detected a read, upgraded, removed and purged without leftovers"
