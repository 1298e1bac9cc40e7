"""Tasks that need no files, each with the best score that any model can reach, computed exactly.

The process behind a task is fixed; the seed chooses the samples alone, so scores of different seeds can be compared.
The best score of a split is that of the exact posterior on the very samples of the split. No predictor has a higher
accuracy, or a lower loss, in expectation; on a finite sample a model may exceed it by luck.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from rnnzoo.errors import InputError, unknown_name
from rnnzoo.registry import Registry

Sample = dict[str, Any]
SPLITS = ("train", "validation", "test")
PROCESS_SEED = 1997  # of the fixed processes; samples never depend on it alone

SYNTHETIC = Registry("synthetic task")
SYNTHETIC.add("gaussians", "rnnzoo.data.synthetic:Gaussians", "points of overlapping Gaussians", data="VectorData")
SYNTHETIC.add(
    "topic_chains",
    "rnnzoo.data.synthetic:TopicChains",
    "texts that one of several Markov chains wrote",
    data="TextClassificationData",
)
SYNTHETIC.add("hidden_markov", "rnnzoo.data.synthetic:HiddenMarkov", "the states behind the words", data="TaggingData")
SYNTHETIC.add("adding", "rnnzoo.data.synthetic:Adding", "the sum of two marked numbers of a sequence", data="FrameData")
SYNTHETIC.add(
    "dates", "rnnzoo.data.synthetic_dates:Dates", "dates in many written forms → ISO 8601", data="TranslationData"
)
SYNTHETIC.add(
    "markov_text",
    "rnnzoo.data.synthetic_text:MarkovText",
    "lines of characters from a Markov chain",
    data="LanguageData",
)
SYNTHETIC.add(
    "scenes", "rnnzoo.data.synthetic_scenes:Scenes", "what is where in drawn scenes of two shapes", data="CaptionData"
)
SYNTHETIC.add(
    "scenes_regions",
    "rnnzoo.data.synthetic_scenes:SceneRegions",
    "the same, from features of detected regions",
    data="CaptionData",
)


class SyntheticTask(ABC):
    """A process that makes samples, and knows how well they can be answered.

    Args:
        seed: of the samples.
        sizes: split → number of samples; the defaults suit a training of a minute or so.

    Raises:
        InputError: for a seed below 0, an unknown split or a size below 1.
    """

    columns: ClassVar[tuple[str, ...]]  # the keys of a sample: what a data module calls them
    default_sizes: ClassVar[dict[str, int]]

    def __init__(self, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> None:
        if seed < 0:
            raise InputError("data.seed", expected="at least 0", got=str(seed))
        self.seed = seed
        if not isinstance(sizes, Mapping | None):
            raise InputError("sizes of a synthetic task", expected="split: size", got=repr(sizes))
        self.sizes = {**self.default_sizes, **(sizes or {})}
        for split, size in self.sizes.items():
            if split not in SPLITS:
                raise unknown_name("split of a synthetic task", split, SPLITS)
            if not isinstance(size, int) or size < 1:
                raise InputError(f"size of split {split}", expected="a whole number of at least 1", got=repr(size))

    def sample(self, split: str) -> list[Sample]:
        """Return the samples of a split, always the same.

        Raises:
            InputError: if there is no such split.
        """
        if split not in SPLITS:
            raise unknown_name("split of a synthetic task", split, SPLITS)
        random = np.random.default_rng([self.seed, SPLITS.index(split)])
        return [self.draw(random) for _ in range(self.sizes[split])]

    @abstractmethod
    def draw(self, random: np.random.Generator) -> Sample:
        """Draw one sample."""

    @abstractmethod
    def best(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the best score by metric: that of the exact posterior on `samples`."""


