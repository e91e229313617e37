# For people: the two commands a newcomer needs, and the ones a developer does. The logic is in cargo and scripts/.

.PHONY: demo test check conformance deny fuzz bench micro-bench figures build release clean

## demo: index, push and lazily mount an image, with nothing but this repository (needs root for the mount)
demo:
	cargo build --release -p soci-index -p fuse-snapshotter -p benches --bins
	./target/release/demo

## test: install what the tests need (Debian; with Go also the current containerd and its clients), and run every test
test:
	./scripts/install-test-dependencies
	./scripts/build-test-clients
	./scripts/test

## check: formatting, lints and documentation, as CI does before the tests
check:
	./scripts/check

## conformance: containerd's own snapshotter suite, which must find what it finds in containerd's overlayfs (needs Go, root)
conformance:
	./scripts/conformance --release

## deny: licences, banned crates and sources of the dependencies, against deny.toml
deny:
	./scripts/deny

## fuzz: a million executions of each fuzz target (needs nightly Rust and a C++ compiler; see docs/development.md)
fuzz:
	./scripts/fuzz

## build: the two programs, in target/release, with Kubernetes' logins
build:
	cargo build --release -p soci-index -p fuse-snapshotter --features fuse-snapshotter/kubernetes

## release: static programs for x86_64 and aarch64 with units, manual and completions, as archives in target/dist (needs
## rustup, python3-venv and PyPI)
release:
	./scripts/release

## figures: what the project promises about speed and size, measured against yardsticks in the same run
figures:
	cargo build --release -p soci-index -p fuse-snapshotter -p benches --bins
	./target/release/figures

## bench: cold starts of containers over three links, lazily, eagerly and with overlayfs, and the README's chart of them
## (needs root; see docs/benchmarks.md)
bench:
	cargo build --release -p soci-index -p fuse-snapshotter -p benches --bins
	./target/release/startup --chart docs/start.svg

## micro-bench: criterion micro-benchmarks
micro-bench:
	cargo bench -p benches

clean:
	cargo clean
