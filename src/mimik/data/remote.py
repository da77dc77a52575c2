"""Access to files at http(s) and s3 URLs: byte ranges and whole files, with retries."""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import shutil
import time
import urllib.error
import urllib.request
from typing import Any

from mimik.config import InputError, install_command

log = logging.getLogger(__name__)


class DamagedClipError(InputError):
    """A damaged clip; other clips may be intact."""


def is_url(path: str) -> bool:
    return path.startswith(("http://", "https://", "s3://"))


class _PassingError(Exception):
    """A transient server error."""


_REQUEST_RETRIES = 5
_BACKOFF_S = 0.5  # wait before the first retry; doubled after each
_REQUEST_TIMEOUT_S = 30.0
# Of the first file of a server, whose address may be wrong.
_FIRST_RETRIES = 2
_FIRST_TIMEOUT_S = 10.0


def fetch_first(url: str) -> bytes:
    """Read the first file of a server: as fetch, but an unreachable server is reported sooner."""
    log.info("reading %s", url)
    return fetch(url, retries=_FIRST_RETRIES, timeout_s=_FIRST_TIMEOUT_S) or b""


def fetch(
    url: str,
    start: int = 0,
    stop: int | None = None,
    file: Any = None,
    *,
    retries: int | None = None,
    timeout_s: float | None = None,
) -> bytes | None:
    """Read bytes start..stop of a file, or all of it; transient errors are retried.

    Args:
        url: http(s) or s3 URL.
        start, stop: byte range; stop None: the whole file.
        file: destination of a whole file, which is then not returned.
        retries: number of them; None: _REQUEST_RETRIES.
        timeout_s: of an http(s) request; None: _REQUEST_TIMEOUT_S.

    Returns:
        The bytes; None if a range was requested but the server only sends whole files.

    Raises InputError if it cannot be read, DamagedClipError if the file ends before stop.
    """
    retries = _REQUEST_RETRIES if retries is None else retries
    problem: Exception | None = None
    for attempt in range(retries + 1):
        if attempt:
            log.warning("%s cannot be read (%s); retry %d of %d", url, problem, attempt, retries)
            time.sleep(_BACKOFF_S * 2 ** (attempt - 1))
        try:
            if url.startswith("s3://"):
                return _ask_s3(url, start, stop, file)
            return _ask_http(url, start, stop, file, timeout_s or _REQUEST_TIMEOUT_S)
        except _PassingError as error:  # a retry may succeed
            problem = error
    raise _unreadable(url, problem)


def _unreadable(url: str, problem: Exception | None) -> InputError:
    return InputError(f"{url} cannot be read ({problem}); check the address and the server, then rerun to resume.")


def _past_the_end(url: str, stop: int | None) -> DamagedClipError:
    return DamagedClipError(f"{url} ends before byte {stop}: the index does not fit it.")


def _received(response: Any, length: int | None, file: Any) -> bytes:
    """The body of a response, written to the file if there is one.

    Raises _PassingError if its length is wrong.
    """
    if file is None:
        data = response.read()
        got = len(data)
    else:
        file.seek(0)
        file.truncate()
        shutil.copyfileobj(response, file, 1 << 20)
        data, got = b"", file.tell()
    if length is not None and got != length:
        raise _PassingError(f"{got} of {length} bytes came")
    return data


def _ask_http(url: str, start: int, stop: int | None, file: Any, timeout_s: float) -> bytes | None:
    """Read from a web server, or from public object storage."""
    request = urllib.request.Request(url)
    if stop is not None:
        request.add_header("Range", f"bytes={start}-{stop - 1}")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            if stop is None:
                length = response.headers.get("Content-Length")
                return _received(response, None if length is None else int(length), file)
            if response.status != 206:
                return None
            return _received(response, stop - start, file)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            raise _past_the_end(url, stop) from error
        if error.code not in (408, 425, 429) and error.code < 500:
            raise _unreadable(url, error) from error
        raise _PassingError(error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(getattr(error, "reason", error)) from error


@functools.cache
def _s3_client() -> Any:
    """The process's boto3 client, which finds keys, region and endpoint like the AWS tools."""
    try:
        import boto3
        import botocore.config
    except ImportError as error:
        raise InputError(f"an s3:// address needs boto3; install it with: {install_command('s3')}.") from error
    once = {"total_max_attempts": 1}  # Server retries, also after broken transfers
    config = botocore.config.Config(connect_timeout=_REQUEST_TIMEOUT_S, read_timeout=_REQUEST_TIMEOUT_S, retries=once)
    try:
        return boto3.Session().client("s3", config=config)
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise InputError(f"boto3 cannot be set up ({error}): check AWS_* and ~/.aws/config.") from error


def _ask_s3(url: str, start: int, stop: int | None, file: Any) -> bytes | None:
    """Read from an S3-compatible object store."""
    client = _s3_client()
    import urllib3.exceptions
    from botocore import exceptions

    bucket, _, key = url.removeprefix("s3://").partition("/")
    part = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
    try:
        response = client.get_object(Bucket=bucket, Key=key, **part)
        with contextlib.closing(response["Body"]) as body:
            return _received(body, response["ContentLength"] if stop is None else stop - start, file)
    except exceptions.ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        code = error.response["Error"]["Code"]
        if status == 416:
            raise _past_the_end(url, stop) from error
        if status >= 500 or status in (408, 429) or code in ("RequestTimeout", "SlowDown", "Throttling"):
            raise _PassingError(f"{status} {code}") from error
        if code == "NoSuchBucket":
            where = client.meta.endpoint_url
            raise InputError(f"{url}: no bucket {bucket} at {where}; check its name and AWS_ENDPOINT_URL.") from error
        if status in (401, 403):
            raise InputError(
                f"{url}: the store rejects these keys ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                f"and that they may read {bucket}."
            ) from error
        raise _unreadable(url, error) from error
    except exceptions.NoCredentialsError as error:
        raise InputError(
            f"{url}: no keys found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use the "
            "https:// address of a public store."
        ) from error
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        urllib3.exceptions.HTTPError,
        OSError,
    ) as error:
        raise _PassingError(error) from error
    except exceptions.BotoCoreError as error:
        raise _unreadable(url, error) from error
