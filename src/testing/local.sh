# Runs one throwaway server and outlives the process that asked for it.
#
# Arguments: the directory to create, the directory of the binaries, the port, the lines to add to
# postgresql.conf, and for a replica the data directory of its primary. Standard input is a pipe whose write end only the owner holds: its end
# means that the owner let go or died, however it died. This process makes the directory and the
# server itself, so there is no moment at which the owner's death would leave either behind.
dir=$1 bin=$2 port=$3 settings=$4 primary=$5

umask 077
ulimit -c 0
exec 3<&0 </dev/null

# Whatever signal reaches this process, only its owner's end counts. A handler, unlike ignoring, is
# not handed down to the server.
trap : HUP INT TERM

# The primary's files, copied between the begin and the end of a backup. Not pg_basebackup, which
# not every place that has servers has.
copy() {
    # Files may vanish meanwhile; what matters of them is in the WAL.
    cp -R "$primary" "$dir/data"
    rm -rf "$dir"/data/postmaster.* "$dir"/data/pg_replslot/* "$dir"/data/pg_wal/0*
    : >"$dir/copied"
    # The end of the backup gives a label, which the owner sends, with an empty line behind it.
    while read -r line <&3; do
        if [ -z "$line" ]; then
            : >"$dir/data/standby.signal"
            return
        fi
        printf '%s\n' "$line" >>"$dir/data/backup_label"
    done
    false
}

create() {
    if [ -n "$primary" ]; then
        copy
    else
        "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync 3<&-
    fi
}

mkdir "$dir" || exit 1

if create >"$dir/log" 2>&1; then
    printf '%s\n' "$settings" >>"$dir/data/postgresql.conf"
    "$bin/postgres" -D "$dir/data" -p "$port" >"$dir/log" 2>&1 3<&- &
    server=$!
    (
        trap '' HUP INT TERM
        read -r _ <&3
        # Until the server heeds it: this shell had it ignore the signal, and it takes a while to
        # install its own handler.
        while kill -QUIT "$server" 2>/dev/null; do
            sleep 1
        done
    ) &
    guard=$!
    # A signal interrupts `wait`, so ask again until the server is really gone.
    while kill -0 "$server" 2>/dev/null; do
        wait "$server"
    done
    # Before the number can belong to another process.
    kill -KILL "$guard" 2>/dev/null
    wait "$guard"
fi

# The owner may still be there and want to read why the server ended.
: >"$dir/stopped"
read -r _ <&3
rm -rf "$dir"
