"""Texts of the page that is derived from the table of the study `atlas`."""

PICTURE = (
    "![Regret of each gradient rule, one panel for each cell, a row for each rule and "
    "a column for each task](images/atlas.png)"
)
INTRODUCTION = """# Which rule for what, measured

The page [Which rule, which update](choosing.md) says which rule to try first. This page
has measurements for small networks. The command `python -m docs.atlas` derives it from
`docs/atlas.json`.

{picture}

In the picture, hatched squares are rules that do not differ from the best rule, which
is bold. A cross marks a rule that does not support the cell, or equals another rule
there; the end of this page has the reasons. An empty square was not run. If no rule is
better than the trivial predictor, the numbers have no colour. The name tbptt_8_4 is
truncated BPTT with lookback 8, once in 4 steps.

The study `python -m experiments atlas` has run {done} of {all} combinations of a rule,
a task and a cell. Networks have {units} units and learn short sequences by {updates}
updates of Adam, each from a mini-batch of {batch} sequences. Every rule makes one
update per mini-batch, from its gradient of the whole sequence, so only the gradients
differ. An online rule could also learn on the way through the sequence, which is not
compared. For each rule, the learning rate is one of {each_rate}: the one with the
lowest mean validation loss over {trials} tuning seeds. Test losses are those of {seeds}
other seeds. Sequences have 10 to 60 time steps, so nothing is said about long ones. The
runs were made with jax {jax} at commit {commit}.

Tasks and sizes were fixed after trial runs of some rules, whose test losses were seen.
In one case they led to a change: breathing markers were first forecast without removing
their drift, and neither of the two rules tried was better than the trivial predictor.
Learning rates are chosen on validation only.

The *regret* of a rule is (its loss − lowest loss) / (trivial predictor's loss − lowest
loss): 0 is the best rule, and 1 is no better than a predictor that has learned nothing.
A loss above twice that of the trivial predictor counts as twice. Two rules differ if a
paired permutation test over the seeds says so at the level 5 %, corrected by Holm's
method for all comparisons with the best rule of the same task and cell. With {seeds}
seeds, small differences cannot be shown: rules that do not differ in the test need not
be equally good."""

SUMMARY = """## All tasks with recurrent cells

In {learned} of {pairs} pairs of a task and a cell, the best rule is better than the
trivial predictor. The table counts these pairs. Time and temporary memory of a gradient
are medians, relative to `bptt` of the same task and cell. Time was measured on two CPU
cores that other programs used, too, with {lanes} networks in one program; the sequences
are so short that `bptt` stores little."""

CONTROL = """A check of the method: `rtrl` has the gradient of `bptt`, up to rounding,
so both are equally good. In {pairs} pairs of a task and a cell with both, the test
counts one of them among the best and the other not in {separated}. Their regrets differ
by {median:.2f} in the median, and by up to {largest:.2f} ({where}). Differences of this
size come from rounding errors, which training magnifies, and which may also change the
chosen learning rate."""

BEST = """Intervals are 95 % bootstrap intervals of the mean over {seeds} seeds."""

GRADIENTS = """## How good the gradients are

Medians over all tasks and cells. The cosine is that between the rule's gradient and the
exact one, before the training, after a quarter of it, and after it. Bias is the norm of
the mean gradient's error, and spread the standard deviation over random draws, both
relative to the norm of the exact gradient and measured after a quarter of the training.
If a random rule is unbiased, its measured bias is about as large as its standard
error."""

# The trivial predictor of each task, and remarks on its losses.
TRIVIAL = {
    "copy": "a guess",
    "adding": "the mean of the sum",
    "mackey_glass": "the last value",
    "breathing": "the mean of all training targets",
    "spoken_digits": "a guess",
    "influence": "a constant 0",
    "yin_yang": "a guess",
}
REMARKS = {
    "influence": " All sequences of this task are equal, so test losses are those of "
    "the training data.",
}
