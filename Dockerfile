# syntax=docker/dockerfile:1
#
# mien for a CPU: the page by default, and every other command of it. What changes rarely (PyTorch, the libraries) lies
# in layers of its own below mien itself. How to run it: docs/service.md, compose.yaml.

ARG PYTHON=3.11-slim-bookworm

# ---- PyTorch, then the libraries of the chosen extras ----------------------------------------------------------------

FROM python:${PYTHON} AS libraries
ARG TORCH=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=web,bot,heic,c2pa,video,track
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PATH=/opt/mien/bin:$PATH
RUN python -m venv /opt/mien && pip install "torch==${TORCH}" --index-url "${TORCH_INDEX}"
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
# An empty package of the name is enough to install what the real one needs; versions are those of pyproject.toml.
# hadolint ignore=DL3013
RUN mkdir -p src/mien && touch src/mien/__init__.py \
    && pip install ".[${EXTRAS}]" "torch==${TORCH}" \
    && pip uninstall --yes mien

# ---- mien as one file ------------------------------------------------------------------------------------------------

FROM python:${PYTHON} AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-deps --wheel-dir /dist .

# ---- What runs -------------------------------------------------------------------------------------------------------

FROM python:${PYTHON}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/mien --shell /usr/sbin/nologin mien \
    && install --directory --owner=mien --group=mien --mode=0700 /var/lib/mien
COPY --from=libraries /opt/mien /opt/mien
ENV PATH=/opt/mien/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MIEN_JOBS_FOLDER=/var/lib/mien \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    GRADIO_ANALYTICS_ENABLED=False
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir --disable-pip-version-check --no-deps /dist/*.whl
USER 10001:10001
WORKDIR /var/lib/mien
VOLUME /var/lib/mien
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/healthz', timeout=8)"]
ENTRYPOINT ["mien"]
CMD ["web", "--host", "0.0.0.0"]
