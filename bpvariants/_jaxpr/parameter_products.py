"""Search in a step's jaxpr for the products of parameter matrices and vectors.

A block consists of parameters, such as matrices W and U and a bias b, that the step
uses only to compute one vector u. With vectors a₁ and a₂, u is the sum

    u = b + a₁ W + a₂ U = â Θ,    â = (1, a₁, a₂),    Θ = (b; W; U), [k, m].

The matrix Θ stacks the k rows of b, W and U; the vector u has m elements. The
derivative of the new carry h_t with respect to entry (i, j) of Θ is ∂h_t/∂Θ_ij =
∂h_t/∂u_j â_i. The vectors a₁ and a₂ may depend on the parameters of other blocks, as in
a second layer.

Each element of params or of a product is a *term*. A rearranged term stays the same
term. An element of params that is multiplied by a constant also stays the same term.
The derivative with respect to this element is the derivative with respect to the
product, times the constant. If two terms are added and used nowhere else, their sum
replaces them as one term. A step may therefore multiply by one matrix for all gates and
split the product into gates, or concatenate the matrices of several gates.
"""

from typing import Any, NamedTuple

import numpy as np

from bpvariants._jaxpr.program import is_variable
from bpvariants._jaxpr.rearrangements import rearranges
from bpvariants._jaxpr.uses import ADDITIONS, passes_on, rearranged, Uses

# Number that marks a bias in `Terms.parts`, where other entries have a product's index.
BIAS = -1


class Block(NamedTuple):
    """Block of parameters Θ [k, m], which a jaxpr multiplies by a vector â: u = â Θ.

    Attributes:
      variable: variable of the jaxpr that contains u.
      positions: [m], flat positions of the elements of u in `variable`.
      inputs: parts of â. A bias has the part None, because it is multiplied by 1. Each
        other part is a pair: the variable that holds a vector, and the order in which
        to flatten this variable's axes.
      parameters: [k, m], the flat position in params of each entry of Θ.
    """

    variable: Any
    positions: np.ndarray
    inputs: list[tuple[Any, tuple[int, ...]] | None]
    parameters: np.ndarray


