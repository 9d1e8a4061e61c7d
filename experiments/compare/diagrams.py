"""Small diagrams, as inline SVG, of where errors travel in each kind.

Black arrows are the forward pass, and orange dashed arrows carry errors. The colours
are CSS variables of the page, so the diagrams also suit the dark scheme.
"""

from collections.abc import Sequence
from html import escape

STYLE = """
.diagram rect, .diagram circle { fill: var(--ground); stroke: var(--text); }
.diagram text { fill: var(--text); font: 13px system-ui, sans-serif; }
.diagram text { text-anchor: middle; dominant-baseline: central; }
.diagram .small { font-size: 11px; fill: var(--soft); }
.diagram .go { stroke: var(--text); fill: none; stroke-width: 1.5; }
.diagram .back { stroke: var(--error); fill: none; stroke-width: 2; }
.diagram .back { stroke-dasharray: 5 3; }
.diagram .error { fill: var(--error); }
.diagram .bar { fill: var(--link); stroke: none; }
@media (min-width: 72rem) {
  .pair { display: grid; grid-template: auto 1fr / 44rem 1fr; column-gap: 1.5rem; }
  .pair > .card { grid-row: span 2; }
  .pair > figure { margin-bottom: 0; } .pair > .conclusion { align-self: start; }
}
"""


def static() -> str:
    """Draw a chain of layers: errors travel from the loss E back to each layer."""
    boxes = [_box(x, 40, name) for x, name in _row(("x", "layer 1", "layer 2", "E"))]
    forward = [_arrow(x + 34, 34, x + 66, 34) for x in (40, 140, 240)]
    back = [_arrow(x + 66, 48, x + 34, 48, back=True) for x in (140, 240)]
    words = [_text(190, 82, "one factor of the chain rule at each layer", "small")]
    return _svg(
        "Chain of input, two layers and loss. Errors travel from the loss to layer 2, "
        "then to layer 1.",
        [*boxes, *forward, *back, *words], 380, 95,
    )  # fmt: skip


def equilibrium() -> str:
    """Draw a layer whose state goes round until it settles; so does the error."""
    parts = [
        _box(60, 60, "x"), _box(190, 60, "h*"), _box(320, 60, "E"),
        _arrow(94, 60, 156, 60), _arrow(224, 54, 286, 54),
        _arrow(286, 68, 224, 68, back=True),
        _curve("M 172 44 C 150 8, 200 2, 200 42", "go"),
        _curve("M 200 77 C 215 118, 160 118, 176 80", "back"),
        _text(288, 18, "h ← f(h, x), until it settles", "small"),
        _text(288, 106, "z ← Jᵀz + ∂E/∂h, until it settles", "small"),
    ]  # fmt: skip
    return _svg(
        "A layer that feeds back into itself. The error enters at the settled state "
        "and goes round the same loop backwards until it settles, too.",
        parts, 380, 125,
    )  # fmt: skip


def forgetting() -> str:
    """Draw the sum of past gradients; no error travels to earlier updates."""
    shares = (1.0, 0.7, 0.49, 0.34, 0.24)
    names = ("g(n)", "g(n−1)", "g(n−2)", "g(n−3)", "g(n−4)")
    weights = ("η", "ηλ", "ηλ²", "ηλ³", "ηλ⁴")
    parts = [
        _text(190, 12, "no error travels: earlier gradients are remembered", "small")
    ]
    for x, share, name, weight in zip(
        range(60, 360, 65), shares, names, weights, strict=True
    ):
        height = 50 * share
        parts += [
            _bar(x, 84, height),
            _text(x, 96, name), _text(x, 74 - height, weight),
        ]  # fmt: skip
    return _svg(
        "Bars that shrink: the newest gradient has weight η, the one before η times λ, "
        "and so on.",
        parts, 380, 108,
    )  # fmt: skip


def resilient() -> str:
    """Draw the signs of a weight's gradient, and the steps that Rprop makes of them."""
    signs = ("+", "+", "+", "−", "+", "+")
    steps = (0.1, 0.12, 0.144, 0.0, 0.072, 0.0864)
    parts = [_text(190, 8, "size of the step of one weight", "small")]
    parts.append(_text(190, 118, "sign of its gradient in six updates", "small"))
    for x, sign, step in zip(range(60, 360, 52), signs, steps, strict=True):
        height = 300 * step
        parts += [
            _bar(x, 80, max(height, 1)),
            _text(x, 72 - height, f"{step:.3g}", "small"), _text(x, 97, sign),
        ]  # fmt: skip
    return _svg(
        "Bars: the step grows from 0.1 to 0.12 and 0.144 while the sign stays plus, is "
        "0 when the sign changes, and then half as long.",
        parts, 380, 130,
    )  # fmt: skip


