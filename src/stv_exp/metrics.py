"""Metrics on strings: what one prediction earns against its query's answers, in 0-1.

VQA accuracy follows the published evaluation code of the VQA benchmark (2021, which OK-VQA uses as well) and of
VizWiz-VQA to the letter, slips included, and so does the older form of it that the code of Qwen-VL and MTV scores by:
numbers are only comparable where the scoring is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from stv_exp.errors import StvError

Metric = Callable[[str, Sequence[str]], float]

_LETTER = re.compile(r"\(?([a-z])(?:[.):]|$)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The published pattern means to keep decimal points by a look-behind, but only what follows a point counts in it.
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS = 32  # at most: the published code hands a flag (re.UNICODE, 32) over as a count
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # neither apostrophe nor colon
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(i) for i, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# Each word is written without any one of its apostrophes; the last entry is the published table's own.
_CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word for word in _CONTRACTED.split() for i in range(len(word)) if word[i] == "'"
} | {"somebody'd": "somebodyd"}
# VizWiz has the same table with typographic apostrophes in all but these.
_PLAIN_KEYS = {"couldn'tve", "hadn'tve"}
_PLAIN_WORDS = {"ain't", "aren't", "can't", "could've", "couldn't", "we've", "where's", "who've"}
_VIZWIZ_CONTRACTIONS = {
    (short if short in _PLAIN_KEYS else short.replace("'", "’")): (
        word if word in _PLAIN_WORDS else word.replace("'", "’")
    )
    for short, word in _CONTRACTIONS.items()
}


def normalise(text: str) -> str:
    """Lower case, single spaces, no closing full stop."""
    return " ".join(text.lower().split()).rstrip(".")


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction equals one of the answers after `normalise`, else 0."""
    return float(normalise(prediction) in {normalise(answer) for answer in answers})


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy: min(1, matches / 3), averaged over leaving out each of the (usually ten) annotators in turn.

    Prediction and answers are processed alike (punctuation, digit words, articles, contractions), but only where the
    answers are not all the same: else spelling, case included, has to agree. Raises `StvError` below two answers.
    """
    given, *expected = (_one_line(text) for text in (prediction, *answers))
    if len(set(expected)) > 1:
        given, *expected = (_processed(text, _CONTRACTIONS) for text in (given, *expected))
    return _agreement(given, expected)


def vqa_accuracy_qwen(prediction: str, answers: Sequence[str]) -> float:
    """`vqa_accuracy` as the code of Qwen-VL (`eval_mm/vqa_eval.py`) and MTV computes it for VizWiz and OK-VQA.

    The prediction is always processed; the answers lose their punctuation, and that only where they are not all the
    same. So no prediction matches an answer with a capital, an article or a digit word. Raises `StvError` below two.
    """
    varied = len(set(answers)) > 1
    expected = [_without_punctuation(answer) for answer in answers] if varied else answers
    return _agreement(_processed(_one_line(prediction), _CONTRACTIONS), expected)


def vizwiz_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """`vqa_accuracy` as VizWiz-VQA computes it: the prediction is always processed, the answers are taken as they are.

    `unanswerable` and `unsuitable image` are answers like any other there: no spelling of them is merged, nothing is
    credited for declining in other words. (Answerability is a second task of VizWiz, with scores of its own.)
    """
    return _agreement(_processed(_one_line(prediction), _VIZWIZ_CONTRACTIONS), answers)


def choice(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction's option letter is the answer's, else 0; raises `StvError` where an answer has none."""
    expected = {letter_of(answer) for answer in answers}
    if not expected or None in expected:
        raise StvError(
            f"The answers {list(answers)} are no option letters, which dataset.metric=choice needs; "
            "list the options (dataset.episode.options=true) or use dataset.metric=exact_match."
        )
    return float(letter_of(prediction) in expected)


def likelihood(prediction: str, answers: Sequence[str]) -> float:
    """`exact_match` of the label that the model finds most likely: it chooses among the task's labels alone."""
    return exact_match(prediction, answers)


def letter_of(text: str) -> str | None:
    """The option letter, in lower case, that a text names: `A`, `a`, `A.`, `(A)`, `A. name`; None for any other."""
    found = _LETTER.match(text.strip().lower())
    return found[1] if found else None


# By `dataset.metric`.
METRICS: dict[str, Metric] = {
    "exact_match": exact_match,
    "vqa_accuracy": vqa_accuracy,
    "vqa_accuracy_qwen": vqa_accuracy_qwen,
    "vizwiz_accuracy": vizwiz_accuracy,
    "choice": choice,
    "likelihood": likelihood,
}


def metric(name: str) -> Metric:
    """A metric by its name in `dataset.metric`; raises `StvError` with the choices."""
    if name not in METRICS:
        raise StvError(f"dataset.metric={name} is unknown; choose one of {', '.join(METRICS)}.")
    return METRICS[name]


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _processed(text: str, contractions: Mapping[str, str]) -> str:
    words = [_DIGITS.get(word, word) for word in _without_punctuation(text).lower().split()]
    return " ".join(contractions.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """Marks between letters become a space; beside a space, or anywhere near a number like 1,000, nothing."""
    stripped = text
    for mark in _PUNCTUATION:
        loose = _COMMA_IN_NUMBER.search(text) or f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if loose else " ")
    return _PERIOD.sub("", stripped, count=_PERIODS)


def _agreement(prediction: str, answers: Sequence[str]) -> float:
    """Mean over annotators of min(1, matches among the others / 3)."""
    if len(answers) < 2:
        raise StvError(
            f"The answers {list(answers)} are too few for VQA accuracy, which compares annotators; "
            "use dataset.metric=exact_match."
        )
    matches = sum(answer == prediction for answer in answers)
    matching, others = min(1.0, (matches - 1) / 3), min(1.0, matches / 3)
    return (matches * matching + (len(answers) - matches) * others) / len(answers)
