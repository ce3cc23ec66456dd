"""Losses against numbers worked out by hand."""

import math

import pytest
import torch

from compress.losses import (
    affinity_loss,
    answer_loss,
    cosines,
    feature_loss,
    interactive_loss,
    label_loss,
    max_margin_loss,
    multi_positive_info_nce,
)


def test_info_nce_of_one_positive_per_row() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    wanted = -math.log(math.exp(2) / (math.exp(2) + 1))
    assert multi_positive_info_nce(logits, torch.eye(2)).item() == pytest.approx(wanted, abs=1e-6)


def test_info_nce_shares_a_row_between_its_positives() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0]])
    matches = torch.tensor([[1, 1, 0]])
    share = -math.log(math.e / (2 * math.e + 1))
    # Text to image: one image only, so the two positive columns cost nothing and the third has no positive.
    assert multi_positive_info_nce(logits, matches).item() == pytest.approx(share / 2, abs=1e-6)


def test_an_unknown_pair_takes_no_part() -> None:
    matches = torch.tensor([[1, 0, -1]])
    some, other = torch.tensor([[1.0, 0.0, 5.0]]), torch.tensor([[1.0, 0.0, -5.0]])
    wanted = -math.log(math.e / (math.e + 1)) / 2
    assert multi_positive_info_nce(some, matches).item() == pytest.approx(wanted, abs=1e-6)
    assert multi_positive_info_nce(other, matches).item() == pytest.approx(wanted, abs=1e-6)


def test_nothing_known_is_no_loss_and_no_nan() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = multi_positive_info_nce(logits, torch.full((3, 4), -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(3, 4))


def test_feature_loss_does_not_care_for_length() -> None:
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    assert feature_loss(student, teacher).item() == pytest.approx((0 + 2) / 2)
    assert feature_loss(-teacher, teacher).item() == pytest.approx(4)


def test_affinity_loss_is_a_divergence() -> None:
    teacher = torch.tensor([[1.0, 0.0]])
    student = torch.tensor([[0.0, 0.0]])
    p = math.e / (math.e + 1)
    wanted = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    # Text to image has one image: both distributions are the same.
    assert affinity_loss(student, teacher).item() == pytest.approx(wanted / 2, abs=1e-6)
    assert affinity_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-7)


def test_answer_loss_is_a_divergence_of_each_question() -> None:
    teacher, student = torch.tensor([[1.0, 0.0], [5.0, 5.0]]), torch.tensor([[0.0, 0.0], [3.0, 3.0]])
    p = math.e / (math.e + 1)
    wanted = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert answer_loss(student, teacher).item() == pytest.approx(wanted / 2, abs=1e-6)
    # Logits a constant apart are the same answers.
    assert answer_loss(teacher + 7, teacher).item() == pytest.approx(0, abs=1e-6)


def test_cosines() -> None:
    wanted = torch.tensor([[1.0, math.sqrt(0.5)]])
    assert torch.allclose(cosines(torch.tensor([[2.0, 0.0]]), torch.tensor([[7.0, 0.0], [1.0, 1.0]])), wanted)


def test_max_margin_looks_at_the_hardest_negative_both_ways() -> None:
    near = torch.tensor([[0.9, 0.8, 0.1], [0.3, 0.5, 0.2]])
    matches = torch.tensor([[1, 0, 0], [0, 1, -1]])
    # Rows: 0.2 + 0.8 - 0.9 and 0.2 + 0.3 - 0.5. Columns: 0.2 + 0.3 - 0.9 < 0 and 0.2 + 0.8 - 0.5.
    assert max_margin_loss(near, matches).item() == pytest.approx((0.1 + 0.0 + 0.0 + 0.5) / 2, abs=1e-6)
    assert max_margin_loss(near, matches, margin=0.0).item() == pytest.approx(0.3 / 2, abs=1e-6)


def test_max_margin_of_nothing_known_is_nothing() -> None:
    assert max_margin_loss(torch.rand(2, 3), torch.full((2, 3), -1)).item() == 0
    assert max_margin_loss(torch.rand(2, 3), torch.ones(2, 3)).item() == 0


def test_label_loss_is_the_devices_softmax_over_labels() -> None:
    logits = 4.0 * cosines(torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]), torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
    right = -math.log(math.exp(4) / (math.exp(4) + 1))
    label = torch.tensor([0, 1, -1])
    assert label_loss(logits, label, 0.0).item() == pytest.approx(right, abs=1e-6)
    # Smoothing gives each of the two labels a quarter of one half.
    wrong = -math.log(1 / (math.exp(4) + 1))
    assert label_loss(logits, label, 0.5).item() == pytest.approx(0.75 * right + 0.25 * wrong, abs=1e-6)
    assert label_loss(logits, torch.full((3,), -1), 0.0).item() == 0


def test_interactive_loss_crosses_student_and_teacher() -> None:
    """Row 0 of `images`: the student's image among the teacher's captions; column 0 of `texts`: the student's caption
    among the teacher's images. The other directions count nothing."""
    images, texts = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 1.0], [0.0, 1.0]])
    looking = [math.log(1 + math.exp(-2)), math.log(2)]
    found = [math.log(1 + math.exp(-3)), math.log(2)]
    wanted = (sum(looking) / 2 + sum(found) / 2) / 2
    assert interactive_loss(images, texts, torch.eye(2)).item() == pytest.approx(wanted, abs=1e-6)


def test_interactive_loss_shares_and_leaves_out() -> None:
    images, texts = torch.tensor([[1.0, 1.0, 5.0]]), torch.zeros(1, 3)
    one = interactive_loss(images, texts, torch.tensor([[1, 1, -1]]))
    assert one.item() == pytest.approx(math.log(2) / 2, abs=1e-6), "one image: its captions find it at once"
    assert interactive_loss(images, texts, torch.full((1, 3), -1)).item() == 0
