# docker build -t replyhook .
# docker run -p 8080:8080 -v replyhook:/data -e TWILIO_AUTH_TOKEN -e PUBLIC_URL=https://bot.example.com replyhook
#
# Only what every builder knows: no BuildKit mounts, no heredocs.

FROM rust:1.95-bookworm AS build
WORKDIR /src

# Dependencies in a layer of their own: only a change of Cargo.toml or Cargo.lock compiles them again. The stubs stand for
# our sources. Benches, examples and tests are not part of the image, and cargo refuses a manifest that names a missing
# one: their tables are cut. `cargo clean -p` forgets the stubs' artifacts, which cargo, going by file times, could
# otherwise take for newer than the sources.
COPY Cargo.toml Cargo.lock ./
RUN awk '/^\[/ { cut = /^\[\[(bench|example|test)\]\]/ } !cut' Cargo.toml > trimmed && mv trimmed Cargo.toml \
 && mkdir -p src/bin/replyhook \
 && touch src/lib.rs \
 && echo 'fn main() {}' > src/bin/replyhook/main.rs \
 && cargo build --release --locked --bin replyhook \
 && cargo clean --release --locked --package replyhook

COPY src ./src
RUN cargo build --release --locked --bin replyhook


FROM debian:bookworm-slim

# The public CAs, for calls to Twilio. Copied, not installed: the image gets no package and the build needs no mirror.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/replyhook /usr/local/bin/replyhook

# A new volume takes its owner from here; without this the server could not write to it.
RUN install -d -o 10001 -g 10001 -m 0750 /data
VOLUME /data
# The store, replyhook.db, is here unless DATABASE_URL says otherwise.
WORKDIR /data

# A number, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 10001:10001

# Inside a container loopback is out of the health checks' and Prometheus' reach. IPv6 as well as IPv4: private networks
# (fly.io) are IPv6. Only the public port is exposed: do not publish 9090.
ENV REPLYHOOK__ADMIN__LISTEN="[::]:9090"
EXPOSE 8080

# What the server drains on: it finishes what it has begun, up to server.drain_s (20 s). Give it longer than that to stop:
# docker stop -t 30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/local/bin/replyhook", "health"]
ENTRYPOINT ["/usr/local/bin/replyhook"]
CMD ["serve"]
