"""Losses of dual encoders. Vectors come in as float32 (N, D) of any length and are made unit length here."""

from torch import Tensor
from torch.nn import functional as F

# Not -inf: a row in which nothing is known would turn into NaN.
MASKED = -1e4


def multi_positive_info_nce(logits: Tensor, matches: Tensor) -> Tensor:
    """InfoNCE in both directions with several positives per row (UniCL, Yang et al. 2022, arXiv 2204.03610).

    `logits` float32 (N, C): scaled cosines of images and captions. `matches` (N, C): 1 caption true of image,
    0 false, -1 not known: an unknown pair takes no part in the softmax. Each positive of a row counts equally,
    rows without a positive count nothing. Returns a scalar, in nats.
    """
    return (_one_way(logits, matches) + _one_way(logits.T, matches.T)) / 2


def max_margin_loss(near: Tensor, matches: Tensor, margin: float = 0.2) -> Tensor:
    """Hinge on the hardest negative, in both directions (VSE++, Faghri et al. 2018, arXiv 1707.05612).

    `near` float32 (N, C): cosines of images and captions; `matches` as above. Each pair that is true must be nearer, by
    `margin`, than the nearest caption that is false of its image, and than the nearest image that its caption is false
    of. Returns the mean over true pairs, both directions added; 0 where nothing is known to be false.
    """
    positive = (matches == 1).to(near.dtype)
    false = near.masked_fill(matches != 0, MASKED)
    short = [(margin + false.amax(dim, keepdim=True) - near).clamp(min=0) * positive for dim in (1, 0)]
    return (short[0] + short[1]).sum() / positive.sum().clamp(min=1)


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of unit vectors, mean over N (CLIP-KD's feature loss, Yang et al. 2023, arXiv 2307.12732).

    float32 (N, D) both; 0 where they point the same way, 4 where opposite. It equals 2 - 2 cosine.
    """
    return (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().sum(-1).mean()


def affinity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Affinity mimicking (TinyCLIP, Wu et al. 2023, arXiv 2309.12314): match who is how near to whom.

    `student`, `teacher` float32 (N, C): scaled cosines of the same images and captions. KL(teacher || student) of
    the image-to-text and the text-to-image distributions, mean over rows and over both directions, in nats.
    """
    return (_divergence(student, teacher) + _divergence(student.T, teacher.T)) / 2


def interactive_loss(images: Tensor, texts: Tensor, matches: Tensor) -> Tensor:
    """CLIP-KD's interactive contrastive loss (Yang et al. 2023, arXiv 2307.12732), with several positives per row: the
    student's images look for the teacher's captions, and its captions for the teacher's images.

    float32 (N, C), scaled cosines: `images` of the student's images and the teacher's captions, `texts` of the
    teacher's images and the student's captions. `matches` as above. Returns the mean of both, a scalar, in nats.
    """
    return (_one_way(images, matches) + _one_way(texts.T, matches.T)) / 2


def answer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the answers (Hinton et al. 2015, arXiv 1503.02531, at temperature 1), in nats.

    float32 (P, A): logits of P questions; mean over them.
    """
    return _divergence(student, teacher)


def label_loss(logits: Tensor, label: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of labels against each other.

    `logits` float32 (N, K); `label` int64 (N,), -1 where not known: such rows take no part. `smoothing` of the truth,
    0..1 (Szegedy et al. 2016, arXiv 1512.00567). Returns the mean, a scalar in nats; 0 where no label is known.
    """
    # A sum, for a mean over none would be NaN; no question about values, for which a GPU would have to be waited for.
    total = F.cross_entropy(logits, label, ignore_index=-1, label_smoothing=smoothing, reduction="sum")
    return total / (label >= 0).sum().clamp(min=1)


def cosines(images: Tensor, texts: Tensor) -> Tensor:
    """float32 (N, D) and (C, D) to cosines (N, C)."""
    return F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T


def _one_way(logits: Tensor, matches: Tensor) -> Tensor:
    log_share = F.log_softmax(logits.masked_fill(matches < 0, MASKED), dim=1)
    positive = (matches == 1).to(logits.dtype)
    count = positive.sum(1)
    rows = -(log_share * positive).sum(1) / count.clamp(min=1)
    return rows.sum() / (count > 0).sum().clamp(min=1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    target = F.softmax(teacher, dim=1)
    return F.kl_div(F.log_softmax(student, dim=1), target, reduction="batchmean")