def through_time(lookback: int | None = None) -> str:
    """Draw a network unrolled over six steps, with the loss at the last step.

    If `lookback` is given, errors go back so many steps only.
    """
    xs = [40 + 58 * t for t in range(6)]
    parts = [_box(x, 34, f"h{'₁₂₃₄₅₆'[t]}", half=17) for t, x in enumerate(xs)]
    parts.append(_box(xs[-1], 92, "E", half=17))
    parts += [_arrow(x + 17, 28, x + 41, 28) for x in xs[:-1]]
    parts += [_arrow(xs[-1] - 5, 48, xs[-1] - 5, 76)]
    parts += [_arrow(xs[-1] + 5, 76, xs[-1] + 5, 50, back=True)]
    reach = 5 if lookback is None else lookback
    for t in range(5, 0, -1):
        if 5 - t < reach:
            parts.append(_arrow(xs[t] - 17, 42, xs[t] - 41, 42, back=True))
    if lookback is not None:
        x = xs[5 - reach] - 29
        parts.append(_text(x, 42, "✕", "error"))
        parts.append(_text(120, 84, "earlier steps receive no error", "small"))
    else:
        parts.append(_text(140, 84, "every step receives an error", "small"))
    what = "to the first step" if lookback is None else f"only {lookback} steps"
    return _svg(
        f"A network unrolled over six time steps. The error of the last step travels "
        f"back {what}.",
        parts, 380, 112,
    )  # fmt: skip


def forward_in_time() -> str:
    """Draw the influence matrix, which is carried forwards beside the state."""
    xs = [40 + 75 * t for t in range(5)]
    parts = [_box(x, 30, f"h{'₁₂₃₄₅'[t]}", half=17) for t, x in enumerate(xs)]
    parts += [_box(x, 82, f"M{'₁₂₃₄₅'[t]}", half=17) for t, x in enumerate(xs)]
    parts += [_arrow(x + 17, 30, x + 58, 30) for x in xs[:-1]]
    parts += [_curve(f"M {x + 17} 82 L {x + 54} 82", "back") for x in xs[:-1]]
    words = "the influence M of the parameters on the state travels forwards"
    parts.append(_text(190, 114, words, "small"))
    return _svg(
        "States in a row, and below each an influence matrix. Both are carried "
        "forwards from step to step; nothing travels back.",
        parts, 380, 126,
    )  # fmt: skip


def _row(names: Sequence[str]) -> list[tuple[int, str]]:
    return [(40 + 100 * i, name) for i, name in enumerate(names)]


def _box(x: float, y: float, name: str, half: float = 33) -> str:
    frame = f'<rect x="{x - half}" y="{y - 14}" width="{2 * half}" height="28" rx="4"/>'
    return frame + _text(x, y, name)


def _bar(x: float, base: float, height: float) -> str:
    return (
        f'<rect class="bar" x="{x - 12}" y="{base - height:.0f}" width="24" '
        f'height="{height:.0f}"/>'
    )


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{of_kind}>{escape(words)}</text>'


def _arrow(x: float, y: float, to_x: float, to_y: float, *, back: bool = False) -> str:
    return _curve(f"M {x} {y} L {to_x} {to_y}", "back" if back else "go")


def _curve(path: str, kind: str) -> str:
    return f'<path class="{kind}" d="{path}" marker-end="url(#{kind}-end)"/>'


def _svg(alt: str, parts: Sequence[str], width: int, height: int) -> str:
    return (
        f'<svg class="diagram" role="img" viewBox="0 0 {width} {height}" '
        f'aria-label="{escape(alt)}"><title>{escape(alt)}</title>'
        f"{''.join(parts)}</svg>"
    )


# Heads of arrows, which all diagrams of a page share.
MARKERS = (
    '<svg aria-hidden="true" style="position: absolute; width: 0; height: 0"><defs>'
    + "".join(
        f'<marker id="{kind}-end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto-start-reverse" markerUnits="userSpaceOnUse">'
        f'<path d="M 0 0 L 8 4 L 0 8 z" style="fill: var({colour}); stroke: none"/>'
        "</marker>"
        for kind, colour in (("go", "--text"), ("back", "--error"))
    )
    + "</defs></svg>"
)
