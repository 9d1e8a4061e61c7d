"""Text of `python -m bpvariants`: what it is, where to read on, versions, devices."""

import importlib.metadata
import platform
from collections.abc import Iterator

import jax

import bpvariants

PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "scipy")


def report() -> str:
    """Return one screen of text, which is also what a bug report needs."""
    addresses = _addresses()
    source = addresses.get("source", addresses.get("repository"))
    checkout = f" ({source})" if source else ""
    return "\n".join(
        [
            f"bpvariants {bpvariants.__version__}",
            f"{bpvariants.__doc__}",
            "",
            "  bpvariants.gradients    where a gradient comes from: gradient rules",
            "  bpvariants.updates      what is done with it: optax transformations",
            "  bpvariants.training     loops, sweeps, checkpoints",
            "  bpvariants.diagnostics  is a gradient right, and how large",
            "",
            "Read on",
            *_indented([*addresses.items()]),
            "  help in Python: import bpvariants; help(bpvariants.gradients)",
            f"  studies: they need a checkout of the source{checkout}; there,",
            '    pip install -e ".[experiments]" && python -m experiments',
            "",
            "Versions",
            *_indented([*_versions()]),
            "",
            "Devices",
            *_devices(),
            "",
            "Please add this text to bug reports.",
        ]
    )


def _indented(rows: list[tuple[str, str]]) -> list[str]:
    """Return aligned lines "  name  value"."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name.ljust(width)}  {value}" for name, value in rows]


def _addresses() -> dict[str, str]:
    """Return the addresses of the installed package's metadata, by their labels."""
    try:
        found = importlib.metadata.metadata("bpvariants").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder on the path
        return {}
    pairs = (entry.partition(",") for entry in found)
    return {label.strip().lower(): address.strip() for label, _, address in pairs}


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} on {platform.platform(terse=True)}"
    yield "bpvariants", bpvariants.__version__
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"


def _devices() -> list[str]:
    """Return a line for each kind of device; the reason if JAX finds no backend."""
    try:
        devices = jax.devices()
    except Exception as error:  # jax raises several kinds, by platform
        reason = str(error).partition("\n")[0]
        return [f"  JAX finds no backend: {reason}"]
    kinds: dict[tuple[str, str], int] = {}
    for device in devices:
        kind = device.platform, device.device_kind
        kinds[kind] = kinds.get(kind, 0) + 1
    return [f"  {count} × {' '.join(kind)}" for kind, count in kinds.items()]


if __name__ == "__main__":
    print(report())
