#!/usr/bin/env bash
# Builds kube-apiserver, etcd and kubectl with Go into target/tools/bin, where the checks on a real apiserver find them. Takes about
# ten minutes on two cores and 3 GB of disk. Their sources come from the Go module proxy; go.mod has the versions: the modules
# k8s.io/NAME v0.MINOR.PATCH belong to k8s.io/kubernetes v1.MINOR.PATCH.
set -euo pipefail
cd "$(dirname "$0")"
out=../../../target/tools/bin
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
mkdir -p "$out"
package=k8s.io/component-base/version
flags="-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
for name in etcd kubectl kube-apiserver; do
  go build -mod=readonly -trimpath -ldflags "$flags" -o "$out/$name" "./$name"
done
"$out/kube-apiserver" --version
