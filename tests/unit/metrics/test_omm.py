# pyright: reportArgumentType=false
"""The published Table 2 from the published Tables 5 to 11, all 12 rows of each."""

import pytest

from unsee.metrics.omm import (
    GENERAL,
    Tasks,
    forget_quality,
    input_side,
    membership_safety,
    model_side,
    model_utility,
    output_side,
    overall,
    robustness,
    selection_score,
)

# Overall, FQ, MU, robustness, and its model, input and output side.
TABLE_2 = """
finetune     .622 .687 .421 .759 .835 .631 .812
retain_only  .638 .696 .444 .776 .839 .688 .799
ga           .574 .774 .066 .881 .996 .971 .677
gd           .647 .781 .400 .760 .894 .767 .619
kl           .617 .694 .391 .767 .833 .668 .800
rmu          .632 .707 .428 .760 .846 .664 .770
npo          .630 .749 .382 .757 .873 .685 .714
undial       .640 .722 .454 .745 .826 .731 .677
mmunlearner  .632 .739 .411 .745 .889 .756 .590
manu         .627 .684 .439 .758 .839 .658 .777
mip_editor   .647 .717 .451 .773 .828 .676 .814
smfa         .546 .712 .148 .778 .889 .661 .785
"""
# Tables 5 and 6: cloze %, classification %, ROUGE-L on forget and on test; TR, probability, KS, JS.
FORGETTING = """
finetune     13.54 38.78 .242 11.46 27.35 .149 .570 .499 .140 .281
retain_only  12.50 36.73 .207 13.54 40.41 .146 .452 .254 .150 .337
ga            0.00  0.00 .003  0.00  0.00 .003 .393 .000 .330 .190
gd            8.33  4.08 .155 10.42  7.76 .130 .432 .168 .130 .130
kl           14.58 37.14 .233  9.38 40.82 .144 .583 .489 .100 .294
rmu          12.50 31.43 .219  7.29 29.39 .149 .586 .493 .080 .280
npo          12.50 30.61 .209  6.25 37.96 .130 .623 .345 .060 .269
undial        9.38 42.45 .252  6.25 35.51 .168 .652 .355 .140 .324
mmunlearner   8.33 37.55 .186  7.29 33.06 .124 .467 .190 .130 .257
manu         12.50 41.22 .402 10.42 40.41 .248 .583 .469 .130 .281
mip_editor   14.58 40.82 .217 10.42 35.51 .152 .617 .489 .060 .252
smfa         13.54 31.84 .139  9.38 34.29 .119 .570 .488 .070 .262
"""
# Tables 7 and 8: the same three of people to keep and of celebrities, on photos; general ability %.
KEEPING = """
finetune      8.04 36.74 .231 12.75 29.90 .171 80 16 82 56  2.6 52 79.2
retain_only  16.52 41.47 .261 16.34 50.91 .169 80 24 78 62  8.4 44 79.2
ga            0.11  0.00 .003  0.00  0.00 .000  0  0  0 36    0  0    0
gd           15.63  0.85 .215  9.48 14.75 .145 76 16 82 56  5.2 56 81.2
kl           19.53 31.70 .234 12.42 32.38 .168 78 16 82 56  0.6 34 53.6
rmu          17.41 27.01 .225 13.40 25.59 .158 80 18 82 60  9.0 52 81.2
npo          18.75 23.66 .211  6.86 19.32 .167 72 20 82 56  0.6 38 63.2
undial       15.74 35.31 .267 11.44 49.22 .230 80 20 88 60 11.0 56 83.2
mmunlearner  16.85 28.13 .184 14.05 19.19 .148 78 22 78 58  8.2 54 81.0
manu         19.08 33.30 .430 13.40 33.03 .305 80 16 82 56  4.6 54 81.2
mip_editor   17.86 25.27 .214 13.73 45.56 .162 80 20 84 64 11.0 56 83.2
smfa         18.64 29.82 .136  7.84 23.37 .112  0  0  0  6    0  0    0
"""
# Tables 9 to 11: quantisation, relearning, probes; cross-modal and four attacks; five memberships.
ATTACKS = """
finetune    .752 .759 .993 .996 .574 .860 .740 .688 .292 .840 .748 .536 .969 .965
retain_only .768 .760 .984 .993 .611 .930 .797 .667 .438 .954 .856 .456 .884 .846
ga          .999 .997 .992 .991 .853 1    1    1    1    .874 .823 .033 .828 .828
gd          .915 .772 .994 .993 .594 .900 .860 .833 .646 .872 .969 .000 .665 .590
kl          .727 .780 .984 .997 .582 .880 .763 .780 .333 .855 .762 .444 .971 .969
rmu         .748 .800 .989 .990 .596 .890 .767 .777 .292 .804 .709 .487 .924 .928
npo         .838 .786 .994 .996 .625 .790 .807 .747 .458 .907 .798 .000 .961 .902
undial      .759 .722 .996 .999 .574 .920 .853 .830 .479 .831 .637 .000 .940 .977
mmunlearner .906 .794 .965 .971 .656 .830 .847 .863 .583 .712 .800 .280 .594 .562
manu        .866 .666 .976 .998 .588 .850 .783 .777 .292 .806 .720 .423 .940 .997
mip_editor  .761 .752 .946 .995 .562 .890 .787 .810 .333 .853 .759 .494 .972 .995
smfa        .866 .806 .994 .997 .598 .850 .723 .800 .333 .847 .738 .399 .972 .968
"""
# Components and aggregates are both rounded to three digits.
ROUNDED = 0.0012


