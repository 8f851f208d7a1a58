# docker build -f docker/cuda.Dockerfile -t avgn:cuda .
# docker run --rm --gpus all -v "$PWD:/data" avgn:cuda localize /data/video.mp4 --output /data/found.mp4
# The driver comes from the host (NVIDIA container toolkit), CUDA and cuDNN from the wheels of onnxruntime-gpu.
# an exact release; add @sha256:... of your registry to fix the very image
FROM python:3.12.12-slim-bookworm
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY . /src
RUN pip install --no-cache-dir '/src[runtime,gpu]' && rm -rf /src && useradd --create-home avgn
USER avgn
WORKDIR /data
ENTRYPOINT ["avgn"]
CMD ["--help"]
