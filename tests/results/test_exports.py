"""Exports: subtitles that can be read, tables that are safe to open, files that stay in their folder."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
import wave

import av
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

import jobs.export
from pipeline.output import files
from pipeline.output.local_store import LocalStore
from pipeline.results import exports, subtitles
from pipeline.schema import COPIES, PLAN, TRANSCRIPTS, table_of
from tests.commands import run_here
from tests.fakes import plan_row

MODEL = "fake"


def segment(text, start_s=0.0, end_s=3.0, **changes):
    values = {
        "id": 0, "start_s": start_s, "end_s": end_s, "text": text, "avg_logprob": -0.2, "no_speech_prob": 0.0,
        "compression_ratio": 1.0, "sparsity": 0.0, "fallback": None, "words": None,
        "language": None,
    }  # fmt: skip
    return values | changes


def transcript(recording_id="a.wav", segments=(), **changes):
    values = {
        **dict.fromkeys(TRANSCRIPTS.names),
        "recording_id": recording_id, "uri": f"/in/{recording_id}", "part": 0, "channel": 0, "shard_id": 0,
        "status": "ok", "duration_s": 10.0, "speech_s": 8.0, "language": "en", "language_probability": 0.9,
        "text": " ".join(one["text"].strip() for one in segments), "segments": [*segments],
        "partial": False, "model": MODEL,
    }  # fmt: skip
    return values | changes


def make_output(folder, rows, plan=None):
    """A committed output made by hand: one shard, and a plan of the rows' recordings."""
    store = LocalStore.open(str(folder))
    store.replace("_job.json", b"{}")
    keys = dict.fromkeys((row["recording_id"], row["part"]) for row in rows)
    rows_of_plan = plan or [plan_row(name, part=part) for name, part in keys]
    store.replace("plan/plan-00000.parquet", files.parquet_bytes(table_of(PLAN, rows_of_plan)))
    store.replace("transcripts/shard-000000.parquet", files.parquet_bytes(table_of(TRANSCRIPTS, rows)))
    return folder


def export(out, kind, *more, status=0):
    done = run_here(jobs.export.export, out, "--format", kind, *more)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if status != 2 else done.stderr


TEXTS = st.text(st.characters(codec="utf-8"), max_size=400) | st.lists(
    st.sampled_from(["a", "word", "sentence.", "clause,", "x" * 50, "東京都は大きい"]), max_size=60
).map(" ".join)
TIMES = st.tuples(st.floats(0, 5000), st.floats(0, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@settings(deadline=None)
@given(TEXTS, TIMES)
def test_cues_of_a_segment_are_ordered_inside_its_times_and_keep_its_words(text, times):
    start_s, end_s = times
    found = subtitles.cues([segment(text, start_s, end_s)])
    shown = max(end_s, start_s + subtitles.MIN_CUE_S)
    edges = [time for cue in found for time in (cue.start_s, cue.end_s)]
    assert edges == sorted(edges)
    assert all(start_s <= time <= shown + 1e-6 for time in edges)
    letters = "".join(line for cue in found for line in cue.lines).replace(" ", "")
    assert letters == subtitles.shown_text(text).replace(" ", "")


@settings(deadline=None)
@given(TEXTS, TIMES)
def test_a_cue_has_at_most_two_lines_of_42_columns_and_seven_seconds(text, times):
    for cue in subtitles.cues([segment(text, *times)]):
        assert 0 < cue.end_s - cue.start_s <= subtitles.MAX_CUE_S + 1e-6
        assert 1 <= len(cue.lines) <= 2
        assert all(line and subtitles.width(line) <= 42 for line in cue.lines)


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40)), min_size=1, max_size=20), TIMES)
def test_words_with_times_of_their_own_stay_in_the_segment_whatever_the_times(spans, times):
    words = [
        {"start_s": start, "end_s": end, "word": f" w{i}", "probability": 1.0}
        for i, (start, end) in enumerate(spans)
    ]
    text = "".join(word["word"] for word in words)
    found = subtitles.cues([segment(text, *times, words=words)])
    assert " ".join(line for cue in found for line in cue.lines).split() == text.split()
    edges = [time for cue in found for time in (cue.start_s, cue.end_s)]
    assert edges == sorted(edges)
    assert times[0] <= edges[0]
    assert edges[-1] <= max(times[1], times[0] + subtitles.MIN_CUE_S) + 1e-6


