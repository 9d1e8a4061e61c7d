"""Make the pictures of the gallery: run each study's command, and shrink its picture.

`python docs/pictures.py` makes all pictures that are missing from docs/images/studies;
`python docs/pictures.py flow drift` makes these two again. It needs the extra
`experiments`. A picture has at most 900 pixels in width, 128 colours, and 60 kB.
"""

import pathlib
import subprocess
import sys
import tempfile

from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images" / "studies"
# {study: (options of its command, name of the picture that is shown)}
COMMANDS = {
    "chain_rule": ("", "chain"),
    "identify": ("--quick", "identify"),
    "flow": ("--quick", "flow"),
    "drift": ("--quick", "drift"),
    "influence_balancing": ("--quick", "influence_balancing"),
    "rprop_vs": ("--quick", "convergence"),
    "memory_time": ("--quick", "growth"),
    "online_learning": ("--quick", "errors"),
    "streaming": ("--quick", "streaming"),
    "forecast": ("--quick", "seattle-forecasts"),
}
WIDTH, COLOURS, LIMIT = 900, 128, 60_000


def shrink(picture: pathlib.Path, place: pathlib.Path) -> None:
    """Write a copy of a picture in fewer pixels and colours, of at most LIMIT bytes."""
    image = Image.open(picture).convert("RGB")
    width, method = min(WIDTH, image.width), Image.Quantize.MAXCOVERAGE
    while True:
        size = width, round(image.height * width / image.width)
        small = image.resize(size, Image.Resampling.LANCZOS)
        small = small.quantize(COLOURS, method, kmeans=2, dither=Image.Dither.NONE)
        small.save(place, optimize=True)
        if place.stat().st_size <= LIMIT:
            return
        width = round(width * 0.9)


def make(study: str) -> None:
    """Run a study, and write its picture to IMAGES."""
    options, name = COMMANDS[study]
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "run"
        command = [sys.executable, "-m", "experiments", study, *options.split()]
        subprocess.run([*command, "--out", str(out)], check=True, cwd=ROOT)
        found = sorted(path.name for path in out.rglob("*.png"))
        if f"{name}.png" not in found:
            raise SystemExit(f"{study} has no picture {name!r}, but {found}")
        IMAGES.mkdir(parents=True, exist_ok=True)
        shrink(next(out.rglob(f"{name}.png")), IMAGES / f"{study}.png")


if __name__ == "__main__":
    names = sys.argv[1:]
    for each in names or COMMANDS:
        if names or not (IMAGES / f"{each}.png").exists():
            make(each)
