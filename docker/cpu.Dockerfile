# docker build -f docker/cpu.Dockerfile -t avgn:cpu .
# docker run --rm -v "$PWD:/data" avgn:cpu localize /data/video.mp4 --output /data/found.mp4
# an exact release; add @sha256:... of your registry to fix the very image
FROM python:3.12.12-slim-bookworm
COPY . /src
RUN pip install --no-cache-dir '/src[runtime,cpu]' && rm -rf /src && useradd --create-home avgn
USER avgn
WORKDIR /data
ENTRYPOINT ["avgn"]
CMD ["--help"]
