# The binary and its libraries: no shell, no package manager. Runs as a non-root user (65532) on a read-only file system; only
# /var/lib/pullwatch (positions, alerts, learned state) is written, and should be a volume.
#
#   docker build -t pullwatch .
#   docker run --read-only -v state:/var/lib/pullwatch -v /var/log/kubernetes/audit:/var/log/kubernetes/audit:ro pullwatch

FROM rust:1.95.0-bookworm AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --locked --release --bin pullwatch && cp target/release/pullwatch /pullwatch && strip --strip-debug /pullwatch
# The shared libraries at the paths where the binary expects them, the user, trusted certificate authorities, and name resolution.
RUN set -eu; root=/root-of-image; \
    mkdir -p $root/usr/local/bin $root/etc/ssl/certs $root/etc/pullwatch; \
    cp /pullwatch $root/usr/local/bin/; \
    for library in $(ldd /pullwatch | grep -o '/[^ ]*'); do mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library"; done; \
    cp /etc/ssl/certs/ca-certificates.crt $root/etc/ssl/certs/; \
    echo 'pullwatch:x:65532:65532::/var/lib/pullwatch:/sbin/nologin' > $root/etc/passwd; \
    echo 'pullwatch:x:65532:' > $root/etc/group; \
    echo 'hosts: files dns' > $root/etc/nsswitch.conf; \
    mkdir -p /state

FROM busybox:1.37.0-musl AS probe

FROM scratch
COPY --from=build /root-of-image /
COPY --from=build --chown=65532:65532 --chmod=0700 /state /var/lib/pullwatch
# Installed as wget, busybox is wget only. Used by the health check.
COPY --from=probe /bin/busybox /bin/wget
ENV PULLWATCH_STATE_DIR=/var/lib/pullwatch
USER 65532:65532
VOLUME /var/lib/pullwatch
EXPOSE 9417
# Requires the server's default address, port 9417, without TLS and without a token.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["/bin/wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9417/healthz"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/pullwatch"]
CMD ["run"]
