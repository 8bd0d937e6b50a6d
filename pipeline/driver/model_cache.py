"""A model behind a URL, fetched once a node into a folder that is named after what it holds."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.engine.model.hub import FILES, INDEX
from pipeline.engine.model.snapshot import ModelNotFound
from pipeline.errors import one_line, with_back_off
from pipeline.sources.locations import absolute_uri, filesystem, info_identity, local_path

SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
MAX_INDEX_BYTES = 16 * 2**20
HOME = "EARSHARD_CACHE"


def fetch_model(url: str) -> Path:
    """The folder of a model's files on this node, fetched if they are not there yet.

    Only the files of settings and weights that the engine reads are taken. A copy is known by the URL and the
    size and etag of every file, so that a model that was changed is another copy; processes of one node wait
    for the one that fetches. Copies lie in `$EARSHARD_CACHE/models`, or `~/.cache/earshard/models`. Raises
    `InputError` for a scheme that is not read, and `ModelNotFound` for what is not there or cannot be read.
    """
    uri = absolute_uri(url, "")
    folder = local_path(uri)
    if folder is not None:
        return Path(folder)
    try:
        return _fetch(uri.rstrip("/"))
    except ModelNotFound:
        raise
    except Exception as error:  # every remote file system has errors of its own
        raise ModelNotFound(f"{uri}: cannot be read: {type(error).__name__}: {one_line(error)}") from error


def _fetch(url: str) -> Path:
    files = filesystem(url)
    found = _remote_files(files, url)
    if "config.json" not in found:
        raise ModelNotFound(f"{url} holds no config.json of a model")
    key = json.dumps([url, {name: info_identity(info) for name, info in found.items()}], sort_keys=True)
    folder = cache_folder() / hashlib.sha256(key.encode()).hexdigest()[:40]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _copy(files, url, found, folder)
    return folder


def cache_folder() -> Path:
    """Where copies of models lie on this node."""
    home = os.environ.get(HOME)
    return (Path(home) if home else Path.home() / ".cache" / "earshard") / "models"


def _remote_files(files: Any, url: str) -> dict[str, dict[str, Any]]:
    """What `fsspec` says of the model's files that are there, by name; a web server lists no folder."""
    found = {}
    for name in (name for name in FILES if "*" not in name):
        if (info := _info(files, f"{url}/{name}")) is not None:
            found[name] = info
    if INDEX in found:
        for name in _shards(with_back_off(lambda: files.cat_file(f"{url}/{INDEX}")), url):
            if (info := _info(files, f"{url}/{name}")) is None:
                raise ModelNotFound(f"{url} lacks {name}, which its {INDEX} names")
            found[name] = info
    return found


def _info(files: Any, url: str) -> dict[str, Any] | None:
    try:
        return with_back_off(lambda: files.info(url))
    except FileNotFoundError:
        return None


def _shards(index: bytes, url: str) -> list[str]:
    """The weight files that an index names. Raises `ModelNotFound` for a name that is none."""
    try:
        names = sorted(set(json.loads(index[:MAX_INDEX_BYTES])["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelNotFound(f"{url}/{INDEX} is no index of weights") from error
    wrong = [name for name in names if not isinstance(name, str) or not SHARD.fullmatch(name)]
    if wrong:
        raise ModelNotFound(f"{url}/{INDEX} names {wrong[0]!r}, which is no file of weights")
    return names


def _copy(files: Any, url: str, found: dict[str, dict[str, Any]], folder: Path) -> None:
    """Every file into a temporary folder, which then becomes `folder`."""
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        for name, info in found.items():
            target = temporary / name
            with_back_off(partial(files.get_file, f"{url}/{name}", str(target)))
            size, came = info.get("size"), target.stat().st_size
            if size is not None and came != size:
                raise ModelNotFound(f"{url}/{name}: {came} of {size} bytes came")
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
