"""Pictures of images with the objects that were found in them."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from transfer.pictures import LARGEST_SIDE

LEAST_SCORE = 0.5
"""Objects up to this score are not drawn."""

COLOURS = (
    (255, 90, 90), (90, 220, 90), (110, 160, 255), (255, 200, 60), (230, 120, 255),
    (80, 220, 220), (255, 150, 70), (170, 230, 70), (255, 130, 180), (180, 180, 255),
)  # fmt: skip
"""Of the labels, in turn."""


def draw_objects(
    image: Tensor, detected: Mapping[str, Tensor], class_names: Sequence[str]
) -> Image.Image:
    """An image, not larger than `LARGEST_SIDE`, with the objects found and their scores.

    Args:
        image: uint8 RGB (3, H, W).
        detected: `boxes`, float (n, 4) as x1, y1, x2, y2 in the image's pixels, `labels`, int64
            (n,), and `scores`, float (n,), best first.
        class_names: of the labels from 1.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    draw = ImageDraw.Draw(picture)
    scale = picture.width / image.shape[2]
    sure = (detected["scores"] > LEAST_SCORE).nonzero().flatten().tolist()
    for index in reversed(sure):  # the best ones on top
        label = int(detected["labels"][index])
        colour = COLOURS[(label - 1) % len(COLOURS)]
        box = (scale * detected["boxes"][index]).tolist()
        x1, x2 = (min(max(x, 0), picture.width - 1) for x in box[::2])
        y1, y2 = (min(max(y, 0), picture.height - 1) for y in box[1::2])
        draw.rectangle((x1, y1, x2, y2), outline=colour)
        # PIL's own font may have nothing but these characters.
        name = class_names[label - 1].encode("ascii", "replace").decode()
        text = f"{name} {detected['scores'][index]:.2f}"
        left, _, right, bottom = draw.textbbox((0, 0), text)
        # Above the box if there is room, else inside it.
        place = x1, y1 - bottom if y1 >= bottom else y1
        draw.rectangle((*place, place[0] + right - left, place[1] + bottom), fill=colour)
        draw.text((place[0] - left, place[1]), text, fill="black")
    return picture
