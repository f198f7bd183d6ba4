# Sourced by the other scripts: where things are and which server is meant. Changes nothing.
#
#   PG_CONFIG        pg_config of the server to build for (default: the one in PATH)
#   CARGO_TARGET_DIR where builds go (default: target)

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
venv=$root/target/venv
tools=$root/target/tools
pg_config=${PG_CONFIG:-pg_config}

# Rust is often installed for one user without being in every shell's PATH.
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH=$HOME/.cargo/bin:$PATH
fi

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

is_root() {
    [ "$(id -u)" = 0 ]
}

# Debian's /usr/bin/pg_config is a wrapper that picks the newest server: the real one does not change its mind.
real_pg_config() {
    local beside
    beside=$("$pg_config" --bindir)/pg_config
    if [ -x "$beside" ]; then echo "$beside"; else command -v "$pg_config"; fi
}

# 15 for "PostgreSQL 15.20 (Debian …)", 19 for "PostgreSQL 19beta1".
pg_major() {
    "$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'
}

# pg_config of the server of a major version, if it is installed here: only the server's own package brings
# `postgres`, and only the -dev one the headers.
installed_server() {
    local candidate=/usr/lib/postgresql/$1/bin/pg_config
    [ -x "${candidate%/*}/postgres" ] && [ -x "$candidate" ] \
        && [ -f "$("$candidate" --includedir-server)/postgres.h" ] && echo "$candidate"
}

# The same, or of the one that scripts/matrix-server fetches.
server_of() {
    installed_server "$1" || "$root/scripts/matrix-server" "$1"
}

# The version of this source.
source_version() {
    sed -nE 's/^version = "(.*)"$/\1/p' "${1:-$root}/Cargo.toml" | head -n 1
}

# The commit that this source is, for webhook.version(): of the checkout, or as `git archive` wrote it
# into the file; nothing if neither knows.
release_commit() {
    local written
    if [ -n "${WEBHOOK_EXT_COMMIT:-}" ]; then
        echo "$WEBHOOK_EXT_COMMIT"
    elif [ -e "$root/.git" ] && command -v git >/dev/null; then
        git -C "$root" describe --always --abbrev=12 --dirty --exclude='*' 2>/dev/null || true
    else
        written=$(cat "$root/.git-commit" 2>/dev/null || true)
        [[ ! $written =~ ^[0-9a-f]+$ ]] || echo "${written:0:12}"
    fi
}

# Cargo arguments that choose the server version, with any further features (separated by commas).
features() {
    echo --no-default-features --features "pg$(pg_major)${1:+,$1}"
}

# Cargo with the linker flag that cargo-pgrx uses: with the same flags, dependencies are built only once for both.
pgrx_link_flags="target.'cfg(all(target_family = \"unix\", not(target_os = \"macos\")))'.rustflags = [\"-C\", \"link-arg=-Wl,--no-gc-sections\"]"
cargo_like_pgrx() {
    cargo --config "$pgrx_link_flags" "$@"
}

# Where private servers go when their account cannot read the checkout. Another user could have made it.
shared_place() {
    local place
    place=/var/tmp/webhook_ext-$(id -u)-$(cksum <<<"$root" | cut -d' ' -f1)
    mkdir -p "$place"
    [ ! -L "$place" ] && [ -O "$place" ] || die "$place belongs to another user"
    echo "$place"
}

# A directory for the servers of other versions: as MATRIX says, else under target.
matrix_place() {
    local place=${MATRIX:-$root/target/matrix}
    mkdir -p "$place"
    if ! as_server test -x "$place" -a -r "$place"; then
        [ -z "${MATRIX:-}" ] || die "the account that servers run under cannot read MATRIX=$place"
        place=$(shared_place)/matrix || exit
        mkdir -p "$place"
    fi
    realpath "$place"
}

# Runs a command as the account that servers run under: initdb refuses root.
as_server() {
    if is_root; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}
