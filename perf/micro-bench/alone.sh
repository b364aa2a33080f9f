# Sourced by the commands that time one part of the server: builds the program, and runs it on one core.
#     alone PROGRAM CARGO-OPTION … -- ARGUMENT …
alone() {
    local program=$1 options=() pin=() target
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    cargo build --release --quiet --bin "$program" "${options[@]}"
    target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    # The last core: a process that is moved about measures its own cold caches.
    ! command -v taskset >/dev/null || pin=(taskset -c "$(($(nproc) - 1))")
    "${pin[@]}" "$target/release/$program" "$@"
}
cd "$(dirname "$0")/micro-bench"
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
