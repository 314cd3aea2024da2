#!/bin/sh
# Build the control plane that the end-to-end tests run on, once per set of inputs.
#
#   build.sh [kueue] [kwok] [helm] [certmanager] [promtool]
#
# The last line on standard output is a directory that holds etcd, kube-apiserver,
# kube-controller-manager, kubectl and supervise, and what was asked for by name.
# It is complete or absent: everything is built aside and renamed into place.
#
# KUBEBUILDER_ASSETS=<dir>  take the components from there; only `supervise`, seconds of
#                           standard library, is then built
# CONTROLPLANE_CACHE=<dir>  instead of <repository>/.cache/controlplane
# BUILD_FOR_PID=<pid>       give up when this process is gone
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${CONTROLPLANE_CACHE:-$here/../../.cache/controlplane}
version=v1.36.3
# Without these the server reports v0.0.0.
stamp=k8s.io/component-base/version
ldflags="-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=36 -X $stamp.gitTreeState=clean"
components="etcd kube-apiserver kube-controller-manager"

say() { printf 'controlplane: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

for tool in "$@"; do
    case $tool in kueue | kwok | helm | certmanager | promtool) ;; *) die "nothing is known of '$tool': kueue, kwok, helm, certmanager and promtool can be asked for" ;; esac
done
assets=${KUBEBUILDER_ASSETS:-}
if [ -n "$assets" ]; then
    assets=$(CDPATH='' cd -- "$assets" && pwd)
    for name in $components kubectl; do
        [ -x "$assets/$name" ] ||
            die "KUBEBUILDER_ASSETS=$assets has no $name (setup-envtest brings no kube-controller-manager: put one there, or unset it to build all)"
    done
fi
command -v go >/dev/null || die "Go is needed (go.mod tells the version)"

# Everything that decides what comes out.
key=$({
    cat "$here/go.mod" "$here/go.sum" "$here/main.go" "$here"/supervise/*.go "$here/build.sh"
    # What would lift the versions of the control plane's modules is a module of its own.
    cat "$here"/*/go.mod "$here"/*/go.sum "$here/certmanager/main.go"
    go version
    printf '%s\n' "$assets"
} | sha256sum | cut -c1-16)
out=$cache/$key

complete() { # what the caller asked for is there
    for name in supervise $components kubectl "$@"; do
        [ -x "$out/$name" ] || return 1
    done
}

# run DESCRIPTION EXPECTED COMMAND...: a sign of life every 15 s
run() {
    what=$1 expected=$2
    shift 2
    say "building $what ($expected on two cores when nothing is cached)"
    began=$(date +%s)
    "$@" >&2 &
    build=$!
    while kill -0 "$build" 2>/dev/null; do
        ticks=0
        while [ "$ticks" -lt 15 ] && kill -0 "$build" 2>/dev/null; do
            kill -0 "${BUILD_FOR_PID:-$$}" 2>/dev/null || exit 1
            sleep 1
            ticks=$((ticks + 1))
        done
        if kill -0 "$build" 2>/dev/null; then
            say "  still building $what, $(($(date +%s) - began)) s"
        fi
    done
    wait "$build" || die "building $what failed"
    build=
    say "built $what in $(($(date +%s) - began)) s"
}

tool() { # NAME EXPECTED PACKAGE [MODULE-DIRECTORY], into the finished directory
    if [ ! -x "$out/$1" ]; then
        run "$1" "$2" go -C "${4:-.}" build -ldflags "-s -w" -o "$work/$1" "$3"
        mv "$work/$1" "$out/$1"
    fi
}

build_all() {
    mkdir "$work/new"
    run supervise "seconds" go build -o "$work/new/supervise" ./supervise
    if [ -n "$assets" ]; then
        for name in $components kubectl; do
            ln -s "$assets/$name" "$work/new/$name"
        done
    else
        run "etcd, kube-apiserver and kube-controller-manager $version" "7 minutes" \
            go build -ldflags "$ldflags" -o "$work/new/controlplane" .
        for name in $components; do
            ln -s controlplane "$work/new/$name"
        done
        run "kubectl $version" "1 minute" go build -ldflags "$ldflags" -o "$work/new/kubectl" k8s.io/kubernetes/cmd/kubectl
    fi
    rm -rf "$out"
    mv "$work/new" "$out"
}

if ! complete "$@"; then
    mkdir -p "$cache"
    # One builder at a time. The lock goes with the process, so it is never stale.
    exec 9>"$cache/lock"
    if ! flock -n 9; then
        say "another build is under way, waiting for it"
        flock 9
    fi
    cd "$here"
    if ! complete "$@"; then
        work=$(mktemp -d "$cache/building-XXXXXX")
        build=
        trap 'if [ -n "$build" ]; then kill "$build" 2>/dev/null || true; fi; rm -rf "$work"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
        # Builds that were killed leave their directory; holding the lock, we are alone.
        for old in "$cache"/building-*; do
            if [ "$old" != "$work" ]; then rm -rf "$old"; fi
        done
        complete || build_all
        for name in "$@"; do
            case $name in
            kueue) tool kueue "4 minutes" sigs.k8s.io/kueue/cmd/kueue ;;
            kwok) tool kwok "half a minute" sigs.k8s.io/kwok/cmd/kwok ;;
            helm) tool helm "2 minutes" helm.sh/helm/v4/cmd/helm helm ;;
            certmanager) tool certmanager "4 minutes" . certmanager ;;
            # Without service discovery, which rules do not need: the clients of all clouds would take as long again.
            promtool) GOFLAGS=-tags=remove_all_sd tool promtool "2 minutes" github.com/prometheus/prometheus/cmd/promtool promtool ;;
            esac
        done
    fi
fi

CDPATH='' cd -- "$out"
pwd
