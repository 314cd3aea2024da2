# The two main commands: `make run` shows taskgate on a control plane, `make test` runs all checks.
# They need Rust (rustup), Go and make. They build everything else under .cache/ and target/.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# SUITE=admission runs one end-to-end suite; empty runs them all.
SUITE ?=

# How long each fuzz target runs, in seconds.
TIME ?= 60

# The version of the workspace, and the image of the manifests. For a registry of your own: REPO=registry.example.com/taskgate
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
REPO ?= ghcr.io/taskgate/taskgate
IMAGE := $(REPO):$(VERSION)

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: control-plane ## Start a control plane with taskgate, show a tour, and run until Ctrl-C (ONCE=1: end after the tour)
	@.ci/step "Building taskgate and the stand-ins" cargo build --locked --workspace --bins
	@exec target/debug/tour

.PHONY: test
test: ## Run everything: format, lints, dependencies, generated files, unit, property, golden and end-to-end tests
	@.ci/test all

.PHONY: e2e
e2e: ## Run the end-to-end suites, or one: make e2e SUITE=admission
	@.ci/test e2e $(SUITE)

.PHONY: soak
soak: ## Run the fault suites at full size; SUITE= selects one, SEED= repeats its choices
	@.ci/test soak $(SUITE)

.PHONY: fuzz
fuzz: ## Run the fuzz targets, TIME=60 seconds each; needs a nightly compiler and cargo-fuzz
	@.ci/fuzz $(TIME)

.PHONY: unit
unit: ## Run the unit, property and golden tests
	@.ci/test unit

.PHONY: lint
lint: ## Check format, clippy, licences and bans
	@.ci/test lint

.PHONY: fmt
fmt: ## Format the code
	@cargo fmt --all
	@cargo fmt --manifest-path fuzz/Cargo.toml

.PHONY: manifests
manifests: ## Regenerate CRDs, registration, roles, and the pages from them
	@.ci/step "Building taskgate" cargo build --quiet --locked --workspace --bins
	@.ci/step "Generating manifests" target/debug/taskgate manifests write manifests --docs docs

.PHONY: diagrams
diagrams: ## Draw docs/images/architecture.svg from its text, with d2, which Go downloads and builds
	@go run oss.terrastruct.com/d2@v0.7.2 docs/images/architecture.d2 docs/images/architecture.svg

.PHONY: screenshots
screenshots: control-plane ## Draw docs/images/tour.svg from the output of the tour
	@.ci/step "Building taskgate and the stand-ins" cargo build --locked --workspace --bins
	@set -o pipefail; ONCE=1 target/debug/tour | .ci/screenshot > docs/images/tour.svg.new
	@mv docs/images/tour.svg.new docs/images/tour.svg

.PHONY: binary
binary: ## Build the static binary for this machine's architecture, to dist/linux-ARCHITECTURE/
	@.ci/step "Building the static binary" .ci/binary

.PHONY: image
image: binary assemble ## Build the binary and the OCI image, without a container engine, to dist/image and dist/image.tar

.PHONY: assemble
assemble: ## Assemble the image from the binaries in dist/linux-*
	@.ci/step "Assembling the image" .ci/image assemble $(IMAGE)

.PHONY: image-load
image-load: ## Load the image into kind, k3d or minikube: TOOL= selects one, CLUSTER= its cluster
	@.ci/step "Loading the image" .ci/image load $(IMAGE)

.PHONY: push
push: ## Push the image to a registry: make push REPO=registry.example.com/taskgate
	@.ci/step "Pushing the image" .ci/image push $(IMAGE)

.PHONY: push-chart
push-chart: ## Push the chart of dist/ to oci://…/charts beside the image
	@.ci/step "Pushing the chart" .ci/image push-chart $(IMAGE)

.PHONY: login
login: ## Log in to the registry of REPO as USER, with the password on standard input, without Docker
	@.ci/image login $(IMAGE)

.PHONY: digest
digest: ## Print the digest of the image in dist/image
	@.ci/image digest $(IMAGE)

.PHONY: version
version: ## Print the version of the workspace
	@echo $(VERSION)

.PHONY: dist
dist: ## Write the artifacts of a release to dist/: YAML, chart, command line (after make binary), krew manifest, SBOM, checksums
	@.ci/step "Writing the artifacts" .ci/dist $(VERSION)

.PHONY: bench
bench: control-plane ## Run the benchmarks, which write docs/performance.md; BENCH="scale --work-items=100000" runs one section
	@cargo bench --locked -p taskgate-policy --bench decide --bench render
	@cargo bench --locked -p taskgate-webhook --bench review
	@cargo build --profile bench --locked -p taskgate
	@cargo bench --locked -p taskgate-e2e --bench performance -- $(BENCH)

.PHONY: advisories
advisories: ## Check the dependencies against the advisory database, which it fetches
	@.ci/test advisories

.PHONY: control-plane
control-plane: ## Build etcd, kube-apiserver, kube-controller-manager, kubectl and Kueue (once; 12 minutes on 2 cores)
	@e2e/controlplane/build.sh kueue >/dev/null
