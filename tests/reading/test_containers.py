"""What FFmpeg reads is read, whatever it is called; what would open another file never is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reading.decoding import decode, error_of, likeness
from tests.reading.made_audio import RATE, encode, vowels, wav_bytes

KINDS = [
    *(
        ("avi", "pcm_s16le"),
        ("avi", "libmp3lame"),
        ("mpg", "mp2"),
        ("vob", "ac3"),
        ("ts", "mp2"),
        ("ts", "aac"),
    ),
    *(
        ("m2ts", "ac3"),
        ("flv", "libmp3lame"),
        ("wma", "wmav2"),
        ("asf", "wmav1"),
        ("ac3", "ac3"),
        ("3gp", "aac"),
    ),
    *(("eac3", "eac3"), ("wv", "wavpack"), ("tta", "tta"), ("rm", "real_144"), ("nut", "pcm_s16le")),
    *(("mov", "alac"), ("mp2", "mp2")),
]
RATES = {"mp2": 48_000, "ac3": 48_000, "eac3": 48_000, "real_144": 8000}


@pytest.mark.parametrize(("suffix", "codec"), KINDS)
def test_every_container_that_ffmpeg_reads_is_read_by_its_content(decoder, tmp_path, suffix, codec):
    rate = 44_100 if suffix == "flv" else RATES.get(codec, RATE)
    how = {"bit_rate": 64_000} if codec.startswith("wma") else {}
    path = encode(tmp_path / f"a.{suffix}", vowels(4, rate=rate), codec, rate, **how)
    found = decode(decoder, path.rename(tmp_path / "a.dat"))
    assert (found.partial, found.num_bad_samples) == (False, 0)
    assert found.duration_s == pytest.approx(4, abs=0.25)
    voice, heard = vowels(4), np.pad(found.samples[0], (0, RATE))
    assert max(likeness(heard[lag : lag + 3 * RATE], voice) for lag in range(0, 4000, 8)) > 0.6


def test_frames_of_gsm_without_any_header_are_read(decoder, tmp_path):
    (tmp_path / "a.gsm").write_bytes((b"\xd0" + bytes(32)) * 200)
    assert decode(decoder, tmp_path / "a.gsm").duration_s == pytest.approx(4.0)


SECRET = "secret.wav"
LISTS = {
    "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{SECRET}\n#EXT-X-ENDLIST\n",
    "hls_after_blanks": f" \n\t#EXTM3U\n#EXTINF:1,\n{SECRET}\n",
    "concat": f"ffconcat version 1.0\nfile {SECRET}\n",
    "m3u_without_a_head": f"{SECRET}\n",
    "pls": f"[playlist]\nFile1={SECRET}\nLength1=1\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    "smil": f'<smil><body><audio src="{SECRET}"/></body></smil>',
    "xspf": f'<?xml version="1.0"?><playlist><trackList><location>{SECRET}</location></trackList></playlist>',
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n",
    "ram": f"file://{SECRET}\n",
    "imf": '<?xml version="1.0"?><CompositionPlaylist><Id>urn:uuid:1</Id></CompositionPlaylist>',
    "rtsp_redirect": "RTSPtextRTSP://127.0.0.1/a\n",
    "asf_redirect": "[Reference]\r\nRef1=http://127.0.0.1/a.asf\r\n",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)])
def test_a_list_of_other_files_is_never_followed(decoder, tmp_path, monkeypatch, text, before):
    monkeypatch.chdir(tmp_path)
    (tmp_path / SECRET).write_bytes(wav_bytes(vowels(1)))
    for name in ("a.wav", "a.m3u8", "a.mpd", "a.avi"):
        (tmp_path / name).write_bytes(before + text.encode())
        assert error_of(decoder, tmp_path / name) in ("refused", "unsupported", "corrupt")
