"""Pieces of music written as MIDI files."""

import os
from collections.abc import Sequence
from pathlib import Path

import mido

from experiments.data import Piece

TICKS = 480  # number of MIDI ticks in a time step, which is one beat


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


def read_midi(path: Path) -> Piece:
    """Return the notes at each beat, from a file that :func:`write_midi` wrote."""
    file = mido.MidiFile(path)
    piece, sounding, now = [], frozenset(), 0
    for message in mido.merge_tracks(file.tracks):
        now += message.time
        beats = round(now / file.ticks_per_beat)
        piece += [sounding] * (beats - len(piece))
        if message.type == "note_on" and message.velocity:
            sounding |= {message.note}
        elif message.type in ("note_on", "note_off"):
            sounding -= {message.note}
    return piece