def make_task(name: str, seed: int, accepted: Sequence[tuple[str, ...]], options: Mapping[str, Any]) -> SyntheticTask:
    """Return a task by its name, with options such as ``{"sizes": {"train": 500}}``.

    Args:
        name: of `SYNTHETIC`.
        seed: of the samples.
        accepted: the columns of samples, or several alternatives.
        options: further arguments of the task.

    Raises:
        InputError: for an unknown name or option, or a task whose samples have other columns.
    """
    kind: type[SyntheticTask] = SYNTHETIC[name]
    known = [option for option in inspect.signature(kind).parameters if option != "seed"]
    for option in options:
        if option not in known:
            raise unknown_name("data.synthetic_options", option, known)
    task = kind(seed=seed, **options)
    if set(task.columns) not in [set(columns) for columns in accepted]:
        raise InputError(
            "data.synthetic",
            expected=f"a task with {' and '.join(accepted[0])}",
            got=f"{name!r} with {' and '.join(task.columns)}",
            fix="use the recipe of that task",
        )
    return task


class Gaussians(SyntheticTask):
    """Points x of one of C Gaussians with different covariances.

    p(c | x) ∝ p(c) N(x; μ_c, A_c A_cᵀ)
    """

    columns = ("vector", "label")
    default_sizes: ClassVar[dict[str, int]] = {"train": 16000, "validation": 1000, "test": 2001}
    class_count, input_size = 4, 4

    def __init__(self, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__(seed=seed, sizes=sizes)
        random = np.random.default_rng([PROCESS_SEED, 0])
        self.labels = [f"class_{place}" for place in range(self.class_count)]
        self.prior = np.full(self.class_count, 1 / self.class_count)  # [C]
        self.means = 0.9 * random.normal(size=(self.class_count, self.input_size))  # [C, I]
        mixing = 0.4 * random.normal(size=(self.class_count, self.input_size, self.input_size))
        self.factors = mixing + np.eye(self.input_size)  # [C, I, I]

    def draw(self, random: np.random.Generator) -> Sample:
        """Draw a class, then a point of its Gaussian."""
        label = int(random.choice(self.class_count, p=self.prior))
        vector = self.means[label] + self.factors[label] @ random.normal(size=self.input_size)
        return {"vector": vector.tolist(), "label": self.labels[label]}

    def log_posterior(self, vectors: np.ndarray) -> np.ndarray:
        """Return log p(c | x) as [N, C] for points [N, I]."""
        shifted = vectors[:, None, :] - self.means  # [N, C, I]
        white = np.einsum("cij,ncj->nci", np.linalg.inv(self.factors), shifted)  # [N, C, I]
        logs = np.log(self.prior) - np.log(np.abs(np.linalg.det(self.factors))) - 0.5 * (white**2).sum(2)
        return normalise_logs(logs)

    def best(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return accuracy in percent and loss in nats per sample."""
        logs = self.log_posterior(np.array([sample["vector"] for sample in samples]))
        return posterior_scores(logs, [self.labels.index(sample["label"]) for sample in samples])


class TopicChains(SyntheticTask):
    """Texts w_1 … w_T of one of C Markov chains over the same words; the length says nothing about the chain.

    p(c | w) ∝ p(c) a_c(w_1) ∏ A_c(w_{t-1}, w_t)
    """

    columns = ("text", "label")
    default_sizes: ClassVar[dict[str, int]] = {"train": 12000, "validation": 600, "test": 1001}
    class_count, word_count = 4, 12
    lengths = (8, 24)  # shortest and longest text in words

    def __init__(self, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__(seed=seed, sizes=sizes)
        random = np.random.default_rng([PROCESS_SEED, 1])
        self.labels = [f"topic_{place}" for place in range(self.class_count)]
        self.words = [chr(ord("a") + place) for place in range(self.word_count)]
        self.prior = np.full(self.class_count, 1 / self.class_count)  # [C]
        self.initial = np.full((self.class_count, self.word_count), 1 / self.word_count)  # [C, V]
        common = random.dirichlet(np.full(self.word_count, 1.0), size=self.word_count)  # [V, V]
        own = random.dirichlet(np.full(self.word_count, 1.0), size=(self.class_count, self.word_count))  # [C, V, V]
        self.transitions = 0.4 * common + 0.6 * own  # [C, V, V]; partly shared, so that topics overlap

    def draw(self, random: np.random.Generator) -> Sample:
        """Draw a chain, a length, then words."""
        label = int(random.choice(self.class_count, p=self.prior))
        words = draw_chain(random, self.initial[label], self.transitions[label], draw_length(random, self.lengths))
        return {"text": " ".join(self.words[word] for word in words), "label": self.labels[label]}

    def log_posterior(self, text: str) -> np.ndarray:
        """Return log p(c | w) as [C] for a text."""
        words = [self.words.index(word) for word in text.split()]
        logs = np.log(self.prior) + np.log(self.initial[:, words[0]])  # [C]
        for before, word in pairwise(words):
            logs = logs + np.log(self.transitions[:, before, word])
        return normalise_logs(logs)

    def best(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return accuracy in percent and loss in nats per text."""
        logs = np.stack([self.log_posterior(sample["text"]) for sample in samples])  # [N, C]
        return posterior_scores(logs, [self.labels.index(sample["label"]) for sample in samples])


class HiddenMarkov(SyntheticTask):
    """Words w_1 … w_T that hidden states s_1 … s_T emit; the tag of a word is its state.

    p(s, w) = π(s_1) ∏ A(s_{t-1}, s_t) ∏ B(s_t, w_t)

    Most words are emitted by several states, so a tag depends on what stands around its word.
    """

    columns = ("tokens", "tags")
    default_sizes: ClassVar[dict[str, int]] = {"train": 2000, "validation": 400, "test": 801}
    state_count, word_count = 6, 24
    lengths = (4, 30)  # shortest and longest sentence in words

    def __init__(self, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__(seed=seed, sizes=sizes)
        random = np.random.default_rng([PROCESS_SEED, 2])
        self.tags = [f"S{place}" for place in range(self.state_count)]
        self.words = [f"w{place:02d}" for place in range(self.word_count)]
        self.initial = np.full(self.state_count, 1 / self.state_count)  # [S]
        self.transition = random.dirichlet(np.full(self.state_count, 0.25), size=self.state_count)  # [S, S]
        self.transition = 0.95 * self.transition + 0.05 / self.state_count
        self.emission = random.dirichlet(np.full(self.word_count, 0.4), size=self.state_count)  # [S, V]
        self.emission = 0.95 * self.emission + 0.05 / self.word_count

    def draw(self, random: np.random.Generator) -> Sample:
        """Draw a length, states, then a word of each state."""
        states = draw_chain(random, self.initial, self.transition, draw_length(random, self.lengths))
        sums = [running_sums(row) for row in self.emission]
        words = [bisect_right(sums[state], random.random()) for state in states]
        return {"tokens": [self.words[word] for word in words], "tags": [self.tags[state] for state in states]}

    def posterior(self, tokens: Sequence[str]) -> np.ndarray:
        """Return p(s_t | w) as [T, S] for a sentence."""
        return state_posterior(
            self.initial, self.transition, self.emission, [self.words.index(token) for token in tokens]
        )

    def best(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the accuracy in percent of words.

        There is no best loss: it would be another for a model of single tags than for one of whole sequences (CRF).
        """
        right = total = 0
        for sample in samples:
            guesses = self.posterior(sample["tokens"]).argmax(1)  # [T]
            right += sum(self.tags[guess] == tag for guess, tag in zip(guesses, sample["tags"], strict=True))
            total += len(guesses)
        return {"accuracy": 100 * right / total}


class Adding(SyntheticTask):
    """The adding problem: frames of a number from U(0, 1) and a mark; two frames are marked, one in each half.

    The answer, due at the last frame, is the sum of both marked numbers; the other frames have no target (NaN).

    Args:
        lengths: the shortest and the longest sequence, in frames.

    Raises:
        InputError: as `SyntheticTask`, and for lengths that are not two rising whole numbers from 2.

    Source: Hochreiter & Schmidhuber 1997, with marks 0 and 1 and numbers from U(0, 1) as in Arjovsky et al. 2016.
    """

    columns = ("frames", "labels")
    default_sizes: ClassVar[dict[str, int]] = {"train": 4000, "validation": 500, "test": 1001}

    def __init__(
        self, *, seed: int = 0, sizes: Mapping[str, int] | None = None, lengths: Sequence[int] = (20, 40)
    ) -> None:
        super().__init__(seed=seed, sizes=sizes)
        valid = isinstance(lengths, list | tuple) and len(lengths) == 2 and all(type(each) is int for each in lengths)
        if not valid or not 2 <= lengths[0] <= lengths[1]:
            raise InputError(
                "lengths of adding", expected="the shortest and the longest, at least 2 frames", got=str(lengths)
            )
        self.lengths = (lengths[0], lengths[1])

    def draw(self, random: np.random.Generator) -> Sample:
        """Draw a length, numbers, then a mark in each half."""
        length = draw_length(random, self.lengths)
        numbers = random.random(length)  # [T]
        marks = [int(random.integers(length // 2)), int(random.integers(length // 2, length))]
        frames = [[float(number), float(place in marks)] for place, number in enumerate(numbers)]
        labels = [[float("nan")]] * (length - 1) + [[float(numbers[marks].sum())]]
        return {"frames": frames, "labels": labels}

    def best(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return no error at all: the answer follows from the frames."""
        return {"mae": 0.0, "rmse": 0.0, "r2": 1.0}


def draw_length(random: np.random.Generator, limits: tuple[int, int]) -> int:
    """Return a length, each between both limits as probable."""
    return int(random.integers(limits[0], limits[1] + 1))


def draw_chain(random: np.random.Generator, initial: np.ndarray, transition: np.ndarray, length: int) -> list[int]:
    """Return `length` states of a Markov chain with initial probabilities [S] and transitions [S, S]."""
    sums = [running_sums(row) for row in transition]
    states = [bisect_right(running_sums(initial), random.random())]
    while len(states) < length:
        states.append(bisect_right(sums[states[-1]], random.random()))
    return states


def running_sums(probabilities: np.ndarray) -> list[float]:
    """Return the sums p_0, p_0 + p_1 ... 1, among which a number from U(0, 1) is looked up to draw one of [S].

    So does `random.choice`, to the same numbers, but anew for each draw, with checks that take longer.

    >>> running_sums(np.array([0.25, 0.75]))
    [0.25, 1.0]
    """
    sums = probabilities.cumsum()
    return list((sums / sums[-1]).tolist())


def state_posterior(
    initial: np.ndarray, transition: np.ndarray, emission: np.ndarray, words: Sequence[int]
) -> np.ndarray:
    """Return p(s_t | w_1 … w_T) as [T, S], by the forward-backward recursion.

    Args:
        initial: π, [S].
        transition: A, [S, S], from row to column.
        emission: B, [S, V].
        words: w, T numbers.

    >>> state_posterior(np.array([0.5, 0.5]), np.eye(2), np.array([[0.8, 0.2], [0.2, 0.8]]), [0, 1]).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    likelihood = emission[:, list(words)].T  # [T, S]
    forward, backward = np.zeros_like(likelihood), np.ones_like(likelihood)  # [T, S]
    for step in range(len(words)):
        before = initial if step == 0 else forward[step - 1] @ transition  # [S]
        forward[step] = before * likelihood[step]
        forward[step] /= forward[step].sum()  # long sentences would underflow
    for step in range(len(words) - 2, -1, -1):
        backward[step] = transition @ (likelihood[step + 1] * backward[step + 1])
        backward[step] /= backward[step].sum()
    posterior = forward * backward
    return posterior / posterior.sum(1, keepdims=True)


def normalise_logs(logs: np.ndarray) -> np.ndarray:
    """Return log-weights [..., C] as log-probabilities."""
    largest = logs.max(-1, keepdims=True)
    return logs - largest - np.log(np.exp(logs - largest).sum(-1, keepdims=True))


def posterior_scores(logs: np.ndarray, targets: Sequence[int]) -> dict[str, float]:
    """Return the accuracy in percent and the mean loss in nats of log-posteriors [N, C] on targets [N].

    >>> posterior_scores(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1])["accuracy"]
    100.0
    """
    chosen = logs[np.arange(len(logs)), list(targets)]  # [N]
    return {"accuracy": float(100 * (logs.argmax(1) == np.asarray(targets)).mean()), "loss": float(-chosen.mean())}
