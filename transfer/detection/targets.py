"""From the priors' scores and boxes to the objects that are said to be there."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms


def select_detections(
    boxes: Tensor, probabilities: Tensor, score_threshold: float, nms_iou: float, candidates: int
) -> dict[str, Tensor]:
    """The objects in an image: class by class the best boxes, less those that a better one covers.

    Args:
        boxes: of the priors, float32 (priors, 4) as x1, y1, x2, y2.
        probabilities: of the classes, float32 (priors, classes); class 0 is the background.
        score_threshold: boxes with a higher probability are kept.
        nms_iou: boxes with a higher IoU with a better one of their class are left out (non-maximum
            suppression).
        candidates: most boxes of a class that are looked at.

    Returns:
        `boxes`, float32 (n, 4), `labels`, int64 (n,), and `scores`, float32 (n,), the highest score
        first.
    """
    scores, places = probabilities[:, 1:].topk(min(candidates, len(boxes)), dim=0)
    labels = torch.arange(1, probabilities.shape[1], device=boxes.device).expand_as(scores)
    kept = scores > score_threshold
    scores, labels, found = scores[kept], labels[kept], boxes[places[kept]]
    # torchvision tells classes apart by moving their boxes; below 0 they could still overlap.
    order = batched_nms(found - boxes.min(), scores, labels, nms_iou)
    return {"boxes": found[order], "labels": labels[order], "scores": scores[order]}
