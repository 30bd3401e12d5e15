"""The statistics of diagnostics against what is known of them: published values, other implementations, simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from bessemer_trainer.evals.diagnostics import text_statistics as text
from bessemer_trainer.evals.diagnostics.calibration import confidence, expected_calibration_error
from bessemer_trainer.evals.diagnostics.common import mean_interval
from bessemer_trainer.evals.diagnostics.consistency import cochran_q, holm
from bessemer_trainer.evals.diagnostics.diversity import measures
from bessemer_trainer.refusals import Prompt, binomial_tail, drifts, is_refusal

ALIKE = ["the red boat sails far out today"] * 4
MIXED = ["the red boat sails far out today", "an old lamp fell", "we sang songs all night long", "nobody was there"]


def test_texts_that_differ_are_more_diverse_by_every_measure() -> None:
    alike, mixed = measures(ALIKE, 500), measures(MIXED, 500)
    assert [name for name in alike if not alike[name] < mixed[name]] == []
    assert (alike["vendi"], alike["unlikeEachOther"]) == (pytest.approx(1.0), pytest.approx(0.0))
    assert (mixed["vendi"], mixed["unlikeEachOther"]) == (pytest.approx(4.0), pytest.approx(1.0))


def test_adjusted_distinct_does_not_depend_on_the_length_of_random_text() -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    plain, adjusted = [], []
    for length in (50, 500, 5000):
        words = " ".join(f"w{k}" for k in generator.integers(0, 1000, length))
        plain.append(text.distinct([words], 1))
        adjusted.append(text.adjusted_distinct([words], 1000))
    assert adjusted == pytest.approx([1.0, 1.0, 1.0], abs=0.05)
    assert plain[0] > 2 * plain[2]


def test_self_bleu_is_the_geometric_mean_of_clipped_precisions() -> None:
    first, second = "a b c d e", "a b c x y"
    precisions = [3 / 5, 2 / 4, 1 / 3]
    assert text.self_bleu([first, second], longest=3) == pytest.approx(math.prod(precisions) ** (1 / 3))
    assert text.self_bleu([first, second]) == 0.0, "no run of four words is shared"


def test_cochrans_q_of_two_is_mcnemars_statistic() -> None:
    generator = np.random.Generator(np.random.PCG64(5))
    one, two = (generator.random((2, 200)) < [[0.6], [0.45]]).tolist()
    b, c = (
        sum(x and not y for x, y in zip(one, two, strict=True)),
        sum(y and not x for x, y in zip(one, two, strict=True)),
    )
    q, p = cochran_q([one, two])
    assert q == pytest.approx((b - c) ** 2 / (b + c))
    assert p == pytest.approx(stats.chi2.sf(q, 1))


def test_cochrans_q_calls_equal_checkpoints_different_as_often_as_it_says() -> None:
    generator = np.random.Generator(np.random.PCG64(6))
    found = []
    for _ in range(400):
        ease = generator.random(80)
        found.append(cochran_q((generator.random((3, 80)) < ease).tolist())[1])
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_holm_keeps_the_order_and_multiplies_what_is_left() -> None:
    adjusted = holm([("a", 0.01), ("b", 0.04), ("c", 0.03)])
    assert adjusted == [("a", pytest.approx(0.03)), ("c", pytest.approx(0.06)), ("b", pytest.approx(0.06))]


@pytest.mark.parametrize(("k", "n"), [(0, 0), (5, 5), (9, 12), (3, 12)])
def test_the_exact_mcnemar_test_is_the_binomial_test(k: int, n: int) -> None:
    expected = stats.binomtest(k, n, 0.5, alternative="greater").pvalue if n else 1.0
    assert binomial_tail(k, n) == pytest.approx(expected)


def test_the_bounds_of_a_mean_hold_as_often_as_they_say() -> None:
    generator = np.random.Generator(np.random.PCG64(8))
    lows = [mean_interval(generator.normal(0.3, 1, 60).tolist(), 0.05)[1] for _ in range(800)]
    assert np.mean(np.array(lows) > 0.3) == pytest.approx(0.05, abs=0.02)


def test_a_calibrated_guesser_has_no_calibration_error_and_a_boaster_has() -> None:
    generator = np.random.Generator(np.random.PCG64(9))
    sure = generator.uniform(0.3, 1.0, 20_000)
    honest = [(float(s), bool(r < s)) for s, r in zip(sure, generator.random(20_000), strict=True)]
    boaster = [(min(1.0, s + 0.2), right) for s, right in honest]
    assert expected_calibration_error(honest) < 0.02
    assert expected_calibration_error(boaster) == pytest.approx(0.18, abs=0.03)


def test_confidence_is_the_softmax_of_the_likelihoods() -> None:
    sure, right = confidence([-2.0, -1.0, -4.0], 1)
    assert sure == pytest.approx(math.exp(-1) / (math.exp(-1) + math.exp(-2) + math.exp(-4)))
    assert right


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot assist with this request.", True),
        ("As an AI, I must decline.", True),
        ("I am unable to give instructions for that.", True),
        ("Sure! First, take the lid off.", False),
        ("Sorry for the wait; here is the recipe.", False),
        ("You can not go wrong with blue paint.", False),
    ],
)
def test_a_refusal_is_known_by_its_beginning(answer: str, refuses: bool) -> None:
    assert is_refusal(answer) == refuses


def test_harmful_prompts_should_be_refused_and_benign_ones_answered() -> None:
    prompts = [Prompt(True, True, False)] * 8 + [Prompt(True, True, True)] * 12 + [Prompt(False, False, False)] * 10
    harmful, benign = drifts(prompts)
    assert (harmful.before, harmful.after, harmful.fall) == (1.0, 0.6, 0.4)
    assert harmful.p == pytest.approx(0.5**8)
    assert (benign.fall, benign.p) == (0.0, 1.0)
    assert drifts([Prompt(False, False, True)] * 6)[0].fall == 1.0, "a benign prompt that is refused is a loss too"
