"""Tests of reading WAV files in many formats, including files written to a pipe."""

import io
import struct

import numpy as np
import pytest
from scipy.io import wavfile

from experiments.data import read_wav

SOUND = (300 * np.arange(-50, 50)).astype(np.int16)
# Byte offsets of the two size fields in the header of a WAV file.
SIZE, RIFF_SIZE = 40, 4
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14)
LIST += b"Lavf58.29.100\0"


def wav(samples, rate=8000):
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return bytearray(file.getvalue())


def changed(content, place, number, size="<I"):
    struct.pack_into(size, content, place, number)
    return content


def read(content):
    return read_wav(io.BytesIO(bytes(content)))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0])
def test_a_size_that_was_not_known_means_all_samples(size):
    expected = SOUND / np.float32(32768)
    for riff in (size, min(size + 36, 0xFFFFFFFF), 36, 236):
        content = changed(changed(wav(SOUND), SIZE, size), RIFF_SIZE, riff)
        np.testing.assert_array_equal(read(content), expected)
        # The reader drops an incomplete last frame.
        np.testing.assert_array_equal(read(content + b"\1"), expected)
    content = wav(SOUND)
    # Insert a LIST chunk before the samples, as ffmpeg does.
    content = content[:36] + LIST + content[36:]
    content = changed(content, RIFF_SIZE, 0xFFFFFFFF)
    content = changed(content, SIZE + len(LIST), size)
    np.testing.assert_array_equal(read(content), expected)
    both = changed(wav(np.stack([SOUND, SOUND[::-1]], axis=1)), SIZE, size)
    np.testing.assert_allclose(read(both + b"\1\2"), -150 / 32768, rtol=1e-6)


def pcm24(numbers):
    samples = b"".join(struct.pack("<i", number)[:3] for number in numbers)
    form = struct.pack("<IHHIIHH", 16, 1, 1, 8000, 24000, 3, 24)
    size = struct.pack("<I", len(samples))
    head = struct.pack("<I", 36 + len(samples)) + b"WAVEfmt "
    return b"RIFF" + head + form + b"data" + size + samples


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (wav(np.array([0, 128, 192, 255], np.uint8)), [-1, 0, 0.5, 127 / 128]),
        (wav(np.array([-(2**31), 0, 2**30], np.int32)), [-1, 0, 0.5]),
        (pcm24([-(2**23), 0, 2**22]), [-1, 0, 0.5]),
        (wav(np.array([-1, 0, 0.5], np.float32)), [-1, 0, 0.5]),
        (wav(np.array([-1, 0, 1 + 1e-7])), [-1, 0, 1]),
        (wav(SOUND[:3]) + LIST, SOUND[:3] / 32768),
    ],
)
def test_samples_of_every_kind_lie_between_one_and_minus_one(content, expected):
    np.testing.assert_array_equal(read(content), np.float32(expected))


def test_a_conversion_of_the_rate_stays_within_bounds():
    square = np.sign(np.sin(np.arange(200))) * 32767
    assert np.abs(read(wav(square.astype(np.int16), 16_000))).max() == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(wav(SOUND), 22, 0, "<H"), "has 0 channels"),
        (changed(wav(SOUND), 24, 0), "is no WAV file"),
        (changed(wav(SOUND), 32, 0, "<H"), "is no WAV file"),
        (changed(wav(SOUND), 20, 7, "<H"), "no WAV file of PCM or float .* MULAW"),
        (wav(np.float32([0, 16384, -16384])), r"up to ±16384, .* divide them by full"),
        (wav(np.array([0, 1.5])), r"up to ±1\.5"),
        (wav(SOUND[:0]), "holds no sound"),
        (wav(SOUND[:0]) + LIST, "holds no sound"),
        (wav(SOUND)[:100], "cut short"),
        (wav(SOUND)[:30], "cut short"),
        (pcm24([1, 2, 3])[:-4], "cut short"),
        # The header states the correct file size, but a wrong size of the samples.
        (changed(wav(SOUND), SIZE, 400), "promises 400 bytes of samples, and 200 are"),
        (wav(SOUND, 1_000_000_007), "has 1000000007 samples per second .* wrong"),
        (changed(wav(SOUND)[:36] + LIST, RIFF_SIZE, 62), "has no chunk .* or .data"),
        (b"RIFF", "cut short"),
        (b"", "no WAV file"),
        (b"fLaC" + bytes(60), "no WAV file"),
    ],
)
def test_what_is_no_sound_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read(content)
