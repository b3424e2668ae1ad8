# One image with the command in it, for a machine without a GPU or with one:
#
#     docker build --target cpu  --build-arg TORCH_INDEX=URL --tag cs336lm:cpu  .
#     docker build --target cuda                             --tag cs336lm:cuda .
#     docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" cs336lm:cpu demo --out demo
#     docker run --rm --gpus all --ipc host --volume "$PWD:/work" cs336lm:cuda train --config run.toml
#     docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD:/work" cs336lm:cpu \
#         serve runs/a --host 0.0.0.0
#
# The registry's PyTorch brings CUDA's libraries, 3 GB of them; for the CPU, name the index of
# PyTorch's own that its installation page gives. Without it the image works, and is larger.

ARG PYTHON=3.12

# The wheel. The core is compiled here, and the compiler stays here.
FROM rust:1.89-slim-bookworm AS wheel
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/maturin && /opt/maturin/bin/pip install --no-cache-dir 'maturin>=1.9,<2'
WORKDIR /build
COPY Cargo.toml Cargo.lock pyproject.toml README.md LICENSE rustfmt.toml clippy.toml ./
COPY crates crates
COPY python python
RUN /opt/maturin/bin/maturin build --release --locked --out /wheels

# What both images share. torch.compile calls a C++ compiler.
FROM python:${PYTHON}-slim-bookworm AS base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 cs336lm
# What is compiled, and matplotlib's fonts, are kept where any user may write.
ENV PYTHONUNBUFFERED=1 \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /work
EXPOSE 8000
ENTRYPOINT ["cs336lm"]
CMD ["--help"]

FROM base AS cpu
ARG TORCH_INDEX=
ARG EXTRAS=hf,gguf,serve
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --index-url "$TORCH_INDEX" 'torch>=2.11'; \
    fi
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    wheel="$(find /wheels -name 'cs336lm-*.whl')" \
    && pip install --no-cache-dir "${wheel}[${EXTRAS}]"
USER 1000

FROM base AS cuda
ARG EXTRAS=hf,gguf,serve,tensorboard
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    wheel="$(find /wheels -name 'cs336lm-*.whl')" \
    && pip install --no-cache-dir "${wheel}[${EXTRAS}]"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
