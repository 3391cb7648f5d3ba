# The whole service on one machine with an NVIDIA GPU; needs the NVIDIA container toolkit to run.
#   docker build -f docker/cuda.Dockerfile -t nexusmix:cuda .
FROM nvidia/cuda:13.0.2-devel-ubuntu22.04

# Python 3.11 is in the distribution; the development image has what kernels are compiled with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3.11 python3.11-venv python3.11-dev ca-certificates g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /nexusmix
COPY . .
ENV NEXUSMIX_LOCK=requirements-cuda.lock
RUN ./nexusmix --help > /dev/null

ENV NEXUSMIX_HOME=/data NEXUSMIX_HOST=0.0.0.0
VOLUME /data
EXPOSE 8421
ENTRYPOINT ["./nexusmix"]
CMD ["up"]
