# A static binary, and the root certificates for GitHub's.
# The build is reproducible: no paths of the builder, no build ID, locked dependencies.
#
#   make image

FROM docker.io/library/rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev ca-certificates
WORKDIR /src
COPY . .
ENV SOURCE_DATE_EPOCH=0 \
    RUSTFLAGS="--remap-path-prefix=/src=/ --remap-path-prefix=/usr/local/cargo=/cargo -C target-feature=+crt-static -C link-arg=-Wl,--build-id=none"
RUN cargo build --release --locked --package taskgate --bin taskgate

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/taskgate /taskgate
USER 65532:65532
ENTRYPOINT ["/taskgate"]
