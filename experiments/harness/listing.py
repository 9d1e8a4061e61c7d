"""The list of all studies, as `python -m experiments` prints it."""

import textwrap

from experiments.studies import Entry, GROUPS, STUDIES


def listing(width: int) -> str:
    """Return the list of all studies in groups, wrapped to `width` characters."""
    indent = 4 + max(map(len, STUDIES))
    parts = ["Usage: python -m experiments STUDY [--quick] [--help] …"]
    for group, entries in GROUPS.items():
        lines = [group]
        for name, entry in entries.items():
            lines.append(
                textwrap.fill(
                    f"{entry.about[0].upper()}{entry.about[1:]}. {needs(entry)}",
                    width - 1,
                    initial_indent=f"  {name}".ljust(indent),
                    subsequent_indent=" " * indent,
                    break_on_hyphens=False,
                ).rstrip()
            )
        parts.append("\n".join(lines))
    note = (
        "Times are for the whole study on two CPU cores that other programs used too; "
        "those of long studies are scaled from a part. Where none is given, it was "
        "not measured. With --quick, every study takes less than a minute. Downloads "
        "happen once, at the first run."
    )
    return "\n\n".join([*parts, textwrap.fill(note, width - 1)])


def needs(entry: Entry) -> str:
    """Return the time of a study and its download, as two short sentences."""
    said = []
    if entry.minutes is not None:
        short = entry.minutes < 1
        number = round(60 * entry.minutes) if short else round(entry.minutes)
        said.append(f"About {number} {'s' if short else 'min'}.")
    if entry.download:
        said.append(f"Needs a download: {entry.download}.")
    return " ".join(said)
