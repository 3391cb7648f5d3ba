# The whole service on one machine with an NVIDIA GPU; needs the NVIDIA container toolkit to run.
#   docker build -f docker/cuda.Dockerfile -t nexusmix:cuda .
FROM debian:12-slim AS run

# CUDA comes with the wheels; kernels are compiled against the headers of Python.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3.11 python3.11-venv python3.11-dev ca-certificates g++ \
    && rm -rf /var/lib/apt/lists/*

# Nothing runs as root, and nobody else reads the data folder.
RUN useradd --create-home --uid 10001 nexusmix \
    && install --directory --owner=nexusmix --group=nexusmix /nexusmix \
    && install --directory --owner=nexusmix --group=nexusmix --mode=700 /data
USER nexusmix

WORKDIR /nexusmix
COPY --chown=nexusmix:nexusmix . .
ENV NEXUSMIX_LOCK=gpu \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
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
