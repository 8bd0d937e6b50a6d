"""Word errors are counted after Whisper's normaliser, and ratios never divide by zero."""

import unicodedata

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.wer import NORMALISER, Counts, count_errors, total

words = st.lists(st.sampled_from(["one", "two", "tree", "sea"]), max_size=8).map(" ".join)


@given(words, words)
def test_counts_add_up_to_the_lengths_of_both_texts(reference, hypothesis):
    counts = count_errors(reference, hypothesis, None)
    assert counts.num_reference_words == len(reference.split())
    assert counts.num_hits + counts.num_substitutions + counts.num_insertions == len(hypothesis.split())


@given(st.lists(st.tuples(words.filter(bool), words), min_size=1, max_size=5))
def test_the_wer_of_a_total_is_that_of_the_whole_corpus(pairs):
    ours = total(count_errors(reference, hypothesis, None) for reference, hypothesis in pairs)
    assert ours.wer == pytest.approx(jiwer.wer([r for r, _ in pairs], [h for _, h in pairs]))


def test_an_empty_reference_counts_insertions_and_has_no_wer():
    counts = count_errors("", "hello world", "en")
    assert counts == Counts(num_insertions=2)
    assert counts.wer is None


def test_english_is_normalised_as_whisper_does():
    assert count_errors("Mr. Colour's, um, here!", "mister color is here", "en").num_errors == 0


def test_other_languages_keep_their_spelling():
    assert count_errors("die colour", "die color", "de").num_substitutions == 1


DIFFERENT = {
    "hi": [("दिन", "दान"), ("कम", "काम"), ("क", "क्")],
    "bn": [("কালি", "কিলা"), ("বন", "বান")],
    "ta": [("கால்", "கீல்"), ("கல", "கல்")],
    "te": [("పాలు", "పులి")],
    "gu": [("દિન", "દાન")],
    "pa": [("ਦਿਨ", "ਦਾਨ")],
    "ml": [("കാല", "കീല")],
    "kn": [("ಕಾಲ", "ಕೀಲ")],
    "si": [("කල", "කාල")],
    "th": [("ปี", "ปู"), ("มา", "ม้า"), ("นำ", "นา")],
    "lo": [("ມາ", "ມ້າ")],
    "my": [("နီ", "နူ")],
    "km": [("ការ", "កិរ")],
    "bo": [("བོད", "བད")],
    "ar": [("كَتَبَ", "كُتِبَ")],
    "he": [("סֵפֶר", "סַפָּר")],
    "ur": [("اِس", "اُس")],
    "yo": [("ọkọ̀", "ọkọ́")],
    None: [("दिन", "दान")],
}


@pytest.mark.parametrize(
    ("language", "pair"), [(code, pair) for code, pairs in DIFFERENT.items() for pair in pairs]
)
def test_words_that_marks_alone_tell_apart_differ(language, pair):
    for form in ("NFC", "NFD"):
        said, meant = (unicodedata.normalize(form, word) for word in pair)
        assert count_errors(meant, said, language).num_errors > 0
        assert count_errors(meant, meant, language).num_errors == 0


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("hi", "यह दिन है।", "यह दिन है"),
        ("hi", unicodedata.normalize("NFD", "क़लम"), unicodedata.normalize("NFC", "क़लम")),
        ("fr", unicodedata.normalize("NFD", "Été, déjà"), "été déjà"),
        ("ru", unicodedata.normalize("NFD", "Мой ёж"), "мой ёж"),
        ("tr", "İstanbul'da", "istanbul'da"),
        ("km", "ភាសា\u200bខ្មែរ", "ភាសាខ្មែរ"),
        ("ar", "\u200fمرحبا", "مرحبا"),  # noqa: RUF001
        ("fa", "می\u200cخواهم", "میخواهم"),  # noqa: RUF001
        ("de", "Danke \u2764\ufe0f 1\ufe0f\u20e3", "danke 1"),
    ],
)
def test_what_is_written_otherwise_alone_is_equal(language, one, other):
    assert count_errors(one, other, language).num_errors == 0
    assert count_errors(other, one, language).num_errors == 0


def test_a_mark_never_splits_a_word():
    assert count_errors("كَتَبَ", "كَتَبَ", "ar").num_hits == 1
    assert count_errors("за\u0301мок", "за\u0301мок", "ru").num_hits == 1  # noqa: RUF001


def test_the_normaliser_says_that_marks_are_kept():
    assert "marks kept" in NORMALISER


def test_chinese_is_counted_in_characters():
    counts = count_errors("今天天气", "今天 天汽", "zh")
    assert (counts.num_hits, counts.num_substitutions) == (3, 1)
