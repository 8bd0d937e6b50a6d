"""Pages to read and to listen to: what they show, what they play, and that nothing breaks them."""

from __future__ import annotations

import base64
import hashlib
import re
import wave
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from pipeline.results import player
from pipeline.results.faults import Faults
from pipeline.results.player import Audio
from pipeline.results.recordings import join_rows, read_plan_rows
from pipeline.sources.locations import stat_identity
from tests.fakes import plan_row
from tests.results.test_exports import export, make_output, segment, transcript

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}\u202e"
NO_AUDIO = Audio(how="none", max_bytes=0, rows={})


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), and its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def word(text, start_s, probability):
    return {"start_s": start_s, "end_s": start_s + 0.4, "word": text, "probability": probability}


def shown(*rows, audio=NO_AUDIO, folder):
    return player.shown_recording(join_rows(list(rows)), audio, folder / "page.html")


def render(*rows, audio=NO_AUDIO, folder):
    return player.render_player([shown(*rows, audio=audio, folder=folder)], rows[0]["recording_id"])


@pytest.fixture
def recording(tmp_path):
    """A recording of one second on disk, and its row of the plan."""
    path = tmp_path / "in" / "a b#1.wav"
    path.parent.mkdir()
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 16_000)
    return path, plan_row("a b#1.wav", uri=str(path), identity=stat_identity(path.stat()))


def test_words_are_tinted_by_how_sure_they_are_and_say_when_they_begin(tmp_path):
    words = [word(" sure", 1.0, 0.99), word(" hardly", 1.5, 0.6), word(" no", 2.0, 0.1)]
    page = Page(render(transcript("a", [segment("sure hardly no", words=words)]), folder=tmp_path))
    found = [one for one in page.all("span") if "data-start" in one]
    assert [one["class"] for one in found] == ["w", "w p2", "w p0"]
    assert [one["data-start"] for one in found] == ["1.0", "1.5", "2.0"]
    assert found[2]["title"] == "10% sure"


def test_what_was_decoded_again_and_what_is_unsure_is_marked(tmp_path):
    segments = [
        segment("fine", 0.0, 1.0),
        segment("again", 1.0, 2.0, fallback="dense"),
        segment("unsure", 2.0, 3.0, avg_logprob=-0.9),
    ]
    one = shown(transcript("a", segments), folder=tmp_path)
    assert [[mark for mark, _ in found.marks] for found in one.segments] == [
        [],
        ["decoded again"],
        ["unsure"],
    ]


def test_channels_stand_in_columns_under_their_names(tmp_path):
    rows = [transcript("a", [segment("hello", 1.0)]), transcript("a", [segment("yes", 2.0)], channel=1)]
    one = shown(*rows, folder=tmp_path)
    assert (one.layout, one.speakers) == ("two", ("channel 0", "channel 1"))
    assert [(found.column, found.speaker) for found in one.segments] == [(0, "channel 0"), (1, "channel 1")]


def test_nothing_in_a_recording_breaks_its_page(tmp_path):
    hostile = transcript(HOSTILE, [segment(HOSTILE, words=[word(HOSTILE, 0.0, 0.1)])], model=HOSTILE)
    text = render(hostile, folder=tmp_path)
    page = Page(text)
    assert not page.all("img")
    assert len(page.all("script")) == 1
    assert "{{ 7*7 }}" in page.text
    assert "\u202e" not in text


def test_a_page_allows_its_own_style_and_script_and_no_request(tmp_path):
    text = render(transcript("a", [segment("x")]), folder=tmp_path)
    policy = next(one["content"] for one in Page(text).all("meta") if "content" in one)
    for tag, name in (("style", "style-src"), ("script", "script-src")):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_the_audio_is_linked_from_where_the_page_lies(recording, tmp_path):
    path, row = recording
    audio = Audio(how="link", max_bytes=0, rows={row["recording_id"]: row})
    (element,) = Page(render(transcript(row["recording_id"]), audio=audio, folder=tmp_path)).all("audio")
    assert element["src"] == "in/a%20b%231.wav"
    assert (tmp_path / unquote(element["src"])).samefile(path)


def test_the_audio_is_embedded_up_to_a_limit(recording, tmp_path):
    path, row = recording
    size, name = path.stat().st_size, row["recording_id"]

    def source(max_bytes):
        audio = Audio(how="embed", max_bytes=max_bytes, rows={name: row})
        return shown(transcript(name), audio=audio, folder=tmp_path).audio

    kind, _, content = source(size).partition(",")
    assert kind.startswith("data:audio/")
    assert base64.b64decode(content) == path.read_bytes()
    assert source(size - 1) == "in/a%20b%231.wav"


def test_a_clip_is_played_from_its_place_in_the_file(recording, tmp_path):
    _, row = recording
    audio = Audio(how="link", max_bytes=0, rows={"clip": row | {"member": "t=12.5000,20.0000"}})
    assert shown(transcript("clip"), audio=audio, folder=tmp_path).offset_s == 12.5


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"uri": "s3://bucket/a.wav"}, "embedded"),
        ({"member": "inside.wav"}, "embedded"),
    ],
)
def test_audio_that_no_page_can_reach_is_said_to_be_so(recording, tmp_path, changes, note):
    _, row = recording
    audio = Audio(how="link", max_bytes=0, rows={"a": row | changes})
    one = shown(transcript("a"), audio=audio, folder=tmp_path)
    assert one.audio is None
    assert note in one.note


def test_audio_that_is_gone_costs_no_page(recording, tmp_path):
    path, row = recording
    path.unlink()
    audio = Audio(how="embed", max_bytes=1 << 20, rows={"a": row})
    one = shown(transcript("a", [segment("still here")]), audio=audio, folder=tmp_path)
    assert (one.audio, one.segments[0].text) == (None, "still here")
    assert "no such file" in one.note


def test_a_page_for_each_recording_or_one_for_all(tmp_path):
    bad = transcript("bad.wav", status="failed", error_type="corrupt", error_message="broken", text=None)
    silent = transcript("silent.wav")
    out = make_output(tmp_path / "out", [transcript("x/a.wav", [segment("fine")]), bad, silent])
    assert export(out, "html")["num_written"] == 2
    assert "Nobody speaks" in (out / "export" / "silent.wav.html").read_text()
    assert "fine" in (out / "export" / "x" / "a.wav.html").read_text()
    assert export(out, "html", "--one-page")["num_written"] == 2
    page = Page((out / "export" / "transcripts.html").read_text())
    assert len(page.all("section")) == 3
    assert "broken" in page.text
    assert [one["href"] for one in page.all("a")] == ["#r1", "#r2", "#r3"]


def test_options_of_pages_are_refused_for_other_formats(tmp_path):
    out = make_output(tmp_path / "out", [transcript("a.wav")])
    assert "--audio does nothing for --format srt" in export(out, "srt", "--audio", "embed", status=2)


def test_one_page_that_cannot_be_made_costs_no_other(tmp_path):
    odd = join_rows([transcript("b", [segment("x") | {"words": [{}]}])])
    faults = Faults()
    good = [join_rows([transcript(name, [segment("x")])]) for name in ("a", "c")]
    assert player.write_pages(str(tmp_path), [good[0], odd, good[1]], NO_AUDIO, faults) == 2
    assert faults.num == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "c.html"]


def test_the_rows_of_the_plan_are_those_of_the_first_parts(tmp_path):
    rows = [transcript("a", part=part) for part in range(2)]
    out = make_output(tmp_path / "out", rows)
    assert [row["part"] for row in read_plan_rows(str(out)).values()] == [0]
