# The machine's daemon in a container. Mount the store and the directory of the socket:
#   docker run -v kits:/var/cache/kitd -v /run/kitd:/run/kitd kitd
# /run/kitd must belong to uid 65532 there; who may use the socket is its group, 65532.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY kitd kitd
COPY client client
COPY systemd systemd
COPY configs configs
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.12-slim
RUN groupadd --gid 65532 kitd \
 && useradd --uid 65532 --gid kitd --no-create-home --home-dir /var/cache/kitd kitd \
 && install --directory --owner kitd --group kitd --mode 0711 /var/cache/kitd \
 && install --directory --owner kitd --group kitd --mode 0755 /run/kitd
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels kitd
USER kitd
VOLUME /var/cache/kitd
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["kitctl", "--quiet", "status"]
ENTRYPOINT ["kitd"]
