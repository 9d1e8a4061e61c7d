"""Write docs/atlas.md and its picture: which gradient rule for what, as measured.

    python -m docs.atlas                                   # writes page and picture
    python -m docs.atlas --enter FOLDER … --commit COMMIT  # first enters runs

FOLDER is the folder of a run of `python -m experiments atlas`, which need not be
finished. Several folders are parts of one table, docs/atlas.json.
"""

import argparse
import json
import pathlib
import sys
import tempfile

from PIL import Image

from experiments import report
from experiments.online import (
    _atlas_page as pages,
    _atlas_report,
    _atlas_table as table_of,
)

DOCS = pathlib.Path(__file__).resolve().parent
TABLE = DOCS / "atlas.json"
PAGE = DOCS / "atlas.md"
PICTURE = DOCS / "images" / "atlas.png"
DPI, COLOURS = 90, 48


def main(arguments: list[str]) -> None:
    """Enter runs if there are any; write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--enter", nargs="+", type=pathlib.Path, default=[])
    parser.add_argument("--commit", help="commit with which the runs were made")
    options = parser.parse_args(arguments)
    if options.enter:
        if not options.commit:
            parser.error("--enter needs --commit, the commit of the runs.")
        table = table_of.enter(options.enter, options.commit)
        report.write_atomically(TABLE, table_of.to_text(table))
    table = json.loads(TABLE.read_text("utf-8"))
    report.write_atomically(PAGE, pages.page(table))
    with tempfile.TemporaryDirectory() as folder:
        large = pathlib.Path(folder) / PICTURE.name
        _atlas_report.draw(table["rows"]).savefig(large, dpi=DPI)
        image = Image.open(large).convert("RGB")
        few = image.quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
