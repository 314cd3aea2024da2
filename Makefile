# Two commands to know: `make run` shows taskgate at work on a control plane of its own, `make test` proves it.
# They need Rust (rustup), Go and make; everything else they build and keep under .cache/ and target/.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# SUITE=admission runs one end-to-end suite; empty runs them all.
SUITE ?=

# How long each fuzz target runs, in seconds.
TIME ?= 60

# What the manifests name.
IMAGE ?= ghcr.io/taskgate/taskgate:0.1.0

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: control-plane ## A control plane with taskgate enforcing on it, a short tour, then yours until Ctrl-C (ONCE=1: ends after the tour)
	@.ci/step "Building taskgate and the stand-ins" cargo build --locked --workspace --bins
	@exec target/debug/tour

.PHONY: test
test: ## Everything: format, lints, dependencies, generated files, unit, property, golden and end-to-end tests
	@.ci/test all

.PHONY: e2e
e2e: ## The end-to-end suites, or one of them: make e2e SUITE=admission
	@.ci/test e2e $(SUITE)

.PHONY: soak
soak: ## The suites that inject faults, at full size; SUITE= runs one, SEED= repeats its choices
	@.ci/test soak $(SUITE)

.PHONY: fuzz
fuzz: ## The fuzz targets, TIME=60 seconds each; needs a nightly compiler and cargo-fuzz
	@.ci/fuzz $(TIME)

.PHONY: unit
unit: ## Unit, property and golden tests only
	@.ci/test unit

.PHONY: lint
lint: ## Format, clippy, licences and bans
	@.ci/test lint

.PHONY: fmt
fmt: ## Format the code
	@cargo fmt --all
	@cargo fmt --manifest-path fuzz/Cargo.toml

.PHONY: manifests
manifests: ## Regenerate CRDs, registration, roles, and the pages made of them
	@.ci/step "Building taskgate" cargo build --quiet --locked --workspace --bins
	@.ci/step "Generating manifests" target/debug/taskgate manifests write manifests --docs docs

.PHONY: dist
dist: ## The installation as plain YAML, one file per overlay, under dist/
	@.ci/step "Rendering the overlays" .ci/dist

.PHONY: image
image: ## The container image, by Docker; IMAGE= gives it another name
	docker build --tag $(IMAGE) .

.PHONY: bench
bench: control-plane ## The benchmarks; figures go to docs/performance.md by hand, with the machine
	@cargo bench --locked -p taskgate-policy --bench decide --bench render
	@cargo bench --locked -p taskgate-webhook --bench review
	@cargo build --profile bench --locked -p taskgate
	@cargo bench --locked -p taskgate-e2e --bench controller
	@cargo bench --locked -p taskgate-e2e --bench cancel
	@cargo bench --locked -p taskgate-e2e --bench startup
	@cargo bench --locked -p taskgate-e2e --bench check

.PHONY: advisories
advisories: ## The advisory database against our dependencies; fetches the database
	@.ci/test advisories

.PHONY: control-plane
control-plane: ## Build etcd, kube-apiserver, kube-controller-manager, kubectl and Kueue (once; 12 minutes on 2 cores)
	@e2e/controlplane/build.sh kueue >/dev/null