def rows(table):
    lines = [line.split() for line in table.strip().splitlines()]
    return {name: [float(number) for number in numbers] for name, *numbers in lines}


MAIN, FORGOT, KEPT, ATTACKED = map(rows, (TABLE_2, FORGETTING, KEEPING, ATTACKS))


def tasks(cloze, classification, rouge_l):
    return Tasks(cloze / 100, classification / 100, rouge_l)


@pytest.mark.parametrize("method", MAIN)
def test_forget_quality_of_table_2(method):
    numbers = FORGOT[method]
    ratio, probability, ks, js = numbers[6:]
    found = forget_quality(
        tasks(*numbers[:3]),
        tasks(*numbers[3:6]),
        truth_ratio=ratio,
        probability=probability,
        ks=ks,
        js=js,
    )
    assert found == pytest.approx(MAIN[method][1], abs=ROUNDED)


@pytest.mark.parametrize("method", MAIN)
def test_model_utility_of_table_2(method):
    """What was kept in text alone is not printed: it must come out alike and possible."""
    numbers = KEPT[method]
    seen = [tasks(*numbers[:3]), tasks(*numbers[3:6])]
    general = [number / 100 for number in numbers[6:]]
    nothing, everything = (
        model_utility([*seen, *[Tasks(x, x, x)] * 2], general) for x in (0.0, 1.0)
    )
    assert nothing is not None
    assert everything is not None
    in_text = (MAIN[method][2] - nothing) / (everything - nothing)
    assert (0.15 < in_text < 0.17) if method == "ga" else (0.37 < in_text < 0.44)


@pytest.mark.parametrize("method", MAIN)
def test_robustness_of_table_2(method):
    numbers = ATTACKED[method]
    sides = (
        model_side(*numbers[:2], probes=numbers[2:4]),
        input_side(numbers[4], numbers[5:9]),
        output_side(numbers[9:]),
    )
    assert list(sides) == pytest.approx(MAIN[method][4:], abs=ROUNDED)
    assert robustness(*sides) == pytest.approx(MAIN[method][3], abs=ROUNDED)


@pytest.mark.parametrize("method", MAIN)
def test_overall_of_table_2(method):
    assert overall(*MAIN[method][1:4]) == pytest.approx(MAIN[method][0], abs=ROUNDED)


def test_membership_is_safe_where_nobody_can_tell():
    assert [membership_safety(auc) for auc in (0.5, 0.75, 1.0, 0.0)] == [1, 0.5, 0, 0]


def test_forgetting_and_knowledge_of_tasks():
    some = Tasks(0.1, 0.2, 0.6)
    assert some.knowledge() == pytest.approx(0.3)
    assert some.forgetting() == pytest.approx(0.7)
    assert selection_score(0.4, 0.6) == pytest.approx(0.5)


def test_without_a_component_there_is_no_aggregate():
    whole, broken = Tasks(0.1, 0.2, 0.3), Tasks(None, 0.2, 0.3)
    given = {"truth_ratio": 0.5, "probability": 0.5, "ks": 0.5, "js": 0.5}
    assert forget_quality(whole, whole, **given) is not None
    assert forget_quality(whole, broken, **given) is None
    assert forget_quality(whole, whole, **given | {"ks": None}) is None
    general = [0.5] * len(GENERAL)
    assert model_utility([whole] * 4, general) is not None
    assert model_utility([whole, whole, whole, broken], general) is None
    assert model_side(0.5, 0.5, [0.5, None]) is None
    assert input_side(None, [0.5] * 4) is None
    assert output_side([0.5] * 4 + [None]) is None
    assert robustness(0.5, None, 0.5) is None
    assert overall(None, 0.5, 0.5) is None


def test_too_few_components_are_an_error():
    with pytest.raises(ValueError, match="retain: expected 4 scores, got 2"):
        model_utility([Tasks(0, 0, 0)] * 2, [0.5] * 7)
    with pytest.raises(ValueError, match="general: expected 7 scores, got 6"):
        model_utility([Tasks(0, 0, 0)] * 4, [0.5] * 6)
    with pytest.raises(ValueError, match="attacks: expected 4 scores, got 3"):
        input_side(0.5, [0.5] * 3)
    with pytest.raises(ValueError, match="safety: expected 5 scores, got 4"):
        output_side([0.5] * 4)
