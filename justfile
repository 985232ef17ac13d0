# The usual chores. `just` lists them; each is one command that works without `just`.

_default:
    @just --list

# Compile, without running anything
check:
    cargo check --locked --all-targets

# Run all tests (a real Kafka is used where Java and Maven are installed)
test *ARGS:
    cargo test --locked {{ARGS}}

# Format, and report what clippy and the spell checker find
lint:
    cargo fmt
    cargo clippy --locked --all-targets -- -D warnings
    .ci/run spelling

# Run the steps of continuous integration; all of them without arguments
ci *STEPS:
    .ci/run {{STEPS}}

# Regenerate the reference pages of the documentation, and the snapshots of the tests
update:
    PULLWATCH_UPDATE_DOCS=1 cargo test --locked --test docs
    INSTA_UPDATE=always cargo test --locked

# Serve the documentation on 127.0.0.1:3000
book:
    mdbook serve docs

# Run one fuzz target for ten minutes (needs a nightly compiler and cargo-fuzz)
fuzz TARGET SECONDS="600":
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}

# Compare the speed with grep and jq on one large log
bench:
    cargo build --locked --release
    python3 benches/compare.py