def test_words_with_times_give_the_cues_their_times():
    words = [
        {"start_s": 1.0, "end_s": 1.5, "word": " early", "probability": 1.0},
        {"start_s": 9.0, "end_s": 9.5, "word": " late", "probability": 1.0},
    ]
    found = subtitles.cues([segment("early late", 0.0, 10.0, words=words)])
    assert [(cue.start_s, cue.end_s, cue.lines) for cue in found] == [
        (1.0, 1.5, ("early",)),
        (9.0, 9.5, ("late",)),
    ]


def test_words_written_without_spaces_are_shown_without_spaces():
    words = [
        {"start_s": float(i), "end_s": i + 1.0, "word": word, "probability": 1.0}
        for i, word in enumerate(["東京", "都は", "大きい。"])
    ]
    found = subtitles.cues([segment("東京都は大きい。", 0.0, 3.0, words=words)])
    assert [cue.lines for cue in found] == [("東京都は大きい。",)]


THAI = "ประเทศไทยมีวัฒนธรรมที่หลากหลายและผู้คนชอบทำอาหารเพื่อต้อนรับนักท่องเที่ยวด้วยรอยยิ้ม"
BURMESE = "မြန်မာနိုင်ငံသည်အရှေ့တောင်အာရှတွင်ရှိသောနိုင်ငံတစ်နိုင်ငံဖြစ်ပြီးလူမျိုးပေါင်းများစွာအတူတကွနေထိုင်ကြသည်"
HINDI = "क्ष" * 60  # a conjunct is one grapheme
EMOJI = "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f44d\U0001f3fd\U0001f1e9\U0001f1ea\u2764\ufe0f" * 12
MIXED = "ครับ" * 9 + "Whisper" + "ครับ" * 9 + "OpenAI" + "ครับ" * 9


def lines_of(text, end_s=30.0, **changes):
    return [line for cue in subtitles.cues([segment(text, 0.0, end_s, **changes)]) for line in cue.lines]


@pytest.mark.parametrize("text", [THAI, BURMESE, HINDI, EMOJI, MIXED, "e\u0301" * 200, "한국어" * 30])
@pytest.mark.parametrize("shift", range(4))
def test_no_line_starts_inside_of_a_grapheme(text, shift):
    whole = "a" * shift + text
    lines = lines_of(whole)
    assert len(lines) > 1
    assert "".join(lines) == whole
    edges = set(itertools.accumulate(map(len, lines)))
    assert edges <= {match.end() for match in regex.finditer(r"\X", whole)}


@pytest.mark.parametrize("text", [THAI, BURMESE, EMOJI])
def test_no_line_starts_inside_of_a_grapheme_though_every_character_has_its_time(text):
    words = [
        {"start_s": i * 0.1, "end_s": i * 0.1 + 0.1, "word": character, "probability": 1.0}
        for i, character in enumerate(text)
    ]
    lines = lines_of(text, words=words)
    assert "".join(lines) == text
    assert set(itertools.accumulate(map(len, lines))) <= {m.end() for m in regex.finditer(r"\X", text)}


def test_latin_words_stay_whole_inside_of_a_text_without_spaces():
    for text in (MIXED, "今日は" * 8 + "Whisper" + "文字起こし" * 3 + "OpenAI" + "を使います" * 4):
        lines = lines_of(text)
        assert any("Whisper" in line for line in lines)
        assert any("OpenAI" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "今日は朝からとてもよい天気です。明日は雨が降るかもしれません。",
            ["今日は朝からとてもよい天気です。", "明日は雨が降るかもしれません。"],
        ),
        (
            "我们今天要讨论的问题非常重要\uff0c请大家认真听讲并且做好笔记。",
            ["我们今天要讨论的问题非常重要\uff0c", "请大家认真听讲并且做好笔记。"],
        ),
        (
            "「そうですね」と彼は静かに言いました。「でも、それは本当のことなのでしょうか」",
            ["「そうですね」と彼は静かに言いました。", "「でも、それは本当のことなのでしょうか」"],
        ),
    ],
)
def test_chinese_and_japanese_break_at_punctuation(text, lines):
    assert lines_of(text, end_s=6.0) == lines