class Terms:
    """Terms of a jaxpr. A term is an element of params, of a product or of a sum."""

    def __init__(self, thetas: list[Any], paths: list[str], uses: Uses):
        self.paths = paths
        self.uses_of = uses.counts
        self.depends = uses.depends
        self.scaled = uses.scaled
        # One entry for each equation that multiplies params by constants: the equation,
        # the index of the operand that consists of params, and the flat positions in
        # params of this operand's elements.
        self.scales: list[tuple[Any, int, np.ndarray]] = []
        self.uses = np.zeros(0, int)  # how often the jaxpr uses each term
        self.spent = np.zeros(0, bool)  # whether another term contains this term
        # Dict from a term to its summands. A summand is a pair (index of a product,
        # column of the product's matrix) or, for a bias, (BIAS, flat position in
        # params).
        self.parts: dict[int, list[tuple[int, int]]] = {}
        self.products: list[tuple[Any, tuple[int, ...], np.ndarray]] = []
        self.terms: dict[Any, np.ndarray] = {}  # variable -> the terms of its elements
        # For each variable with terms, the pair (number of the first term, variable).
        self.origins: list[tuple[int, Any]] = []
        for theta in thetas:
            self._add(theta, None)
        self.num_parameters = len(self.uses)

    def read(self, equation: Any) -> None:
        """Find the terms of an equation's results.

        Raise an error if the equation uses params in a way that no block allows.
        """
        name = equation.primitive.name
        of = lambda atom: self.terms.get(atom) if is_variable(atom) else None
        operands = [of(atom) for atom in equation.invars]
        known = [terms for terms in operands if terms is not None]
        if rearranges(equation) and len(known) == len(equation.invars):
            results = rearranged(equation, known)
            self.terms |= zip(equation.outvars, results, strict=True)
        elif (scaled := self.scaled.get(id(equation))) is not None:
            self.terms[equation.outvars[0]] = known[0]
            self.scales.append((equation, scaled, known[0]))
        elif passes_on(equation, self.depends) is not None and known:
            self.terms[equation.outvars[0]] = known[0]
        elif name == "dot_general":
            self._multiply(equation, operands)
        elif name in ADDITIONS:
            if name != "sub" and len(known) == 2 and self._meet(*known):
                self._join(equation.outvars[0], *known)
        else:
            self._refuse(known, f"is used in `{name}`")

    def blocks(self) -> list[Block]:
        """Group the terms into blocks.

        Terms of one array form one block if they are sums of entries of the same
        products. A term that is a summand of another term is left out.
        """
        grouped: dict[Any, list[int]] = {}
        starts = [start for start, _ in self.origins]
        for term in np.flatnonzero(~self.spent & (self.uses > 0)):
            origin = int(np.searchsorted(starts, term, side="right")) - 1
            products = tuple(product for product, _ in self._parts(term))
            grouped.setdefault((origin, products), []).append(int(term))
        blocks = []
        for (origin, products), terms in grouped.items():
            start, variable = self.origins[origin]
            rows, inputs = [], []
            for i, product in enumerate(products):
                columns = np.array([self._parts(term)[i][1] for term in terms])
                if product == BIAS:
                    rows.append(columns[None])
                    inputs.append(None)
                else:
                    atom, axes, parameters = self.products[product]
                    rows.append(parameters[:, columns])
                    inputs.append((atom, axes))
            positions = np.array(terms) - start
            blocks.append(Block(variable, positions, inputs, np.concatenate(rows)))
        return blocks

    def _add(self, variable, parts):
        shape, start = variable.aval.shape, len(self.uses)
        uses = self.uses_of.get(variable, np.zeros(shape, int)).reshape(-1)
        self.uses = np.concatenate([self.uses, uses])
        self.spent = np.concatenate([self.spent, np.zeros(uses.size, bool)])
        self.terms[variable] = np.arange(start, start + uses.size).reshape(shape)
        self.origins.append((start, variable))
        if parts is not None:
            self.parts |= zip(range(start, start + uses.size), parts, strict=True)

    def _parts(self, term):
        return self.parts.get(term, [(BIAS, term)])

    def _meet(self, a, b):
        """Return whether the arrays a and b of terms are used only in their sum."""
        return a.shape == b.shape and np.all(self.uses[[a, b]] == 1)

    def _join(self, variable, a, b):
        pairs = zip(a.reshape(-1), b.reshape(-1), strict=True)
        self._add(variable, [sorted(self._parts(x) + self._parts(y)) for x, y in pairs])
        self.spent[[a, b]] = True

    def _multiply(self, equation, operands):
        contracted, _ = equation.params["dimension_numbers"]
        shapes = [atom.aval.shape for atom in equation.invars]
        rest = [
            [axis for axis in range(len(shape)) if axis not in axes]
            for shape, axes in zip(shapes, contracted, strict=True)
        ]
        for i, terms in enumerate(operands):
            vector = all(shapes[1 - i][axis] == 1 for axis in rest[1 - i])
            if terms is None or not vector or np.any(terms >= self.num_parameters):
                continue
            order = [(*contracted[k], *rest[k]) for k in range(2)]
            size = np.prod([shapes[i][axis] for axis in contracted[i]], dtype=int)
            columns = equation.outvars[0].aval.size
            matrix = terms.transpose(order[i]).reshape(size, columns)
            self._refuse([matrix[self.uses[matrix] != 1]], "is used more than once")
            others = operands[1 - i]
            if others is not None:
                self._refuse([others], "multiplies another array of params")
            parts = [[(len(self.products), column)] for column in range(columns)]
            self.products.append((equation.invars[1 - i], order[1 - i], matrix))
            self._add(equation.outvars[0], parts)
            self.spent[matrix] = True
            return
        known = [terms for terms in operands if terms is not None]
        self._refuse(known, "is multiplied by more than one vector")

    def _refuse(self, operands, reason):
        for terms in operands:
            found = terms[terms < self.num_parameters]
            if found.size:
                starts = [start for start, _ in self.origins[: len(self.paths)]]
                # An empty array has no terms, and starts at the same number as the next
                # array. Of several arrays that start at one number, the last one
                # contains the terms.
                path = self.paths[np.searchsorted(starts, found[0], side="right") - 1]
                raise ValueError(
                    f"params{path} does not factorise, as this rule requires: it "
                    f"{reason}. Each array of params that reaches the carry must be "
                    "used once, in a product with one vector, or be added as a bias. "
                    "Before that it may be rearranged and multiplied by constants. "
                    "Use gradients.rtrl, snap or uoro, which take any step."
                )
