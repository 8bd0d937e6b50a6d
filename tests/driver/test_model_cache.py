"""A model in a bucket: fetched once, whole or not at all, nothing but JSON and safetensors."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.driver import model_cache
from pipeline.driver.model import find_model
from pipeline.driver.model_cache import fetch_model
from pipeline.engine.model.hub import INDEX
from pipeline.engine.model.snapshot import DEMO_FOLDER, ModelNotFound
from pipeline.sources import locations
from pipeline.sources.recording import InputError
from tests.output.test_object_store import bucket  # noqa: F401 - a fixture

s3fs = pytest.importorskip("s3fs")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(model_cache.HOME, str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def url(bucket, request):  # noqa: F811
    """The bundled model in a folder of the bucket, with files beside it that are not to be read."""
    name = f"{bucket}/{request.node.name}"
    files = s3fs.S3FileSystem()
    files.put(f"{DEMO_FOLDER}/", f"{name}/", recursive=True)
    files.pipe(f"{name}/pytorch_model.bin", b"a pickle")
    return name


def folders(cache):
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_a_model_is_fetched_once_by_any_number_of_processes(url, cache, monkeypatch):
    copies = []
    copy = model_cache._copy
    monkeypatch.setattr(model_cache, "_copy", lambda *given: (copies.append(given), copy(*given)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fetch_model, [url] * 4))
    assert len(set(found)) == len(copies) == 1
    assert {path.name for path in found[0].iterdir()} == {path.name for path in DEMO_FOLDER.iterdir()}
    assert find_model(url, None).revision == find_model("demo", None).revision
    assert find_model(url, None).name == url


def test_a_model_that_changed_is_another_copy(url, cache):
    fetch_model(url)
    s3fs.S3FileSystem().pipe(f"{url}/generation_config.json", b"{}")
    assert (fetch_model(url) / "generation_config.json").read_text() == "{}"
    assert len(folders(cache)) == 2


def test_what_comes_short_is_not_kept(url, cache, monkeypatch):
    files = locations.filesystem(url)
    whole = files.get_file

    def short(source, target):
        whole(source, target)
        with open(target, "r+b") as file:
            file.truncate(10)

    monkeypatch.setattr(files, "get_file", short)
    with pytest.raises(ModelNotFound, match=r"10 of .* bytes came"):
        fetch_model(url)
    assert folders(cache) == []


def test_an_index_names_nothing_but_weights(url, cache):
    index = {"weight_map": {"a": "../../model.safetensors"}}
    s3fs.S3FileSystem().pipe(f"{url}/{INDEX}", json.dumps(index).encode())
    with pytest.raises(ModelNotFound, match="no file of weights"):
        fetch_model(url)


def test_a_url_without_a_model_is_one_line(bucket, cache):  # noqa: F811
    with pytest.raises(ModelNotFound, match=r"holds no config\.json"):
        fetch_model(f"{bucket}/nothing")
    with pytest.raises(InputError, match="scheme not read"):
        fetch_model("ftp://host/model")


def test_a_file_url_is_the_folder_itself(cache):
    assert fetch_model(f"file://{DEMO_FOLDER}") == DEMO_FOLDER