def test_words_of_korean_stay_whole():
    words = ["안녕하세요", "오늘은", "날씨가", "매우", "좋습니다", "그래서", "산책을", "하려고", "합니다"] * 3
    assert " ".join(lines_of(" ".join(words))).split() == words


def test_two_channels_are_named_in_subtitles_and_the_name_fits_on_the_line(tmp_path):
    text = "This is the first sentence of the two, it is long enough for a second line."
    rows = [
        transcript("call.wav", [segment(text, 1.0, 5.0)]),
        transcript("call.wav", [segment("yes", 2.0, 3.0)], channel=1),
    ]
    out = make_output(tmp_path / "out", rows)
    export(out, "srt")
    blocks = (out / "export" / "call.wav.srt").read_text().split("\n\n")
    shown = [block.splitlines()[2] for block in blocks]
    assert all(line.startswith(("[channel 0] ", "[channel 1] ")) for line in shown)
    assert [line for line in shown if "yes" in line] == ["[channel 1] yes"]
    assert all(subtitles.width(line) <= 42 for block in blocks for line in block.splitlines()[2:])


def test_lines_break_in_the_middle_and_cues_after_a_sentence():
    first = "This is the first sentence of the two, it is long enough."
    text = f"{first} And this is the second one of them, as long."
    lines = [cue.lines for cue in subtitles.cues([segment(text, 0.0, 6.0)])]
    assert lines == [
        ("This is the first sentence of", "the two, it is long enough."),
        ("And this is the second", "one of them, as long."),
    ]


def test_a_segment_of_no_length_is_shown_for_a_second_or_until_the_next():
    found = subtitles.cues([segment("one", 1.0, 1.0), segment("two", 1.4, 1.4), segment("three", 9.0, 9.0)])
    assert [(cue.start_s, cue.end_s) for cue in found] == [(1.0, 1.4), (1.4, 2.4), (9.0, 10.0)]


def test_control_and_bidirectional_characters_are_removed_and_joiners_kept():
    assert subtitles.shown_text("a\x00b\x1b[31m\u202ec\u2028d\te\u200df") == "ab[31mc d e\u200df"


def test_mark_up_in_a_transcript_is_text():
    found = subtitles.cues([segment("<b>x</b> & --> {\\an8}y")])
    assert "&lt;b&gt;x&lt;/b&gt; &amp; --&gt; {\\an8}y" in subtitles.vtt(found)
    assert "<" not in subtitles.srt(found)
    assert subtitles.srt(found).count("-->") == 1


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300))
def test_the_name_of_a_file_stays_below_the_folder(recording_id):
    name = exports.safe_name(recording_id)
    parts = name.split("/")
    assert not name.startswith("/")
    assert all(part not in {"", ".", ".."} and len(part.encode()) <= 210 for part in parts)
    assert "\0" not in name


def test_names_that_are_replaced_do_not_meet():
    names = ["../a", "_/a", "/a", "./a", "a", "a\nb", "a\tb", "x" * 300, "x" * 301]
    assert len({exports.safe_name(name) for name in names}) == len(names)


