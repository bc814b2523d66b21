# What the compose file relies on of the official image's entrypoint: the first start makes the
# superuser with POSTGRES_PASSWORD; arguments that are options are the server's.
set -euo pipefail
[ "${1:0:1}" = - ] && set -- postgres "$@"
mkdir -p "$PGDATA"
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username "${POSTGRES_USER:-postgres}" --pwfile <(printf %s "$POSTGRES_PASSWORD") \
    --auth scram-sha-256 --encoding UTF8 --locale C.UTF-8 >/dev/null
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi
exec "$@" -c listen_addresses='*' -k /tmp
