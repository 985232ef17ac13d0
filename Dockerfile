# One static binary, without a shell and a package manager. Runs as a non-root user (65532) on a read-only file system; only
# /var/lib/pullwatch (positions, alerts, learned state) is written, and should be a volume. To read an audit log of mode 0600, run it as
# root with all capabilities dropped: --user 0 --cap-drop ALL.
#
#   docker buildx build --platform linux/amd64,linux/arm64 -t pullwatch .
#   docker run --read-only -v state:/var/lib/pullwatch -v ./pullwatch.yaml:/etc/pullwatch/pullwatch.yaml:ro pullwatch
#
# The digest is that of the index with the images of all platforms.
ARG BUILD_IMAGE=rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1
FROM ${BUILD_IMAGE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools cmake && rm -rf /var/lib/apt/lists/* \
    && rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    target="$(uname -m)-unknown-linux-musl" \
    && . deploy/packages/musl.env \
    && cargo build --locked --release --bin pullwatch --target "$target" \
    && cp "target/$target/release/pullwatch" /pullwatch && strip --strip-all /pullwatch \
    && check_size /pullwatch
# The root of the image: the binary, trusted certificate authorities, the user, and an empty state directory.
RUN root=/root-of-image \
    && install -D /pullwatch $root/usr/local/bin/pullwatch \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt $root/etc/ssl/certs/ca-certificates.crt \
    && install -d $root/etc/pullwatch $root/var/lib \
    && install -d -m 1777 $root/tmp \
    && echo 'pullwatch:x:65532:65532::/var/lib/pullwatch:/sbin/nologin' > $root/etc/passwd \
    && echo 'pullwatch:x:65532:' > $root/etc/group \
    && install -d -m 0700 /state/pullwatch

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pullwatch" \
      org.opencontainers.image.description="Detects who reads the registry credentials of a Kubernetes cluster, from the audit events of its apiserver" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/pullwatch/pullwatch" \
      org.opencontainers.image.documentation="https://github.com/pullwatch/pullwatch/tree/main/docs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /root-of-image /
# The directory is copied as a part of its parent: some builders create the destination itself with mode 0755.
COPY --from=build --chown=65532:65532 /state /var/lib/
ENV PULLWATCH_STATE_DIR=/var/lib/pullwatch \
    # All addresses: who can connect is decided by the container's network. Therefore `server.token_file` is required, unless this variable
    # is set to an empty text and the configuration decides.
    PULLWATCH_LISTEN=0.0.0.0:9417
USER 65532:65532
VOLUME /var/lib/pullwatch
EXPOSE 9417
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/local/bin/pullwatch", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/pullwatch"]
CMD ["run", "--config", "/etc/pullwatch/pullwatch.yaml"]
