"""Programs that train networks, as run.py asks them: FANN and OpenCV.

    python docs/conformance/run.py docs.conformance.trainers:fann_rprop

Such a program computes gradients itself. FANN takes new data at each step: a network
without hidden units, with weights of 0, inputs −g and the target 1, has the gradients
g. OpenCV starts afresh at each call, so it plays only traces that have minima: two
examples for each weight give it the loss of the trace.
"""

import ctypes
import ctypes.util
import os
import pathlib
import re
import tempfile
from typing import Any

import numpy as np

Rows = list[list[float]]
LINEAR, RPROP = 0, 2  # as enums of FANN count


class _TrainData(ctypes.Structure):
    """struct fann_train_data of FANN 2.2."""

    _fields_ = (
        ("errno_f", ctypes.c_int),
        ("error_log", ctypes.c_void_p),
        ("errstr", ctypes.c_char_p),
        ("num_data", ctypes.c_uint),
        ("num_input", ctypes.c_uint),
        ("num_output", ctypes.c_uint),
        ("input", ctypes.POINTER(ctypes.POINTER(ctypes.c_double))),
        ("output", ctypes.POINTER(ctypes.POINTER(ctypes.c_double))),
    )


class _Connection(ctypes.Structure):
    """struct fann_connection of FANN, in the library for double."""

    _fields_ = (
        ("source", ctypes.c_uint),
        ("target", ctypes.c_uint),
        ("weight", ctypes.c_double),
    )


def fann_library() -> ctypes.CDLL | None:
    """Return FANN's library for double, of $DOUBLEFANN or the system, or None."""
    path = os.environ.get("DOUBLEFANN") or ctypes.util.find_library("doublefann")
    if path is None:
        return None
    library = ctypes.CDLL(path)
    library.fann_create_standard_array.restype = ctypes.c_void_p
    library.fann_create_train.restype = ctypes.POINTER(_TrainData)
    library.fann_train_epoch.restype = ctypes.c_float
    return library


def fann_rprop(trace: dict[str, Any]) -> Rows:
    """Play a trace by FANN_TRAIN_RPROP of FANN 2.2."""
    fann = fann_library()
    assert fann is not None
    count, settings = len(trace["grads"]), trace["settings"]
    layers = (ctypes.c_uint * 2)(count, 1)
    net = ctypes.c_void_p(fann.fann_create_standard_array(2, layers))
    fann.fann_set_activation_function_output(net, LINEAR)
    fann.fann_set_train_error_function(net, LINEAR)
    fann.fann_set_training_algorithm(net, RPROP)
    for name, key in (
        ("delta_zero", "first_step"),
        ("decrease_factor", "eta_minus"),
        ("increase_factor", "eta_plus"),
        ("delta_min", "min_step"),
        ("delta_max", "max_step"),
    ):
        set_it = getattr(fann, f"fann_set_rprop_{name}")
        set_it(net, ctypes.c_float(settings[key]))
    data = fann.fann_create_train(1, count, 1)
    connections = (_Connection * (count + 1))()
    steps = []
    for grads in zip(*trace["grads"], strict=True):
        fann.fann_get_connection_array(net, connections)
        for connection in connections:
            connection.weight = 0.0
        fann.fann_set_weight_array(net, connections, count + 1)
        for i, g in enumerate(grads):
            data.contents.input[0][i] = -g
        data.contents.output[0][0] = 1.0
        fann.fann_train_epoch(net, data)
        fann.fann_get_connection_array(net, connections)
        found = {connection.source: connection.weight for connection in connections}
        steps.append([found[i] for i in range(count)])  # the last source is the bias
    fann.fann_destroy_train(data)
    fann.fann_destroy(net)
    return [list(row) for row in zip(*steps, strict=True)]


def opencv_rprop(trace: dict[str, Any]) -> Rows | None:
    """Play a trace with minima by ANN_MLP_RPROP of OpenCV 4."""
    import cv2

    if "minima" not in trace:
        return None
    minima, settings = np.array(trace["minima"]), trace["settings"]
    eye = np.eye(len(minima))
    inputs = np.stack([eye, -eye], 1).reshape(-1, len(minima)).astype(np.float32)
    targets = np.stack([minima, -minima], 1).reshape(-1, 1)
    net = cv2.ml.ANN_MLP_create()
    net.setLayerSizes(np.array([len(minima), 1]))
    net.setActivationFunction(cv2.ml.ANN_MLP_IDENTITY)
    net.setTrainMethod(cv2.ml.ANN_MLP_RPROP)
    for name, key in (
        ("DW0", "first_step"),
        ("DWMinus", "eta_minus"),
        ("DWPlus", "eta_plus"),
        ("DWMin", "min_step"),
        ("DWMax", "max_step"),
    ):
        getattr(net, f"setRprop{name}")(settings[key])
    flags = cv2.ml.ANN_MLP_NO_INPUT_SCALE | cv2.ml.ANN_MLP_NO_OUTPUT_SCALE
    rows = cv2.ml.ROW_SAMPLE, targets.astype(np.float32)
    net.setTermCriteria((cv2.TERM_CRITERIA_COUNT, 1, 0.0))
    net.train(cv2.ml.TrainData_create(inputs, *rows), flags)
    path = [np.zeros(len(minima))]
    for count in range(1, len(trace["grads"][0]) + 1):
        net = _with_weights_of_zero(net)
        net.setTermCriteria((cv2.TERM_CRITERIA_COUNT, count, 0.0))
        more = flags | cv2.ml.ANN_MLP_UPDATE_WEIGHTS
        net.train(cv2.ml.TrainData_create(inputs, *rows), more)
        path.append(net.getWeights(1)[:-1, 0])  # the last is the bias
    return np.diff(np.stack(path), axis=0).T.tolist()


def _with_weights_of_zero(net):
    """Return a copy of a net, with weights of 0; only a file can set weights."""
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net.yml"
        net.save(str(path))
        head, mark, tail = path.read_text(encoding="utf-8").partition("weights:\n")
        zeros = re.sub(r"- -?[.\d]\S*", "- 0.", tail)
        path.write_text(head + mark + zeros, encoding="utf-8")
        return cv2.ml.ANN_MLP_load(str(path))
