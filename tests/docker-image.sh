#!/bin/sh
# Makes a Docker image with Debian's Postgres, for machines that reach no image registry.
#
# Usage: tests/docker-image.sh [IMAGE], as root, with debootstrap and a running Docker engine. Then run the
# tests with PHASEWISE_POSTGRES_IMAGE=IMAGE.
set -eu

image=${1:-phasewise-postgres-test}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=postgresql stable "$root"

# As much of the official image's entrypoint as the tests need.
cat >"$root/entrypoint.sh" <<'END'
#!/bin/sh
set -eu
[ "$1" = postgres ] && shift
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/test
as_postgres="setpriv --reuid=postgres --regid=postgres --clear-groups"

printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
chown postgres /tmp/password
$as_postgres "$bin/initdb" -D "$data" -A scram-sha-256 --pwfile=/tmp/password -E UTF8 --locale=C
rm /tmp/password
echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
exec $as_postgres "$bin/postgres" -D "$data" -c listen_addresses='*' "$@"
END
chmod 755 "$root/entrypoint.sh"

tar -C "$root" -c . | docker import \
    --change 'ENTRYPOINT ["/entrypoint.sh"]' \
    --change 'CMD ["postgres"]' \
    --change 'EXPOSE 5432' \
    - "$image"
