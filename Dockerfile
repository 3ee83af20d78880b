# docker build -t antiphon .
# docker run --rm -p 8000:8000 -v "$PWD/runs:/runs:ro" --stop-timeout 45 antiphon /runs/pairs
#
# The C++ compiler stays in the image: kernels are built for the processor that they run on, in a second or two, when a
# model is first loaded. A volume at /home/antiphon/.cache, which takes over that folder's owner, keeps them.

FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 antiphon \
    && install --directory --owner antiphon /home/antiphon/.cache

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# By itself, and first: it is by far the largest, and changes seldom.
RUN pip install --index-url https://download.pytorch.org/whl/cpu "torch>=2.8,<2.14"

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install ".[otel]"

USER antiphon
WORKDIR /home/antiphon
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["antiphon", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--help"]
