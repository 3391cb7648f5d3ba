# The whole service on one machine without a GPU. Build from the root of the repository:
#   docker build -f docker/cpu.Dockerfile -t nexusmix .
FROM debian:12-slim AS run

# libnuma1 and a compiler: vLLM's CPU build loads the one and calls the other.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3.11 python3.11-venv ca-certificates g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*

# Nothing runs as root, and nobody else reads the data folder.
RUN useradd --create-home --uid 10001 nexusmix \
    && install --directory --owner=nexusmix --group=nexusmix /nexusmix \
    && install --directory --owner=nexusmix --group=nexusmix --mode=700 /data
USER nexusmix

WORKDIR /nexusmix
COPY --chown=nexusmix:nexusmix . .
# --help installs what runs, and does nothing else.
RUN ./nexusmix --help > /dev/null

# The tools that build the documentation stay behind in this stage.
FROM run AS docs
RUN ./nexusmix docs

FROM run
COPY --from=docs --chown=nexusmix:nexusmix /nexusmix/service/docs_site service/docs_site

ENV NEXUSMIX_HOME=/data NEXUSMIX_HOST=0.0.0.0
VOLUME /data
EXPOSE 8421
ENTRYPOINT ["./nexusmix"]
CMD ["up"]
