# The server as a container image.
#
#   docker build -t replyhook .
#   docker run -p 8080:8080 -v replyhook:/data -e TWILIO_AUTH_TOKEN -e PUBLIC_URL=https://bot.example.com replyhook
#
# Uses only instructions that every builder supports: no BuildKit mounts, no heredocs.

FROM rust:1.95-bookworm AS build
WORKDIR /src

# Dependencies in their own layer, so that only a change of Cargo.toml or Cargo.lock compiles them again, and the other
# packages of the workspace in a second one, so that a change of src compiles the root package alone. Stubs replace the
# sources. The tables of benches, examples and tests are removed from the manifest: cargo rejects a manifest that names
# missing files. `cargo clean` removes the artifacts of the stubs. Cargo compares file times, and could otherwise regard
# them as newer than the sources.
COPY Cargo.toml Cargo.lock ./
COPY crates/core/Cargo.toml crates/core/
COPY crates/emulator/Cargo.toml crates/emulator/
RUN awk '/^\[/ { cut = /^\[\[(bench|example|test)\]\]/ } !cut' Cargo.toml > trimmed && mv trimmed Cargo.toml \
 && mkdir -p src/bin/replyhook crates/core/src crates/emulator/src \
 && touch src/lib.rs crates/core/src/lib.rs crates/emulator/src/lib.rs \
 && echo 'fn main() {}' > src/bin/replyhook/main.rs \
 && cargo build --release --locked --bin replyhook \
 && cargo clean --release --locked --package replyhook --package replyhook-core --package replyhook-emulator

# With the shortened manifest: Cargo.toml is not copied again.
COPY crates ./crates
RUN cargo build --release --locked --bin replyhook \
 && cargo clean --release --locked --package replyhook

COPY src ./src
RUN cargo build --release --locked --bin replyhook


# The same Debian release as above, since the program needs the C library that it was linked with, or a newer one.
FROM debian:bookworm-slim

# The public CAs, for TLS to Twilio. Copied instead of installed, so that this stage needs no package mirror.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/replyhook /usr/local/bin/replyhook

# A new volume gets owner and mode from this folder. Otherwise it would belong to root, and the server could not write.
RUN install -d -o 10001 -g 10001 -m 0750 /data
VOLUME /data
# The default of DATABASE_URL is replyhook.db in the working directory.
WORKDIR /data

# A number instead of a name, so that Kubernetes' runAsNonRoot can check that it is not root.
USER 10001:10001

# The default, loopback, cannot be reached from outside of the container, where health checks and Prometheus are. [::]
# also accepts IPv4; private networks such as Fly's use IPv6. Never publish port 9090: only the public port is exposed.
ENV REPLYHOOK__ADMIN__LISTEN="[::]:9090"
EXPOSE 8080

# SIGTERM starts a graceful shutdown, which takes up to server.shutdown_timeout_s (20 s). Docker kills the process after
# 10 s by default, so stop it with: docker stop -t 30
STOPSIGNAL SIGTERM
# In exec form, like ENTRYPOINT: neither starts a shell, and the server is process 1, which receives the signal.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/local/bin/replyhook", "health"]
ENTRYPOINT ["/usr/local/bin/replyhook"]
CMD ["serve"]
