"""Sphinx extension: show h_t and M_{t−1} with subscripts, and s^l with superscripts.

Pages and docstrings write indices in plain text, which is readable in any editor. Code
and equations in literal blocks stay as they are.
"""

import re
from typing import Any, TYPE_CHECKING

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# An index belongs to a symbol of one letter (perhaps with ∂, d or a combining mark), or
# to a closing bracket or a transposition.
INDEX = re.compile(
    r"(?<=[^\W\d_]|[\u0300-\u036fᵀ)}∂Σ∏⁺⁻])"
    r"([_^])(\{[^{}]+\}|\d+\.\d+|[^\W_](?!\w))"
)
SYMBOL = re.compile(r"(?:^|\W)(?:[d∂]?[^\W\d_][\u0300-\u036f]?|[Σ∏]|\wᵀ)$|\)$")
CODE = nodes.literal | nodes.literal_block | nodes.FixedTextElement | nodes.raw


class Indices(SphinxPostTransform):
    """Replace indices in text by subscripts and superscripts."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Replace the indices in all text outside of code."""
        for text in list(self.document.findall(nodes.Text)):
            if not any(isinstance(node, CODE) for node in parents(text)):
                parts = with_indices(text.astext())
                if len(parts) > 1:
                    text.parent.replace(text, parts)


def parents(node: nodes.Node) -> list[nodes.Node]:
    """Return all nodes that contain a node."""
    above = []
    while node.parent is not None:
        node = node.parent
        above.append(node)
    return above


def with_indices(text: str) -> list[nodes.Node]:
    """Return a text as nodes, in which each index is a node of its own."""
    parts, done = [], 0
    for match in INDEX.finditer(text):
        before = text[done : match.start()]
        follows = not before and bool(parts)  # a second index, as in W^{l+1}_i
        if not follows and not SYMBOL.search(before):
            continue
        if before:
            parts.append(nodes.Text(before))
        kind = nodes.subscript if match[1] == "_" else nodes.superscript
        index = match[2].strip("{}")
        parts.append(kind(index, index))
        done = match.end()
    if done < len(text):
        parts.append(nodes.Text(text[done:]))
    return parts


def setup(app: "Sphinx") -> dict[str, bool]:
    """Add the transformation."""
    app.add_post_transform(Indices)
    return {"parallel_read_safe": True}
