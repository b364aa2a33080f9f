# Sourced by the commands of this folder: installs the Debian packages that are missing.
#     needs FILE-OR-COMMAND=PACKAGE …
needs() {
    local missing=() pair file
    for pair in "$@"; do
        file=${pair%%=*}
        # A pattern of a path, or a command; some commands stand where only root looks.
        if [[ $file == /* ]]; then
            compgen -G "$file" >/dev/null && continue
        else
            command -v "$file" >/dev/null && continue
            [ -x "/usr/sbin/$file" ] && continue
        fi
        missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
}
# Debian's own Python has the libraries for statistics, tables, progress and plots; another one in the PATH has not.
libraries=(/usr/bin/python3=python3
    /usr/lib/python3/dist-packages/numpy=python3-numpy /usr/lib/python3/dist-packages/scipy=python3-scipy
    /usr/lib/python3/dist-packages/pandas=python3-pandas /usr/lib/python3/dist-packages/rich=python3-rich
    /usr/lib/python3/dist-packages/matplotlib=python3-matplotlib)
# The generator is built with AWS-LC.
common=(taskset=util-linux kamailio=kamailio cmake=cmake clang=clang "${libraries[@]}")
# Samples of a server's CPU, and flame graphs of them; TOP is the folder of the sources.
#     sampling TOP
sampling() {
    needs perf=linux-perf readelf=binutils addr2line=binutils
    local tools=$1/target/cargo-tools
    [ -x "$tools/bin/inferno-flamegraph" ] || cargo install --quiet --locked --root "$tools" --version 0.12.8 inferno
}
streams=('/usr/lib/*/kamailio/modules/tls.so=kamailio-tls-modules' openssl=openssl pkg-config=pkg-config /usr/include/openssl/ssl.h=libssl-dev)
