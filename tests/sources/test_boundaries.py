"""What a stranger's manifest cannot reach: places outside of the roots, and private addresses."""

from __future__ import annotations

import http.server
import json
import threading
from contextlib import contextmanager

import pytest

from pipeline.planning import make_plan
from pipeline.sources import boundaries
from pipeline.sources.boundaries import PRIVATE, ROOTS, PrivateAddress, refuse_private
from pipeline.sources.listing import list_recordings
from pipeline.sources.recording import InputError
from tests.reading.made_audio import vowels, wav_bytes, write
from tests.reading.read_rows import content, open_reader


def plan_of(path):
    return make_plan(list_recordings([str(path)]).recordings, shard_hours=1.0).to_pylist()


def errors(rows):
    with open_reader() as reader:
        row, _ = content(reader.read(0, 1, rows))
    return [(r["error_type"], r["error_message"]) for r in row["recordings"]]


def manifest(folder, *paths):
    file = folder / "m.jsonl"
    file.write_text("".join(json.dumps({"id": str(i), "path": str(p)}) + "\n" for i, p in enumerate(paths)))
    return file


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """A folder that is the only one allowed, beside one that is not."""
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.wav", vowels(0.5))
    monkeypatch.setenv(ROOTS, f"{tmp_path}/inside, s3://bucket/speech")
    return tmp_path / "inside"


def test_what_lies_below_a_root_is_read(inside):
    assert (
        errors(plan_of(manifest(inside, "a.wav", inside / ".." / "inside" / "a.wav"))) == [(None, None)] * 2
    )


def test_a_manifest_names_nothing_outside_of_the_roots(inside):
    (inside / "link").symlink_to(inside.parent / "outside")
    (inside / "link.wav").symlink_to(inside.parent / "outside" / "a.wav")
    paths = [
        "../outside/a.wav",
        inside.parent / "outside" / "a.wav",
        "link/a.wav",
        "link.wav",
        f"{inside}2/a.wav",
    ]
    paths += ["s3://bucket/other/a.wav", "s3://bucket/speech/../other/a.wav", "s3://bucket/speech2/a.wav"]
    paths += ["s3://bucket/speech/%2e%2e/a.wav", "https://example.com/a.wav"]
    with pytest.raises(InputError) as raised:
        plan_of(manifest(inside, *paths))
    for number in range(1, len(paths) + 1):
        assert f"line {number}: " in str(raised.value)
    assert str(raised.value).count("refused: ") == len(paths)


def test_an_input_outside_of_the_roots_is_refused_and_a_link_in_a_folder_too(inside):
    with pytest.raises(InputError, match="refused: lies outside"):
        plan_of(inside.parent / "outside")
    (inside / "b.wav").symlink_to(inside.parent / "outside" / "a.wav")
    (inside / "linked").symlink_to(inside.parent / "outside")
    rows = plan_of(inside)
    found = dict(zip((row["recording_id"] for row in rows), errors(rows), strict=True))
    assert {name: kind for name, (kind, _) in found.items()} == {
        "a.wav": None, "b.wav": "refused", "linked/": "refused",
    }  # fmt: skip
    assert "refused: lies outside" in found["b.wav"][1]


def test_a_link_that_is_turned_after_the_plan_leads_nowhere(inside):
    (inside / "b.wav").symlink_to(inside / "a.wav")
    rows = plan_of(inside / "b.wav")
    (inside / "b.wav").unlink()
    (inside / "b.wav").symlink_to(inside.parent / "outside" / "a.wav")
    assert [kind for kind, _ in errors(rows)] == ["refused"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.9", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address, monkeypatch):
    with pytest.raises(PrivateAddress, match="private address"):
        refuse_private(address)
    monkeypatch.setenv(PRIVATE, "127.0.0.0/8,10.1.0.0/16")
    if address in {"127.0.0.1", "10.1.2.3", "::ffff:127.0.0.1"}:
        refuse_private(address)
    else:
        with pytest.raises(PrivateAddress):
            refuse_private(address)


def test_public_addresses_and_names_pass():
    for address in ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "example.com"):
        refuse_private(address)


@contextmanager
def web_server(host, answer):
    """The address of a web server on loopback; `answer(path)` is a status, a header or None, and a body."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, location, body = answer(self.path)
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer((host, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{host}:{server.server_address[1]}", asked
        server.shutdown()


def sound(_path):
    return 200, None, wav_bytes(vowels(0.5))


def test_a_private_web_address_is_refused_before_anything_is_asked(tmp_path):
    with web_server("127.0.0.1", sound) as (url, asked):
        port = url.rpartition(":")[2]
        for name in (url, f"http://localhost:{port}"):
            with pytest.raises(InputError, match=r"line 1: .*refused: leads to the private address"):
                plan_of(manifest(tmp_path, f"{name}/a.wav"))
        for name in (f"http://2130706433:{port}", f"http://127.1:{port}"):  # the client knows none of these
            assert [row["identity"] for row in plan_of(manifest(tmp_path, f"{name}/a.wav"))] == ["missing"]
        assert not asked


@pytest.mark.slow
def test_a_redirect_to_a_private_address_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(PRIVATE, "127.0.0.1/32")
    with web_server("127.0.0.2", sound) as (hidden, asked):
        with (
            web_server("127.0.0.1", lambda path: (302, f"{hidden}{path}", b"")) as (url, _),
            pytest.raises(InputError, match=r"refused: leads to the private address 127\.0\.0\.2"),
        ):
            plan_of(manifest(tmp_path, f"{url}/a.wav"))
        assert not asked
        monkeypatch.setenv(PRIVATE, "127.0.0.0/8")
        with web_server("127.0.0.1", lambda path: (302, f"{hidden}{path}", b"")) as (url, _):
            rows = plan_of(manifest(tmp_path, f"{url}/a.wav"))
            assert errors(rows) == [(None, None)]
            monkeypatch.setenv(PRIVATE, "127.0.0.1/32")
            boundaries_closed = errors(rows)
        assert [kind for kind, _ in boundaries_closed] == ["refused"]


def test_a_redirect_to_a_file_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setenv(PRIVATE, "127.0.0.1")
    secret = write(tmp_path / "secret.wav", vowels(0.5))
    with web_server("127.0.0.1", lambda _path: (302, f"file://{secret}", b"")) as (url, _):
        (kind, _message), = errors(plan_of(manifest(tmp_path, f"{url}/a.wav")))  # fmt: skip
    assert kind in {"missing", "unreadable", "changed", "refused"}


def test_the_settings_travel_to_other_machines(monkeypatch):
    monkeypatch.delenv(PRIVATE, raising=False)
    monkeypatch.setenv(ROOTS, "/data")
    assert boundaries.settings() == {ROOTS: "/data"}
