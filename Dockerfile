# mimik's web app on a CPU:
#   docker build -t mimik .
#   docker run --rm --read-only --tmpfs /tmp -v mimik:/data -e MIMIK_PASSWORD=... -p 8765:8765 mimik
# Nothing is written outside /tmp and /data, which holds the signing key; no display libraries are needed.
FROM python:3.12-slim

WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN pip install --no-cache-dir '.[web]' && rm -rf /src/* && useradd --system --no-create-home mimik \
 && mkdir /data && chown mimik /data

ENV MIMIK_DATA=/data PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER mimik
WORKDIR /tmp
VOLUME /data
EXPOSE 8765
# A password is required, since the app is served beyond this computer: MIMIK_PASSWORD.
CMD ["mimik", "web", "--host", "0.0.0.0", "--port", "8765", "--no-open"]
