"""The file of a learner: a zip archive of JSON, two programs, and the state.

- `learner.json`: the version of the format, the version of JAX, the
  platforms, and the structures, shapes and dtypes of state, inputs and outputs.
- `predict` and `learn`: the two programs, serialised by `jax.export` (StableHLO).
- `state`: the vectors of the state, as bytes in little-endian order, one after another.

No part is pickled, so reading a file runs no code of the file but its two programs.
"""

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from bpvariants._settings import check_path
from bpvariants.training.learners._layout import from_json, sizes

FORMAT = 1
KIND = "bpvariants learner"
MEMBERS = ("learner.json", "predict", "learn", "state")


class Content(NamedTuple):
    """Content of the file of a learner."""

    about: dict[str, Any]  # learner.json
    predict: bytes
    learn: bytes
    vectors: list[np.ndarray]


def serialized(exported: jax.export.Exported) -> bytes:
    """Serialise an exported program, without its derivatives."""
    try:
        return bytes(exported.serialize())
    except (ImportError, ModuleNotFoundError) as error:
        raise ImportError(f"{NEEDS} ({error})") from error


NEEDS = (
    "jax.export needs the package flatbuffers to write and to read programs: pip "
    'install flatbuffers, or pip install "bpvariants[export]".'
)


def write(path: str | os.PathLike, content: Content) -> None:
    """Write the file of a learner; an older file is replaced when all is written."""
    check_path("path", path)
    target = Path(path)
    if not target.absolute().parent.is_dir():
        raise ValueError(f"path: there is no folder {target.absolute().parent}.")
    state = b"".join(_little(vector).tobytes() for vector in content.vectors)
    about = json.dumps(content.about, indent=1).encode()
    parts = zip(MEMBERS, (about, content.predict, content.learn, state), strict=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in parts:
                archive.writestr(name, data)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | os.PathLike) -> Content:
    """Read the file of a learner, and check that this process can run its programs."""
    check_path("path", path)
    if not Path(path).is_file():
        raise ValueError(f"path: there is no file {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            found = set(archive.namelist())
            parts = [archive.read(name) for name in MEMBERS if name in found]
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError) as error:
        raise _not_ours(path, f"it is no zip archive, or is damaged: {error}") from None
    if not parts or MEMBERS[0] not in found:
        raise _not_ours(path, f"it has no {MEMBERS[0]}")
    try:
        about = json.loads(parts[0])
        kind, version = about["kind"], about["format"]
    except (ValueError, KeyError, TypeError):
        raise _not_ours(path, f"its {MEMBERS[0]} does not describe a learner") from None
    if kind != KIND:
        raise _not_ours(path, f"its kind is {kind!r}")
    check_versions(path, version, about)
    if len(parts) < len(MEMBERS):
        missing = [name for name in MEMBERS if name not in found]
        raise _not_ours(path, f"it has no {', '.join(missing)}")
    return Content(about, parts[1], parts[2], _vectors(path, about, parts[3]))


def check_versions(path: Any, version: Any, about: dict[str, Any]) -> None:
    """Check formats, platforms and dtypes against this process."""
    if version != FORMAT:
        raise ValueError(
            f"path: {path} has format {version}, and this version of bpvariants reads "
            f"format {FORMAT}. Install the version that wrote the file, or export the "
            "learner again."
        )
    low = jax.export.minimum_supported_calling_convention_version
    high = jax.export.maximum_supported_calling_convention_version
    convention = about["calling_convention"]
    if not low <= convention <= high:
        raise ValueError(
            f"path: the programs of {path} have calling convention {convention} of "
            f"jax.export (written with jax {about['jax']}), and jax {jax.__version__} "
            f"runs {low} to {high}. Install jax {about['jax']}, or export the learner "
            "again."
        )
    here = jax.export.default_export_platform()
    if here not in about["platforms"]:
        raise ValueError(
            f"path: the programs of {path} were exported for "
            f"{', '.join(about['platforms'])}, and this process runs on {here}. Export "
            f"the learner again with platforms={[*about['platforms'], here]}."
        )
    wide = {dtype for _, dtype in sizes(from_json(about["layout"]))}
    for port in ("x", "target"):
        wide |= {dtype for _, dtype in about[port]["leaves"]}
    wide &= {"float64", "int64", "uint64", "complex128"}
    if wide and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            f"path: {path} holds numbers of type {', '.join(sorted(wide))}, which JAX "
            'turns off by default; call jax.config.update("jax_enable_x64", True) '
            "before it is loaded."
        )


def program(path: Any, data: bytes) -> jax.export.Exported:
    """Return the exported program that `serialized` returned as bytes."""
    try:
        return jax.export.deserialize(bytearray(data))
    except (ImportError, ModuleNotFoundError) as error:
        raise ImportError(f"{NEEDS} ({error})") from error
    except Exception as error:
        raise ValueError(
            f"path: a program of {path} cannot be read by jax {jax.__version__}: "
            f"{error}. Export the learner again with this version."
        ) from error


def _vectors(path: Any, about: dict[str, Any], data: bytes) -> list[np.ndarray]:
    vectors, begin = [], 0
    for size, name in sizes(from_json(about["layout"])):
        dtype = jnp.dtype(name)
        end = begin + size * dtype.itemsize
        if end > len(data):
            break
        part = np.frombuffer(data[begin:end], dtype=_order(dtype))
        vectors.append(part.astype(dtype))
        begin = end
    if begin != len(data) or len(vectors) != len(about["layout"]["groups"]):
        raise _not_ours(path, "its state has another size than it says")
    return vectors


def _little(vector: Any) -> np.ndarray:
    array = np.asarray(vector)
    return array.astype(_order(array.dtype), copy=False)


def _order(dtype: Any) -> Any:
    """Return a dtype with little-endian bytes; dtypes of JAX alone have no other."""
    return dtype.newbyteorder("<") if dtype.kind in "iufc" else dtype


def _not_ours(path: Any, why: str) -> ValueError:
    return ValueError(
        f"path: {path} is not a file that training.export_learner or Learner.save "
        f"wrote: {why}."
    )
