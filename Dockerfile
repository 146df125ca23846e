FROM python:3.11.15-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY constraints.txt ./
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY broker_config ./broker_config
COPY bridge ./bridge
COPY cli ./cli
# The packages of the final image, compiled: its file system is read-only at run time.
RUN pip wheel --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/iot \
    && /opt/iot/bin/pip install --constraint constraints.txt /wheels/*.whl

FROM python:3.11.15-slim-bookworm
# A fixed number, so that a volume written by one version can be read by the next.
RUN groupadd --gid 10001 iot \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/iot \
        --shell /usr/sbin/nologin iot \
    && install -d -o iot -g iot -m 0700 /var/lib/iot
COPY --from=build /opt/iot /opt/iot
ENV PATH=/opt/iot/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    IOT_HOME=/var/lib/iot \
    IOT_MQTT_HOST=0.0.0.0 \
    IOT_MQTT_PORT=1883 \
    IOT_HTTP_HOST=0.0.0.0 \
    IOT_HTTP_PORT=8080
USER 10001:10001
WORKDIR /var/lib/iot
VOLUME /var/lib/iot
EXPOSE 1883 8080
STOPSIGNAL SIGTERM
# http.client: unlike urllib it takes no proxy from the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8080, timeout=3); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["iotctl", "up", "--quiet"]
