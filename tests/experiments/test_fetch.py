"""Tests of downloads, and of recordings that users provide."""

import doctest
import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pooch
import pytest
from scipy.io import wavfile

from experiments.data import _fetch, _fsdd, _music, _tatoeba, _texts, _wav, read_wav
from experiments.harness.errors import DataError

CONTENT = bytes(range(256)) * 200
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Use a temporary folder as the user's cache, without $BPVARIANTS_DATA."""
    monkeypatch.delenv(_fetch.FOLDER, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server():
    """Serve the paths /whole, /other and /short; the reply to /short is cut off."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = {"/whole": CONTENT, "/other": b"other", "/short": CONTENT}
            if self.path not in body:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body[self.path])))
            self.end_headers()
            cut = 3000 if self.path == "/short" else None
            self.wfile.write(body[self.path][:cut])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server, cache, monkeypatch, capsys):
    counted, done = [], _fetch._Bar.update
    monkeypatch.setattr(
        _fetch._Bar, "update", lambda bar, n: (counted.append(n), done(bar, n))
    )
    path = _fetch.fetch(f"{server}/whole", SUM, "set/file.bin")
    assert path == cache / "set/file.bin"
    assert path.read_bytes() == CONTENT
    assert len(counted) > 10  # The progress bar counts more than ten pieces.
    assert _fetch.fetch(f"{server}/not_there", SUM, "set/file.bin") == path
    path.write_bytes(b"spoilt")
    with pytest.raises(DataError, match="404"):
        _fetch.fetch(f"{server}/not_there", SUM, "set/file.bin")
    assert _fetch.fetch(f"{server}/whole", SUM, "set/file.bin") == path
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "says"), [("other", "hash"), ("short", "read"), ("not_there", "404")]
)
def test_what_is_not_the_file_is_not_kept(server, cache, name, says):
    with pytest.raises(DataError) as stopped:
        _fetch.fetch(f"{server}/{name}", SUM, "set/file.bin")
    message = str(stopped.value)
    assert f"could not be downloaded from {server}/{name}" in message
    assert says in message
    assert f"save it as {cache / 'set/file.bin'}" in message
    assert "BPVARIANTS_DATA" in message
    assert not any(path.is_file() for path in cache.rglob("*"))


def test_another_address_is_tried(server, cache):
    addresses = f"{server}/not_there", f"{server}/whole"
    assert _fetch.fetch(addresses, SUM, "a/b").read_bytes() == CONTENT


def test_without_a_network_it_says_what_to_do(cache, monkeypatch):
    monkeypatch.setenv(_fetch.FOLDER, str(cache / "mine"))
    refused = "http://127.0.0.1:9/fra-eng.zip"  # No server listens at this address.
    monkeypatch.setattr(_tatoeba, "URL", refused)
    with pytest.raises(DataError) as stopped:
        _tatoeba.tatoeba_fra_eng()
    message = str(stopped.value)
    assert f"could not be downloaded from {refused}" in message
    assert f"now it is {cache / 'mine'}, without this file" in message


def test_what_is_made_is_checked_and_written_whole(cache, monkeypatch):
    with pytest.raises(DataError, match=r"its sha256 is .* Nothing was written"):
        _fetch.make("set/made", SUM, lambda: b"other")
    assert not list(cache.rglob("*"))

    def broken(*_):
        raise OSError("disk full")

    with monkeypatch.context() as context:
        context.setattr(_fetch.os, "replace", broken)
        with pytest.raises(OSError, match="disk full"):
            _fetch.make("set/made", SUM, lambda: CONTENT)
    assert not any(path.is_file() for path in cache.rglob("*"))
    path = _fetch.make("set/made", SUM, lambda: CONTENT)
    assert path.read_bytes() == CONTENT
    assert _fetch.make("set/made", SUM, lambda: pytest.fail("it is there")) == path


def wav(samples, rate=8000):
    file = io.BytesIO()
    wavfile.write(file, rate, np.asarray(samples))
    return file.getvalue()


@pytest.fixture
def tarball(cache, monkeypatch):
    """Make an archive of three recordings in the format of GitHub, to be downloaded."""
    files = {
        f"{digit}_theo_{take}.wav": wav(np.arange(50 + take, dtype=np.int16))
        for digit, take in ((0, 0), (3, 7), (9, 31))
    }
    path = cache / "tarball"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in [*files.items(), ("README.md", b"text")]:
            folder = "recordings/" if name.endswith("wav") else ""
            info = tarfile.TarInfo(f"free-spoken-digit-dataset-1.0.10/{folder}{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    packed = _fsdd.repack(files)
    sha256 = hashlib.sha256(packed).hexdigest()
    monkeypatch.setattr(_fsdd, "fetch", lambda *_: path)
    monkeypatch.setattr(_fsdd, "SHA256", sha256)
    return path


def test_recordings_are_taken_from_the_original_archive(tarball, cache):
    fsdd = _fsdd.fsdd()
    assert fsdd.digits.tolist() == [0, 3, 9]
    assert fsdd.speakers.tolist() == [4, 4, 4]
    assert [part.tolist() for part in fsdd[3:]] == [[2], [1], [0]]
    assert [len(samples) for samples in fsdd.samples] == [50, 57, 81]
    # The repacked file is in the cache, so the archive is no longer needed.
    tarball.unlink()
    assert _fsdd.fsdd().digits.tolist() == [0, 3, 9]


def test_an_archive_that_is_cut_short_is_refused(tarball, cache):
    tarball.write_bytes(tarball.read_bytes()[:-100])
    with pytest.raises(DataError, match="is no archive, or is cut short"):
        _fsdd.fsdd()
    assert not (cache / _fsdd.FILE).exists()


def test_an_archive_with_other_recordings_is_refused(tarball, cache, monkeypatch):
    monkeypatch.setattr(_fsdd, "SHA256", 64 * "0")
    with pytest.raises(DataError, match=r"not what was expected.* Nothing was"):
        _fsdd.fsdd()
    assert not (cache / _fsdd.FILE).exists()


def test_repacking_is_how_the_committed_sum_was_made():
    path = _fetch.find(_fsdd.FILE, _fsdd.SHA256)
    if path is None:
        pytest.skip(f"needs ${_fetch.FOLDER}")
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in reversed(archive.namelist())}
    packed = _fsdd.repack(files)
    assert hashlib.sha256(packed).hexdigest() == _fsdd.SHA256


def test_recordings_of_every_kind_are_read():
    ramp = np.linspace(-1, 1, 9)
    for dtype, scale in ((np.int16, 2**15), (np.int32, 2**31), (np.float32, 1)):
        samples = (ramp[:-1] * scale).astype(dtype)
        np.testing.assert_array_equal(read_wav(io.BytesIO(wav(samples))), ramp[:-1])
    silent = io.BytesIO(wav(np.full(3, 128, np.uint8)))
    assert read_wav(silent).tolist() == [0, 0, 0]
    both = np.stack([ramp, 0 * ramp], axis=1).astype(np.float32)
    np.testing.assert_array_equal(read_wav(io.BytesIO(wav(both))), ramp / 2)
    tone = lambda rate: np.sin(2 * np.pi * 300 * np.arange(rate // 4) / rate)
    fast = read_wav(io.BytesIO(wav(tone(44100).astype(np.float32), 44100)))
    assert fast.dtype == np.float32
    assert abs(len(fast) - 2000) <= 1
    np.testing.assert_allclose(
        fast[100:-100], tone(8000)[100 : len(fast) - 100], atol=2e-3
    )  # The tolerance allows for the ripple of the resampling filter.


@pytest.mark.parametrize("cut", [0, 3, 20, 30, 43, 44, 45, 500, 501, 2043])
def test_recordings_that_are_cut_short_are_refused(cut, tmp_path):
    content = wav(np.arange(1000, dtype=np.int16))[:cut]
    (tmp_path / "short.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"short\.wav is .*cut short"):
        read_wav(tmp_path / "short.wav")
    with pytest.raises(ValueError, match=r"the recording is .*cut short"):
        read_wav(io.BytesIO(content))


def test_what_is_no_recording_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no WAV file"):
        read_wav(io.BytesIO(b"a text of some length, not a recording"))
    with pytest.raises(ValueError, match="the recording holds no sound"):
        read_wav(io.BytesIO(wav(np.zeros(0, np.int16))))
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "none.wav")


@pytest.mark.parametrize("module", [_wav, _music, _texts, _tatoeba])
def test_examples_in_docstrings_are_true(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed
