"""Draw docs/images/decision.svg: which rule, which update.

Run this program by `python docs/decision.py`. The picture repeats docs/choosing.md.
Each question has an answer at its right, for "yes"; for "no", go on to the question
below.
"""

import pathlib
from html import escape

# (question, answer if yes); without a question, the answer is the last one.
RULES = [
    (
        ["Is it a feed-forward", "network?"],
        ["jax.value_and_grad", "gradients.backprop"],
    ),
    (
        ["Does the network settle", "at a fixed point?"],
        ["gradients.fixed_point", "gradients.recurrent_backprop"],
    ),
    (["Does the step have", "no derivative?"], ["gradients.pes"]),
    (
        ["Must it learn while", "the sequence still runs?"],
        [
            "if units do not mix:",
            "gradients.diagonal_rtrl",
            "if the network is small:",
            "gradients.rtrl",
            "if it is large:",
            "gradients.snap",
            "if the mean must be exact:",
            "gradients.kf_rtrl",
        ],
    ),
    (["Does the sequence", "fit in memory?"], ["gradients.bptt"]),
    (
        ["Does it fit if some values", "are computed twice?"],
        ["gradients.bptt", "with gradients.remat.slots"],
    ),
    ([], ["gradients.truncated_bptt", "on a gradients.stream"]),
]
UPDATES = [
    (["Are gradients those of", "the full batch?"], ["updates.rprop"]),
    (["Is it an endless stream?"], ["updates.forgetting"]),
    ([], ["optax.adam", "or another optimiser of optax"]),
]
WIDTH, LEFT, RIGHT, LINE, GAP = 600, 14, 310, 21, 26


def text(x: float, y: float, words: str, style: str) -> str:
    """Return one line of text."""
    return f'<text x="{x}" y="{y}" class="{style}">{escape(words)}</text>'


def box(x: float, y: float, lines: list[str], style: str) -> str:
    """Return a box with lines of text; its height fits the lines."""
    width = (RIGHT - 66 if style == "ask" else WIDTH - 14) - x
    height = LINE * len(lines) + 14
    shape = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
    parts = [f'{shape}class="{style}"/>']
    for i, words in enumerate(lines):
        kind = "code" if words.count(".") and " " not in words else "word"
        parts.append(text(x + 10, y + 22 + LINE * i, words, kind))
    return "".join(parts)


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """Return an arrow from one point to another."""
    return f'<path d="M{x} {y} L{to_x} {to_y}" class="way" marker-end="url(#tip)"/>'


def column(title: str, rows: list, y: float) -> tuple[list[str], float]:
    """Return the drawing of one question after another, and where it ends."""
    parts, y = [text(LEFT, y + 16, title, "title")], y + 34
    for question, answer in rows:
        tall = max(len(question), len(answer))
        if question:
            parts.append(box(LEFT, y, question, "ask"))
            parts.append(arrow(RIGHT - 66, y + 18, RIGHT - 3, y + 18))
            parts.append(text(RIGHT - 52, y + 12, "yes", "small"))
            low = y + LINE * len(question) + 14
            end = y + LINE * tall + 14 + GAP
            parts.append(arrow(LEFT + 60, low, LEFT + 60, end - 3))
            parts.append(text(LEFT + 70, end - 9, "no", "small"))
            parts.append(box(RIGHT, y, answer, "tell"))
        else:
            parts.append(box(LEFT, y, answer, "tell"))
        y += LINE * tall + 14 + GAP
    return parts, y


def draw() -> str:
    """Return the whole picture as SVG."""
    rules, middle = column("Where does the gradient come from?", RULES, 10)
    updates, end = column("What is done with the gradient?", UPDATES, middle + 6)
    style = (
        "text{font:15px sans-serif;fill:#1b1b1b}.code{font:14px monospace}"
        ".title{font-weight:bold;font-size:17px}.small{font-size:13px;fill:#555}"
        ".ask{fill:#eef3fa;stroke:#4a6fa5}.tell{fill:#eaf6ee;stroke:#3b8a57}"
        ".way{stroke:#555;stroke-width:1.4;fill:none}"
    )
    height = round(end - 10)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        "<title>Which rule, which update</title>",
        f"<style>{style}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#555"/>'
        "</marker></defs>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#fff"/>',
        *rules,
        *updates,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    place = pathlib.Path(__file__).parent / "images" / "decision.svg"
    place.write_text(draw())
