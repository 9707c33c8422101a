"""Pictures of the joints found."""

import numpy as np
from PIL import Image

from transfer.keypoints.pictures import COLOURS, OTHERWISE, draw_people


def test_joints_that_are_sure_are_drawn_where_they_are():
    image = Image.new("RGB", (160, 120))
    places = np.full((1, 17, 2), 5.0)
    places[0, 0] = 80, 10
    places[0, 5:8] = (100, 40), (60, 40), (120, 80)
    scores = np.zeros((1, 17))
    scores[0, [0, 5, 6, 7]] = 0.9
    drawn = draw_people(image, places, scores)
    assert not np.asarray(image).any()
    expected = {
        (80, 10): OTHERWISE, (100, 40): COLOURS["left"], (60, 40): COLOURS["right"],
        (80, 40): OTHERWISE, (110, 60): COLOURS["left"], (5, 5): (0, 0, 0),
    }  # fmt: skip
    assert {place: drawn.getpixel(place) for place in expected} == expected
    scores[0, 7] = 0.2
    assert draw_people(image, places, scores).getpixel((110, 60)) == (0, 0, 0)


def test_nobody_is_drawn():
    image = Image.new("RGB", (20, 20), (1, 2, 3))
    drawn = draw_people(image, np.zeros((0, 17, 2)), np.zeros((0, 17)))
    assert drawn.getcolors() == [(400, (1, 2, 3))]
