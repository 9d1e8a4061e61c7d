"""Network of `translate`: an encoder, and a decoder with attention.

The encoder is two GRUs, which read a sentence x_1 … x_S forwards and backwards. The
decoder is a third GRU, which writes the words y_1, y_2, … up to END:

    m_s = [h→_s, h←_s],    g_0 = tanh(W_0 [h→_S, h←_1] + b_0)
    e_ts = v · tanh(W_q g_{t−1} + W_k m_s), "additive",  or  g_{t−1} · W_k m_s, "dot"
    a_ts = softmax_s(e_ts) where x_s is no padding, else 0,    c_t = Σ_s a_ts m_s
    g_t = GRU(g_{t−1}, [E y_{t−1}, c_t]),    f_t = tanh(W_f [g_t, c_t, E y_{t−1}] + b_f)
    p(y_t | y_1 … y_{t−1}, x) = softmax(E f_t + b)

m_s is the memory of a source word, g_t the decoder's state, a_ts the attention, c_t the
context and f_t the decoder's output; W_…, v, b_… and E are weights. y_{t−1} is the
reference's word (teacher forcing), or the most probable word at step t−1. The decoder
uses one matrix E both to embed the words that it reads, and to predict words. Dropout
is applied to the embeddings of read words, and to f_t.

References:
  Bahdanau, Cho, Bengio, "Neural machine translation by jointly learning to align and
  translate", ICLR 2015, arXiv:1409.0473. Luong, Pham, Manning, "Effective approaches to
  attention-based neural machine translation", EMNLP 2015, doi:10.18653/v1/D15-1166.
  Bengio et al., "Scheduled sampling for sequence prediction with recurrent neural
  networks", NeurIPS 2015, arXiv:1506.03099.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants import cells, gradients
from bpvariants.types import PyTree, Step

END, UNKNOWN = 0, 1  # END is also the first word that the decoder reads
RULES = ("bptt", "bptt_step", "truncated_bptt")
HIDDEN = -1e30  # score of padding in the attention, and logit of the word UNKNOWN
Attention: TypeAlias = Literal["additive", "dot"]


def check_rule(name: str) -> None:
    """Check that a rule can differentiate encoder and decoder together.

    Example:
      >>> check_rule("bptt")
    """
    if name not in RULES:
        raise ValueError(
            f"rule must be one of {', '.join(RULES)}; got {name!r}. Rules of one "
            "network with a loss at each step, such as rtrl and uoro, give no gradient "
            "in the states that the decoder attends to, and so none for the encoder."
        )


class Sizes(NamedTuple):
    """Sizes of the two vocabularies, and of the network."""

    source_words: int
    target_words: int
    embedding: int
    units: int
    attention: Attention = "additive"


class How(NamedTuple):
    """Settings of the network and of its gradient rule, which are not learned."""

    attention: Attention = "additive"
    rule: str = "bptt"
    lookback: int = 1  # words between two stopped gradients, for truncated_bptt


def init(key: jax.Array, sizes: Sizes) -> PyTree:
    """Draw the parameters of a network."""
    keys = iter(jax.random.split(key, 12))
    n, e = sizes.units, sizes.embedding

    def normal(inputs: int, *shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape) / inputs**0.5

    additive = sizes.attention == "additive"
    score = {"query": normal(n, n, n), "energy": normal(n, n)} if additive else {}
    return {
        "encoder": {
            "words": normal(e, sizes.source_words, e),
            "forward": cells.gru.init(next(keys), e, n),
            "backward": cells.gru.init(next(keys), e, n),
            "first": normal(2 * n, 2 * n, n),
            "first_bias": jnp.zeros(n),
        },
        "decoder": score
        | {
            "words": normal(e, sizes.target_words, e),
            "bias": jnp.zeros(sizes.target_words),
            "key": normal(2 * n, 2 * n, n),
            "cell": cells.gru.init(next(keys), e + 2 * n, n),
            "mix": normal(3 * n + e, 3 * n + e, e),
            "mix_bias": jnp.zeros(e),
        },
    }


def encode(
    params: PyTree, source: jax.Array, mask: jax.Array, kept: Any, how: How
) -> tuple[PyTree, jax.Array]:
    """Encode sentences; return the memory of all words, and the decoder's first state.

    Args:
      params: parameters of encoder and decoder.
      source: [S, B] int, word indices of the sentences.
      mask: [S, B] bool, False in padding.
      kept: [S, B, embedding], dropout mask of the embeddings; None for no dropout.
      how: settings of the network.
    """
    own, look = params["encoder"], params["decoder"]
    xs = own["words"][source]
    xs = xs if kept is None else xs * kept
    zeros = cells.gru.carry(own["forward"], source.shape[1:])

    def step(params, h, x):
        return cells.gru(params, _cut(h, x[1]), x[0])

    (last, first), states = gradients.bidirectional(
        step, step, (own["forward"], own["backward"]), (zeros, zeros),
        (xs, cuts(source, how)), mask=mask, remat=remat(how),
    )  # fmt: skip
    memory = jnp.where(mask[..., None], jnp.concatenate(states, axis=-1), 0)
    both = jnp.concatenate([last, first], axis=-1)
    return {
        "memory": memory,
        "keys": memory @ look["key"],
        "hidden": jnp.where(mask, 0.0, HIDDEN).astype(memory.dtype),
    }, jnp.tanh(both @ own["first"] + own["first_bias"])


def make_step(attention: Attention, own_words: bool) -> Step:
    """Return the decoder's step.

    The arguments and the output of the step are tuples:

    - params: the decoder's parameters, and the memory that :func:`encode` returns;
    - carry: the decoder's state g, and the most probable word of the last step;
    - x: a given word, whether to read it (or else the most probable word), the dropout
      masks of the read word's embedding and of the output f (or None), and whether to
      stop gradients;
    - y: the output f, the most probable word, and the attention a.

    Args:
      attention: "additive" or "dot".
      own_words: False if the given word is always read. The most probable word is then
        not computed.
    """

    def step(params, carry, x):
        (net, seen), (g, said), (given, forced, kept, cut) = params, carry, x
        g = _cut(g, cut)
        last = net["words"][jnp.where(forced, given, said) if own_words else given]
        last = last if kept is None else last * kept[0]
        shares = attend(net, seen, g, attention)
        context = jnp.einsum("sb,sbn->bn", shares, seen["memory"])
        read = jnp.concatenate([last, context], axis=-1)
        g, _ = cells.gru(net["cell"], g, read)
        f = jnp.concatenate([g, context, last], axis=-1) @ net["mix"] + net["mix_bias"]
        f = jnp.tanh(f) if kept is None else jnp.tanh(f) * kept[1]
        if own_words:  # the choice of a word has no gradient
            likely = jax.lax.stop_gradient(logits(net, f)).at[:, UNKNOWN].set(HIDDEN)
            said = jnp.argmax(likely, axis=-1).astype(said.dtype)
        return (g, said), (f, said, shares)

    return step


def attend(net: PyTree, seen: PyTree, g: jax.Array, attention: Attention) -> jax.Array:
    """Return the attention a [S, B] to each source word; it is 0 in padding."""
    if attention == "additive":
        score = jnp.tanh(g @ net["query"] + seen["keys"]) @ net["energy"]
    else:
        score = jnp.sum(g * seen["keys"], axis=-1)
    return jax.nn.softmax(score + seen["hidden"], axis=0)


def logits(net: PyTree, f: jax.Array) -> jax.Array:
    """Return the logits of all words, from the decoder's output f."""
    return f @ net["words"].T + net["bias"]


def cuts(like: jax.Array, how: How) -> jax.Array | None:
    """Return a mask [T, B] of the steps at which gradients stop; None if at none."""
    if how.rule != "truncated_bptt":
        return None
    steps = jnp.arange(like.shape[0])[:, None]
    return jnp.broadcast_to((steps > 0) & (steps % how.lookback == 0), like.shape)


def _cut(h: jax.Array, cut: jax.Array | None) -> jax.Array:
    """Return the state, with its gradient stopped where `cut` is True."""
    if cut is None:
        return h
    return jnp.where(cut[..., None], jax.lax.stop_gradient(h), h)


def remat(how: How) -> Literal["step"] | None:
    """Return the option `remat` of `unroll`: what is stored for the backward pass."""
    return "step" if how.rule == "bptt_step" else None
