# Sourced by scripts that need a throw-away cluster. Needs environment.sh.
#
# cluster_start puts everything into one directory under TMPDIR and exports PGHOST,
# PGPORT and PGUSER; cluster_stop ends the server and removes the directory. Arrange for
# cluster_stop on exit before cluster_start.

cluster=

# cluster_start BINDIR [SETTING=VALUE]...
cluster_start() {
    cluster_bindir=$1
    shift
    cluster=$(mktemp -d "${TMPDIR:-/tmp}/wh-XXXXXX")
    chmod 755 "$cluster"
    ! is_root || chown postgres: "$cluster"
    # It listens on no network address, so its port is only the name of the socket.
    PGPORT=5432 PGHOST=$cluster PGUSER=postgres
    export PGPORT PGHOST PGUSER
    as_server "$cluster_bindir/initdb" --no-sync --auth=trust --locale=C.UTF-8 --encoding=UTF8 \
        --username=postgres --pgdata="$cluster/data" >"$cluster/initdb.log" 2>&1 \
        || { cat "$cluster/initdb.log" >&2; return 1; }
    local setting
    for setting in listen_addresses= "unix_socket_directories=$cluster" fsync=off "$@"; do
        echo "${setting%%=*} = '${setting#*=}'" >>"$cluster/data/postgresql.conf"
    done
    as_server "$cluster_bindir/pg_ctl" start --wait --silent --pgdata="$cluster/data" \
        --log="$cluster/server.log" </dev/null >/dev/null \
        || { cat "$cluster/server.log" >&2; return 1; }
}

cluster_stop() {
    [ -n "$cluster" ] || return 0
    if [ -f "$cluster/data/postmaster.pid" ]; then
        as_server "$cluster_bindir/pg_ctl" stop --silent --mode=immediate --pgdata="$cluster/data" || true
    fi
    rm -rf "$cluster"
    cluster=
}
