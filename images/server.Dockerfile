# A PostgreSQL with the extension, to try it.
#
#   make package
#   docker build --file images/server.Dockerfile --tag postgres-webhook target/packages
#   docker run --rm --env POSTGRES_PASSWORD=secret --publish 127.0.0.1:5432:5432 postgres-webhook
#
# Then, in a database: CREATE EXTENSION webhook_ext. The packages are for the Debian release that they were
# built on, and later ones; the base has to be one of these.
ARG POSTGRES=18
ARG DEBIAN=trixie
FROM docker.io/library/postgres:${POSTGRES}-${DEBIAN}

ARG POSTGRES
ARG VERSION=0.2.0

# The base has the server's package, so nothing else is installed.
COPY postgresql-${POSTGRES}-webhook-ext_${VERSION}-1_*.deb /tmp/
RUN dpkg --install /tmp/postgresql-*-webhook-ext_*.deb && rm /tmp/postgresql-*-webhook-ext_*.deb

# The command of the base; the library starts the workers of all databases with the server.
CMD ["postgres", "-c", "shared_preload_libraries=webhook_ext"]
