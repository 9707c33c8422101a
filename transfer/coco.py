"""pycocotools, which measures COCO's average precision: of boxes and of keypoints."""

import contextlib
import io
from typing import TYPE_CHECKING

from runtime.errors import UserError

if TYPE_CHECKING:
    from pycocotools.coco import COCO


def import_pycocotools() -> tuple[type, type]:
    """Its classes `COCO` and `COCOeval`.

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise UserError(
            "COCO's average precision needs pycocotools; install it: "
            "python -m pip install -r transfer/requirements.txt"
        ) from None
    return COCO, COCOeval


def indexed(content: dict) -> "COCO":
    """A `COCO` of what one of its files holds; quietly, for it tells how far it is."""
    coco_class, _ = import_pycocotools()
    coco = coco_class()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def summary(truth: "COCO", found: "COCO", kind: str) -> list[float]:
    """The figures of COCO's summary, in its order, from 0 to 1; -1 where there is nothing to find.

    Args:
        truth, found: of `COCO`.
        kind: "bbox" or "keypoints".
    """
    _, evaluation_class = import_pycocotools()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluation_class(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()
