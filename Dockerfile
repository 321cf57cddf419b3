# The worker: headrace and what it needs to run flows, nothing to build with, no root.
# The base is pinned by tag. A digest would pin it harder; whoever publishes this image should add the one they tested.
FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.9.11
WORKDIR /build
COPY . .
# Locked versions with their hashes, without the extras for tests and for the embedded stack.
RUN uv venv /opt/headrace \
 && uv pip install --no-cache --python /opt/headrace/bin/python -c requirements.lock '.[gx]'

FROM python:3.11-slim-bookworm
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --create-home headrace \
 && install -d -o headrace -g headrace /project /project/.headrace
WORKDIR /project
USER 10001
ENTRYPOINT ["headrace"]
CMD ["--help"]
