# One file for x86-64 and arm64. docs/operate/deployment.md says what is in the image and why.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY deploy/build.lock deploy/requirements.lock deploy/
# Two environments: the build tools stay here, the service's own is copied. Only wheels with a hash in the lock are installed.
RUN python3 -m venv /opt/tools && python3 -m venv --without-pip /opt/portrait \
 && /opt/tools/bin/pip install --require-hashes --only-binary :all: -r deploy/build.lock \
 && /opt/tools/bin/pip --python /opt/portrait/bin/python install \
      --require-hashes --only-binary :all: -r deploy/requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY service service
COPY clients/python clients/python
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . ./clients/python \
 && /opt/tools/bin/pip --python /opt/portrait/bin/python install --no-deps --no-index /wheel/*.whl \
 && /opt/tools/bin/cyclonedx-py environment /opt/portrait/bin/python \
      --output-reproducible --output-format JSON --output-file /opt/portrait/sbom.cdx.json
# Remove what a service on a CPU never loads: LiteRT's GPU backend and compilers, NumPy's tests and Fortran bridge, type stubs,
# symbols of extension modules. Libraries in *.libs were patched after linking, and strip would break them. Not every
# architecture has all of these. The imports at the end prove that nothing needed is gone; no model is run, since LiteRT crashes
# where another architecture is emulated with this one's /sys.
RUN set -- /opt/portrait/lib/python3*/site-packages \
 && rm -rf "$1"/ai_edge_litert/libLiteRtWebGpuAccelerator.so "$1"/ai_edge_litert/tools "$1"/ai_edge_litert/vendors \
      "$1"/numpy/f2py "$1"/numpy/distutils "$1"/numpy/_core/include \
 && find "$1"/numpy -type d -name tests -prune -exec rm -r {} + \
 && find "$1" -name '*.pyi' -delete \
 && find "$1" -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
 && /opt/portrait/bin/python -c "import ai_edge_litert.interpreter, portrait.server.app, portrait.cli.process, portrait.cli.tools"

FROM ${BASE}
# Unpinned, so that a new build gets Debian's security updates; a pinned version would fail once it is superseded.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libjemalloc2 tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
 && groupadd --system --gid 10001 portrait \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin portrait \
 && install --directory --owner portrait --group portrait --mode 0700 /var/lib/portrait
COPY --from=build /opt/portrait /opt/portrait
COPY deploy/healthcheck.py /opt/portrait/
# A container is reached only if it listens on all addresses; where its ports are published decides who can reach it.
# PORTRAIT_INSECURE=false refuses to start without tokens and TLS. A new volume gets the owner of the folder it is mounted
# over, so the folder of PORTRAIT_DATA exists. The loader finds jemalloc by its name on each architecture.
ENV PATH=/opt/portrait/bin:$PATH \
    LD_PRELOAD=libjemalloc.so.2 \
    PYTHONMALLOC=malloc \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PORTRAIT_DATA=/var/lib/portrait \
    PORTRAIT_HOST=0.0.0.0 \
    PORTRAIT_INSECURE=true \
    PORTRAIT_LOG_FORMAT=json
USER 10001:10001
EXPOSE 8080/tcp 50051/tcp 50000/udp 50000/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=3s --start-period=10s --retries=3 CMD ["python", "/opt/portrait/healthcheck.py"]
ENTRYPOINT ["tini", "--", "portrait"]
CMD ["serve"]
ARG VERSION=unversioned
ARG REVISION=unknown
LABEL org.opencontainers.image.title="portrait" \
      org.opencontainers.image.description="Real-time person segmentation on ordinary CPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
