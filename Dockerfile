# The ad server as an image: non-root, nothing to install packages with, happy on a read-only root file system.
#
# Both stages use one base, pinned by tag. To pin it to the byte as well, look the digest up once
# (docker buildx imagetools inspect python:3.13-slim-trixie) and write it behind the tag here, or pass it:
#   docker build --build-arg BASE=python:3.13-slim-trixie@sha256:<digest> .
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
# The venv never gets a pip of its own: the base image's pip works on it from outside.
RUN python -m venv --without-pip /opt/adserver
WORKDIR /build

# Every file of every dependency is checked against the hashes in the lock; wheels only, so there is no compiler here.
COPY requirements/run.txt requirements/run.txt
RUN pip --python /opt/adserver/bin/python install --require-hashes --only-binary=:all: -r requirements/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY adserver/ adserver/
# The lock also holds the build backend; once it has built the wheel it goes, with what only it needed. `pip check`
# proves nothing that stays has lost a dependency, the last line that what is left starts.
RUN pip --python /opt/adserver/bin/python wheel --no-deps --no-build-isolation --no-index --wheel-dir dist . \
    && pip --python /opt/adserver/bin/python install --no-deps --no-index dist/adserver-*.whl \
    && pip --python /opt/adserver/bin/python uninstall --yes \
        hatchling packaging pathspec pluggy tomlkit trove-classifiers \
    && pip --python /opt/adserver/bin/python check \
    && find /opt/adserver -name __pycache__ -prune -exec rm -r {} + \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/adserver/lib \
    && PYTHONDONTWRITEBYTECODE=1 /opt/adserver/bin/adserver --help > /dev/null


FROM ${BASE}
LABEL org.opencontainers.image.title="adserver" \
      org.opencontainers.image.description="A direct-sold ad server that a newsroom can run itself." \
      org.opencontainers.image.licenses="Apache-2.0"

# - The user has a number, so that Kubernetes can see it is not root, and neither a home nor a shell.
# - pip and the wheel it is restored from go: nothing is ever installed into a running container.
# - The base image ships the standard library without bytecode, and a read-only file system could never keep
#   what Python compiles: without this line every worker would compile it again at every start.
# - The data directory gets the owner and the mode (0700) the service insists on; a new named volume inherits both.
RUN groupadd --gid 10001 adserver \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin adserver \
    && python -m pip uninstall --yes --quiet --root-user-action=ignore pip \
    && python -c "import pathlib, shutil, sysconfig; shutil.rmtree(pathlib.Path(sysconfig.get_path('stdlib'), 'ensurepip'))" \
    && python -m compileall -q --invalidation-mode unchecked-hash \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/adserver

COPY --from=builder /opt/adserver /opt/adserver
# The sample catalog, pictures included. It seeds an empty store; mount another one over it.
COPY config/ /config/

# PYTHONDONTWRITEBYTECODE: all bytecode is already here. PYTHONUNBUFFERED: a killed container's last log line is out.
ENV PATH=/opt/adserver/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ADSERVER_HOST=0.0.0.0 \
    ADSERVER_PORT=8000 \
    ADSERVER_OPS_PORT=9090 \
    ADSERVER_CONFIG=/config \
    ADSERVER_DATA_DIR=/var/lib/adserver \
    ADSERVER_LOG_FORMAT=json

USER 10001:10001
WORKDIR /
# The ledger. Everything else the image needs to write is a small tmpfs on /tmp.
VOLUME ["/var/lib/adserver"]
# 8000: ads and beacons. 9090: metrics, readiness, API description; keep it inside.
EXPOSE 8000 9090
STOPSIGNAL SIGTERM

# Alive, not ready: a container that waits for its disk or its catalog is not helped by a restart. The empty
# ProxyHandler keeps a proxy set for the container out of a question it asks itself.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['ADSERVER_PORT'] + '/healthz', timeout=4)"]

# No tini: process 1 is the service's own parent. It handles SIGTERM and SIGHUP itself, and starts, watches and reaps
# every process there is (the workers, the embedded Valkey); none of them leaves grandchildren to be adopted.
ENTRYPOINT ["adserver"]
CMD ["serve"]
