"""Program that asks a model of `speech` about words that espeak-ng speaks.

    pip install espeakng-loader
    python -m tests.experiments.spoken_words FOLDER

FOLDER is a finished run of the study `speech`. The program prints how many words of
other languages, English words and English digits are called unlike what was learned.
"""

import ctypes
import sys
from math import gcd

import espeakng_loader  # pyright: ignore[reportMissingImports]
import numpy as np
from scipy.signal import resample_poly

import experiments

RETRIEVAL, UTF8 = 2, 1  # constants of espeak-ng's speak_lib.h
FOREIGN = {
    "de": "Garten Hund Brücke Himmel Tisch Vogel Schule Wolke Messer Berg Wasser "
    "Fenster Straße Blume Katze Schmetterling Kirche Löffel Zug Apfel",
    "fr": "jardin chien pont ciel table nuage couteau montagne lune herbe bonjour "
    "fenêtre maison chat rouge école pomme oiseau voiture pluie",
    "fi": "puutarha koira silta taivas pöytä koulu pilvi veitsi vuori kuu talo kissa "
    "vesi ikkuna puu omena järvi hyvää auto lintu",
    "es": "jardín puente cielo nube cuchillo montaña luna hierba fuego noche ventana "
    "gato rojo escuela manzana pájaro coche lluvia perro mesa",
}
ENGLISH = (
    "window garden dog bridge table water monkey apple summer paper finger letter "
    "river music ocean purple"
)
DIGITS = "zero one two three four five six seven eight nine"
KINDS = {"words of other languages": FOREIGN, "English words": {"en-us": ENGLISH}}
KINDS["English digits"] = dict.fromkeys(
    ("en-us", "en-gb-scotland", "en-gb-x-rp"), DIGITS
)


def main(folder: str) -> None:
    """Print a table of the words that a model calls unlike."""
    model, say = experiments.load(folder), _speaker()
    print("| words by espeak-ng | called unlike | right |", "|---|---|---|", sep="\n")
    for kind, words in KINDS.items():
        answers = [
            (model.predict(say(voice, word)), word)
            for voice, together in words.items()
            for word in together.split()
        ]
        unlike = sum(answer.unlike for answer, _ in answers)
        names = DIGITS.split()
        right = sum(names[answer.value] == word for answer, word in answers)
        print(f"| {kind} | {unlike} of {len(answers)} | {right} |")


def _speaker():
    """Return a function (voice, word) -> samples at 8000 samples per second."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    where = str(espeakng_loader.get_data_path()).encode()
    rate = library.espeak_Initialize(RETRIEVAL, 0, where, 0)
    heard = []

    @ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
    )
    def collect(samples, count, _):
        if samples and count > 0:
            heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)

    def say(voice: str, word: str) -> np.ndarray:
        heard.clear()
        if library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice!r}.")
        text = word.encode() + b"\0"
        library.espeak_Synth(text, len(text), 0, 1, 0, UTF8, None, None)
        common = gcd(8000, rate)
        sound = np.concatenate(heard) / 32768
        return resample_poly(sound, 8000 // common, rate // common).astype(np.float32)

    say.collect = collect  # espeak-ng calls it later; it must not be collected
    return say


if __name__ == "__main__":
    main(sys.argv[1])
