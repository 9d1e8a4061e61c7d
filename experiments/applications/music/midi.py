"""Pieces of music written to MIDI files, and read from them."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import mido

from experiments.data import KEYS, LOWEST, Music, Piece
from experiments.harness.errors import DataError

TICKS = 480  # number of MIDI ticks in a time step, which is one beat
DRUMS = 9  # MIDI channel 10, counted from 0
SUFFIXES = (".mid", ".midi")
SHORTEST = 16  # fewest time steps of a piece in a user's folder


def write_midi(path: Path, piece: Sequence[frozenset[int]], seconds: float) -> None:
    """Write a MIDI file; equal notes in consecutive steps become one long note.

    Args:
      path: file to write; the file appears only when it is complete.
      piece: MIDI numbers of the notes that sound at each step.
      seconds: duration of a time step.

    Raises:
      ValueError: if `seconds` is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds}.")
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=round(1e6 * seconds)))
    sounding, last = frozenset(), 0
    for t, notes in enumerate([*piece, frozenset()]):
        changes = [("note_off", note) for note in sorted(sounding - notes)]
        changes += [("note_on", note) for note in sorted(notes - sounding)]
        for kind, note in changes:
            ticks = (t - last) * TICKS
            track.append(mido.Message(kind, note=note, velocity=64, time=ticks))
            last = t
        sounding = notes
    track.append(mido.MetaMessage("end_of_track", time=(len(piece) - last) * TICKS))
    file = mido.MidiFile(ticks_per_beat=TICKS, tracks=[track])
    beside = path.with_name(path.name + ".tmp")
    file.save(beside)
    os.replace(beside, path)


def read_midi(path: Path, per_beat: int = 1) -> Piece:
    """Return the notes at each step of a MIDI file; steps divide beats.

    Notes begin and end at the nearest step; a note of less than one step has one step.
    Drums (channel 10) and notes that no piano has are left out.

    Args:
      path: file to read; all its tracks are merged.
      per_beat: number of steps in a beat, which is a quarter note.

    Raises:
      ValueError: if the file is no MIDI file, has times that are not in beats (SMPTE),
        or has no notes.
    """
    try:
        file = mido.MidiFile(path)
    except (OSError, EOFError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as a MIDI file: {error}.") from error
    if not 0 < file.ticks_per_beat < 1 << 15:
        raise ValueError(
            f"{path} has times in frames (SMPTE), not in beats: export it again with "
            "ticks per quarter note."
        )
    now, since, notes, last = 0, {}, [], 0
    for message in mido.merge_tracks(file.tracks):
        now += message.time
        at = now * per_beat / file.ticks_per_beat
        last = max(last, round(at))
        if message.type not in ("note_on", "note_off") or message.channel == DRUMS:
            continue
        begin = since.pop((message.channel, message.note), None)
        if begin is not None:
            notes.append((message.note, round(begin), round(at)))
        if message.type == "note_on" and message.velocity:
            since[message.channel, message.note] = at
    return _piece(notes, last)


def _piece(notes: Sequence[tuple[int, int, int]], last: int) -> Piece:
    """Return the notes at each step, from triples (note, first step, end)."""
    notes = [each for each in notes if LOWEST <= each[0] < LOWEST + KEYS]
    steps: list[set[int]] = [set() for _ in range(last)]
    for note, begin, end in notes:
        steps += [set() for _ in range(begin + 1 - len(steps))]
        for step in steps[begin : max(begin + 1, end)]:
            step.add(note)
    return [frozenset(step) for step in steps]


def read_folder(folder: Path, per_beat: int) -> Music:
    """Read all MIDI files in a folder and its subfolders, in three parts.

    The order of the files is that of a hash of their notes. The first 70 % of them are
    the training part, the next 15 % the validation part, the rest the test part. A
    file with the notes of an earlier file is left out. A line says how many pieces
    each part has.

    Raises:
      DataError: if there are fewer than three different pieces, or a file cannot be
        read.
    """
    if not folder.is_dir():
        raise DataError(f"--midi: there is no folder {folder}.")
    paths = [each for each in folder.rglob("*") if each.suffix.lower() in SUFFIXES]
    pieces = {}
    for path in sorted(paths):
        try:
            piece = read_midi(path, per_beat)
        except ValueError as error:
            raise DataError(f"--midi: {error} Remove it.") from error
        if len(piece) >= SHORTEST and any(piece):
            text = repr([sorted(notes) for notes in piece]).encode()
            pieces[hashlib.sha256(text).hexdigest()] = piece
    if len(pieces) < 3:
        raise DataError(
            f"--midi: {folder} has {len(paths)} MIDI files, and {len(pieces)} "
            f"different pieces of {SHORTEST} steps or more; at least 3 are needed, for "
            "training, validation and test."
        )
    ordered = [pieces[name] for name in sorted(pieces)]
    held_out = max(1, round(0.15 * len(ordered)))
    first, second = len(ordered) - 2 * held_out, len(ordered) - held_out
    print(
        f"--midi: {len(paths)} MIDI files, with {len(pieces)} different pieces of "
        f"{SHORTEST} steps or more: {first} for training, {held_out} for validation, "
        f"{held_out} for test. Other files are not read."
    )
    return Music(ordered[:first], ordered[first:second], ordered[second:])
