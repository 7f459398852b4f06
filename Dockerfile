# docker build -t mcip .
# PyTorch's default wheel runs on the CPU and, with `docker run --gpus all`, on NVIDIA GPUs. For a smaller image that has
# the CPU alone, name PyTorch's index of such wheels: --build-arg TORCH_INDEX=URL.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
ARG EXTRAS=search,serve,fast,onnx,photos,mcp,milvus
ARG TORCH_INDEX=
RUN python -m venv /opt/mcip
ENV PATH=/opt/mcip/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --constraint constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/mcip /opt/mcip
ENV PATH=/opt/mcip/bin:$PATH MCIP_CACHE=/data/cache HF_HOME=/data/cache/huggingface
# Images are mounted at /photos, read only; indexes and models lie in /data.
RUN useradd --create-home mcip && mkdir /photos /data && chown mcip /data
USER mcip
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["mcip"]
CMD ["--help"]
