# headrace and what it needs to run flows and their loop: nothing to build with, no root, nothing to write to but
# /project/.headrace and /tmp (so it runs with a read-only root file system, as `headrace k8s render` has it).
#
#   docker build --build-arg GIT_COMMIT=$(git rev-parse HEAD) -t headrace .
#   docker build --build-arg EXTRAS=gx -t headrace-worker .        flows only: 0.3 GB less
#
# The base is pinned by tag. A digest would pin it harder; whoever publishes this image should add the one they tested.
FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.9.11
WORKDIR /build
COPY . .
ARG EXTRAS=gx,ml,airflow,kubernetes,kubeflow
# Locked versions. Compiled here, since the image's root is read-only later; packages' own tests and C headers go.
RUN uv venv /opt/headrace \
 && uv pip install --no-cache --python /opt/headrace/bin/python -c requirements.lock ".[${EXTRAS}]" \
 && find /opt/headrace/lib -type d \( -name tests -o -path '*/pyarrow/include' \) -prune -exec rm -r {} + \
 && /opt/headrace/bin/python -m compileall -q -j 0 /opt/headrace/lib

FROM python:3.11-slim-bookworm
ARG GIT_COMMIT=
LABEL org.opencontainers.image.title=headrace org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.revision=$GIT_COMMIT
# The commit and the lock file are logged with every training run.
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HEADRACE_GIT_COMMIT=$GIT_COMMIT
RUN useradd --uid 10001 --create-home headrace \
 && install -d -o headrace -g headrace /project /project/.headrace
COPY --from=build /opt/headrace /opt/headrace
COPY --from=build /build/requirements.lock /project/requirements.lock
WORKDIR /project
USER 10001:10001
# Orchestrators ask /health and /ready themselves (`headrace run --http`).
HEALTHCHECK NONE
ENTRYPOINT ["headrace"]
CMD ["--help"]