def test_parts_and_channels_become_one_file_in_the_order_of_time(tmp_path):
    rows = [
        transcript("call.wav", [segment("third", 65.0, 66.0)], part=1),
        transcript("call.wav", [segment("second", 4.0, 5.0)], channel=1),
        transcript("call.wav", [segment("first", 1.0, 2.0)]),
    ]
    out = make_output(tmp_path / "out", rows)
    assert export(out, "txt")["num_written"] == 1
    text = (out / "export" / "call.wav.txt").read_text()
    assert text == "[channel 0] first\n[channel 1] second\n[channel 0] third\n"
    export(out, "vtt")
    assert "<v channel 1>second" in (out / "export" / "call.wav.vtt").read_text()
    export(out, "jsonl")
    (line,) = (out / "export" / "transcripts.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert (found["text"], found["duration_s"]) == ("first second third", 20.0)
    assert [one["id"] for one in found["segments"]] == [0, 1, 2]


def test_what_failed_is_named_in_jsonl_and_left_out_elsewhere(tmp_path):
    bad = transcript("bad.wav", status="failed", error_type="corrupt", text=None)
    out = make_output(tmp_path / "out", [transcript("a.wav", [segment("fine")]), bad])
    assert export(out, "srt")["num_failed"] == 1
    assert [path.name for path in (out / "export").iterdir()] == ["a.wav.srt"]
    export(out, "jsonl")
    lines = [json.loads(line) for line in (out / "export" / "transcripts.jsonl").read_text().splitlines()]
    assert [(line["status"], line["text"]) for line in lines] == [("ok", "fine"), ("failed", None)]
    assert export(out, "nemo")["num_written"] == 1


def test_a_recording_with_parts_to_come_waits_and_the_status_says_so(tmp_path):
    plan = [plan_row("a.wav"), plan_row("b.wav"), plan_row("b.wav", part=1)]
    rows = [transcript("a.wav", [segment("whole")]), transcript("b.wav", [segment("half")])]
    found = export(make_output(tmp_path / "out", rows, plan), "txt", "--output", tmp_path / "x", status=1)
    assert (found["num_written"], found["num_unfinished"]) == (1, 1)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.wav.txt"]


def test_copies_are_exported_and_those_of_what_is_no_longer_planned_are_passed_over(tmp_path):
    rows = [transcript("a.wav", [segment("one")]), transcript("copy.wav", same_as="a.wav")]
    out = make_output(tmp_path / "out", rows, [plan_row("a.wav")])
    rows = [plan_row("copy.wav") | {"same_as": "a.wav"}, plan_row("other.wav") | {"same_as": "gone.wav"}]
    copies = [{name: row[name] for name in COPIES.names} for row in rows]
    (out / "copies.parquet").write_bytes(files.parquet_bytes(table_of(COPIES, copies)))
    for kind in ("srt", "html"):
        found = export(out, kind)
        assert (found["num_recordings"], found["num_written"], found["num_unfinished"]) == (2, 2, 0)


def test_nemo_gets_the_span_of_a_clip_and_no_member_of_an_archive(tmp_path):
    rows = [transcript("clip", [segment("hello")]), transcript("member", [segment("there")])]
    plan = [plan_row("clip", member="t=12.5000,20.0000"), plan_row("member", member="x/y.wav")]
    out = make_output(tmp_path / "out", rows, plan)
    assert export(out, "nemo")["num_written"] == 1
    assert json.loads((out / "export" / "manifest.jsonl").read_text()) == {
        "audio_filepath": "/in/clip", "offset": 12.5, "duration": 7.5, "text": "hello", "lang": "en",
    }  # fmt: skip


def test_a_cell_of_a_table_is_never_a_formula(tmp_path):
    texts = ["=1+1", "+1", "-1", "@x", "plain"]
    out = make_output(
        tmp_path / "out", [transcript("a", [segment(t, i, i + 1) for i, t in enumerate(texts)])]
    )
    export(out, "tsv")
    lines = (out / "export" / "a.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[3] for line in lines] == ["'=1+1", "'+1", "'-1", "'@x", "plain"]
    assert exports.spreadsheet_safe("\tx") == "'\tx"


def test_no_file_is_written_outside_the_folder(tmp_path):
    ids = ["../../escape", "/etc/escape", "a/../../escape", "link/escape"]
    out = make_output(tmp_path / "out", [transcript(name, [segment("x")]) for name in ids[:3]])
    export(out, "txt", "--output", tmp_path / "x" / "y")
    written = list(tmp_path.rglob("*escape*"))
    assert len(written) == 3
    assert all(path.is_relative_to(tmp_path / "x" / "y") for path in written)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "x" / "y" / "link").symlink_to(tmp_path / "elsewhere")
    linked = make_output(tmp_path / "out2", [transcript("link/escape", [segment("x")])])
    found = export(linked, "txt", "--output", tmp_path / "x" / "y", status=1)
    assert (found["num_written"], found["num_faults"]) == (0, 1)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_recording_without_speech_is_an_empty_file(tmp_path):
    out = make_output(tmp_path / "out", [transcript("a.wav"), transcript("b.wav", [segment("fine")])])
    for kind, empty in (
        ("srt", ""),
        ("vtt", "WEBVTT\n"),
        ("txt", ""),
        ("tsv", "start_s\tend_s\tchannel\ttext\n"),
    ):
        assert export(out, kind)["num_written"] == 2
        assert (out / "export" / f"a.wav.{kind}").read_text() == empty
        assert "fine" in (out / "export" / f"b.wav.{kind}").read_text()


def test_what_cannot_be_written_is_one_line_and_the_others_are_there(tmp_path):
    rows = [transcript(name, [segment("one")]) for name in ("a.wav", "b.wav", "c.wav")]
    out = make_output(tmp_path / "out", rows)
    (out / "export" / "b.wav.srt").mkdir(parents=True)
    command = [sys.executable, "-m", "jobs.export", str(out), "--format", "srt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line.split(" ", 1)[1].partition(":")[0] for line in done.stderr.splitlines()] == ["b.wav"]
    assert sorted(path.name for path in (out / "export").rglob("*") if path.is_file()) == [
        "a.wav.srt",
        "c.wav.srt",
    ]
    assert json.loads(done.stdout)["num_faults"] == 1


def test_a_torn_file_of_the_output_is_named_and_the_others_are_exported(tmp_path):
    out = make_output(tmp_path / "out", [transcript("a.wav", [segment("one")])])
    (out / "transcripts" / "shard-000001.parquet").write_bytes(b"PAR1 torn")
    found = export(out, "srt", status=1)
    assert (found["num_written"], found["num_faults"]) == (1, 1)


def test_a_translation_is_english_in_manifests(tmp_path):
    row = transcript("a.wav", [segment("hello")], language="zh", text_language="en")
    out = make_output(tmp_path / "out", [row])
    export(out, "nemo")
    assert json.loads((out / "export" / "manifest.jsonl").read_text())["lang"] == "en"
    export(out, "jsonl")
    line = json.loads((out / "export" / "transcripts.jsonl").read_text())
    assert (line["language"], line["text_language"]) == ("zh", "en")


def test_references_that_name_no_recording_are_one_line_with_the_names_that_were_looked_for(tmp_path):
    out = make_output(tmp_path / "out", [transcript(f"{name}.wav", [segment("one")]) for name in "abcdefg"])
    (tmp_path / "truth.tsv").write_text("audio_filepath\ttext\nz.wav\tone\n")
    command = [sys.executable, "-m", "jobs.evaluate", str(out), "--references", str(tmp_path / "truth.tsv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line == (
        f"error: {tmp_path}/truth.tsv: no line names a recording of {out}; looked for: "
        "a.wav, b.wav, c.wav, d.wav, e.wav, …, or as paths such as /in/a.wav"
    )


def test_no_output_is_one_line_and_status_2(tmp_path):
    assert export(tmp_path, "srt", status=2).startswith(f"error: {tmp_path}: is not the output of a job")


HARD = [
    "plain words",
    "<i>not italic</i> & 1 --> 2",
    "{\\an8}up",
    "東京都は日本の首都です。" * 12,
    "-->",
    "12",
    "x" * 130,
]


@pytest.fixture
def hard_cues():
    return subtitles.cues([segment(text, 9.0 * i, 9.0 * i + 8.5) for i, text in enumerate(HARD)])


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_ffmpeg_reads_every_cue_with_its_time(hard_cues, kind):
    text = subtitles.srt(hard_cues) if kind == "srt" else subtitles.vtt(hard_cues)
    format_name = {"srt": "srt", "vtt": "webvtt"}[kind]
    with av.open(io.BytesIO(text.encode()), format=format_name) as container:
        (stream,) = container.streams.subtitles
        packets = [packet for packet in container.demux(stream) if packet.size]
        starts = [float(packet.pts * stream.time_base) for packet in packets]
        ends = [float((packet.pts + packet.duration) * stream.time_base) for packet in packets]
    assert starts == pytest.approx([cue.start_s for cue in hard_cues], abs=0.001)
    assert ends == pytest.approx([cue.end_s for cue in hard_cues], abs=0.002)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg program on this machine")
@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_the_ffmpeg_program_muxes_the_subtitles_with_sound(hard_cues, kind, tmp_path):
    (tmp_path / f"a.{kind}").write_text(
        subtitles.srt(hard_cues) if kind == "srt" else subtitles.vtt(hard_cues), encoding="utf-8"
    )
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 16_000)
    command = ["ffmpeg", "-v", "error", "-xerror", "-i", "a.wav", "-i", f"a.{kind}", "-c:s", "srt", "a.mkv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
