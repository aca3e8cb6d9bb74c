# Two images: `docker build --target odtrain .` trains, sweeps and keeps the tracking server; `--target serve` is
# odtrain-runtime alone, which serves one model's files. Every package is held against its digest.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS wheels
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY deploy/build.hashed.txt deploy/
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r deploy/build.hashed.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./runtime .

FROM python:${PYTHON}-slim-bookworm AS serve-packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY deploy/serve.hashed.txt /tmp/
COPY --from=wheels /wheels/odtrain_runtime-*.whl /wheels/
RUN python -m venv --without-pip /opt/odtrain \
    && python -m venv /opt/pip \
    && /opt/pip/bin/pip --python /opt/odtrain install --no-compile --require-hashes -r /tmp/serve.hashed.txt \
    && /opt/pip/bin/pip --python /opt/odtrain install --no-compile --no-deps /wheels/odtrain_runtime-*.whl

FROM python:${PYTHON}-slim-bookworm AS serve
COPY --from=serve-packages /opt/odtrain /opt/odtrain
RUN useradd --uid 1000 --no-create-home --home-dir /tmp odtrain
ENV PATH=/opt/odtrain/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /tmp
EXPOSE 8766
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8766/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "odtrain_runtime"]
CMD ["serve", "/model", "--host=0.0.0.0"]

FROM python:${PYTHON}-slim-bookworm AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.hashed.txt deploy/build.hashed.txt /tmp/
COPY --from=wheels /wheels /wheels
RUN python -m venv /opt/odtrain \
    && /opt/odtrain/bin/pip install --require-hashes -r /tmp/build.hashed.txt \
    && /opt/odtrain/bin/pip install --no-build-isolation --require-hashes -r /tmp/requirements.hashed.txt \
    && /opt/odtrain/bin/pip install --no-deps /wheels/*.whl

FROM python:${PYTHON}-slim-bookworm AS odtrain
COPY --from=packages /opt/odtrain /opt/odtrain
RUN useradd --uid 1000 --create-home --home-dir /work odtrain \
    && install --directory --owner=1000 --group=1000 /srv/odtrain /srv/model
ENV PATH=/opt/odtrain/bin:$PATH HOME=/work PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["odtrain"]
CMD ["--help"]
