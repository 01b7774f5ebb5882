"""Maps of other code: every layout by hand, what is normalised, and what is refused in one line."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brnf.base.imported import base_maps, foreign_maps
from brnf.errors import UserError
from brnf.store.maps import CamMaps

VALUES = (8, 12, 15)
"""Cat, dog and person among VOC's twenty."""
SIZE = (4, 6)


def read(
    content: dict[Any, Any], labels: tuple[int, ...] = (1, 3), size: tuple[int, int] = SIZE
) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(values) for name, values in content.items()}
    return base_maps(arrays, labels, VALUES, SIZE, size, "a.npy")


def flat(*levels: float) -> np.ndarray:
    return np.stack([np.full(SIZE, level, np.float32) for level in levels])


def test_sfc_has_a_background_and_two_maps() -> None:
    maps = read({"keys": [0, 8, 15], "IS_CAM": flat(0.3, 0.5, 0.7), "IS_CAM1": flat(0.1, 0.2, 0.9)})
    assert maps["prototype"][:, 0, 0].tolist() == pytest.approx([0.3, 0.5, 0.7])
    assert maps["classifier"][:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.9])
    assert maps["prototype"].dtype == np.float32


@pytest.mark.parametrize("name", ["attn_highres", "high_res"])
def test_clip_es_and_irn_count_from_zero_without_background(name: str) -> None:
    maps = read({"keys": [14, 7], name: flat(0.7, 0.5).astype(np.float16)})
    assert maps["prototype"][:, 0, 0].tolist() == pytest.approx(
        [0.3, 0.5, 0.7], abs=1e-3
    )  # in the order of the labels
    np.testing.assert_array_equal(maps["classifier"], maps["prototype"])


def test_a_plain_file_may_lack_the_background() -> None:
    assert read({"keys": [8, 15], "maps": flat(0.5, 0.25)})["prototype"][:, 0, 0].tolist() == [
        0.5,
        0.5,
        0.25,
    ]


def test_classes_outside_the_index_are_left_out() -> None:
    maps = read({"keys": [0, 3, 15], "IS_CAM": flat(0.2, 0.9, 0.4)}, (3,))
    assert maps["prototype"][:, 0, 0].tolist() == pytest.approx([0.2, 0.4])


def test_an_image_without_labels_is_background() -> None:
    assert (
        read({"keys": [3], "maps": flat(0.9)}, ())["prototype"].tolist()
        == np.ones((1, *SIZE)).tolist()
    )


def test_maps_above_one_keep_their_order() -> None:
    """SFC saves twice the map and the background plus 0.4."""
    maps = read({"keys": [0, 8, 15], "IS_CAM": flat(1.3, 2.0, 0.5)})
    assert maps["prototype"][:, 0, 0].tolist() == pytest.approx([0.65, 1.0, 0.25])


def test_maps_of_the_grid_are_enlarged() -> None:
    values = np.zeros((1, 2, 3), np.float32)
    values[0, 0, 0] = 1
    maps = read({"keys": [8], "maps": values}, (1,))
    assert (
        maps["prototype"].shape == (2, *SIZE)
        and maps["prototype"][1, 0, 0] == 1
        and maps["prototype"][1, 1, 1] == 0.75**2
    )
    np.testing.assert_allclose(maps["prototype"].sum(0), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"keys": [8, 15], "cam": flat(0, 0)},
            "holds keys, cam; save an array keys and one of IS_CAM",
        ),
        ({"IS_CAM": flat(0, 0)}, "holds IS_CAM; save an array keys"),
        ({}, "holds nothing"),
        ({"keys": [8], "maps": flat(0.5)}, r"keys \[8\] lack class 15, a label of the image"),
        ({"keys": [7], "high_res": flat(0.5)}, r"keys \[7\] lack class 14, a label of the image"),
        (
            {"keys": [8, 12, 15], "maps": flat(0, 0, 0)},
            r"keys \[8, 12, 15\] name class 12, which is no label of the image",
        ),
        (
            {"keys": [8, 8, 15], "maps": flat(0, 0, 0)},
            "keys .* are no list of different class numbers",
        ),
        (
            {"keys": [-1, 8, 15], "maps": flat(0, 0, 0)},
            "keys .* are no list of different class numbers",
        ),
        (
            {"keys": [8.0, 15.0], "maps": flat(0, 0)},
            "keys .* are no list of different class numbers",
        ),
        ({"keys": [[8, 15]], "maps": flat(0, 0)}, "keys .* are no list of different class numbers"),
        (
            {"keys": [8, 15], "maps": flat(0, 0, 0)},
            r"maps has the shape \(3, 4, 6\), which does not fit its 2 keys",
        ),
        ({"keys": [8, 15], "maps": flat(0, 0)[..., 0]}, r"maps has the shape \(2, 4\)"),
        (
            {"keys": [8, 15], "maps": flat(0, 0).transpose(0, 2, 1)},
            "maps is 4x6, which is no grid of an image of 6x4",
        ),
        ({"keys": [8, 15], "maps": flat(0, np.nan)}, "maps holds values that are not finite"),
        (
            {"keys": [8, 15], "maps": flat(0, 1).astype(str)},
            "maps holds values that are not finite",
        ),
        ({"keys": [8, 15], "maps": flat(0, -0.5)}, "maps holds values below 0"),
        (
            {"keys": [0, 8, 15], "IS_CAM": flat(0, 0, 0), "IS_CAM1": flat(0, 0, np.inf)},
            "IS_CAM1 holds values that are not finite",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(content: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"^a\.npy: {said}") as caught:
        read(content)
    assert "\n" not in str(caught.value)


@given(
    st.integers(1, 3).flatmap(
        lambda count: st.permutations(range(1, 4)).map(lambda order: tuple(sorted(order[:count])))
    ),
    st.integers(0, 99),
)
def test_what_is_exported_comes_back_unchanged(labels: tuple[int, ...], seed: int) -> None:
    generator = np.random.default_rng(seed)
    maps = [
        CamMaps(
            np.array(labels, np.uint8),
            generator.random((1 + len(labels), *SIZE)).astype(np.float16).astype(np.float32),
        )
        for _ in range(2)
    ]
    back = read(dict(foreign_maps(*maps, VALUES)), labels)
    np.testing.assert_array_equal(back["prototype"], maps[0].values)
    np.testing.assert_array_equal(back["classifier"], maps[1].values)


ODD = st.sampled_from(
    [np.uint8, np.int64, np.float16, np.float64, np.complex64, bool, "U3", object]
)
SHAPES = st.sampled_from(
    [
        (),
        (0,),
        (2,),
        (3,),
        (2, 4, 6),
        (3, 4, 6),
        (2, 6, 4),
        (2, 0, 6),
        (1, 2, 3),
        (2, 2, 3, 1),
        (2, 8, 12),
    ]
)


@given(
    ODD,
    SHAPES,
    ODD,
    SHAPES,
    st.sampled_from(["IS_CAM", "maps", "attn_highres", "cam"]),
    st.integers(0, 99),
)
def test_whatever_the_arrays_are_they_become_maps_or_one_line(
    keys: Any, keys_shape: tuple[int, ...], kind: Any, shape: tuple[int, ...], name: str, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    numbers = generator.permutation([0, 7, 8, 14, 15])[: int(np.prod(keys_shape, initial=1))]
    if keys_shape and len(numbers) == np.prod(keys_shape):
        content = {
            "keys": numbers.reshape(keys_shape).astype(keys),
            name: (3 * generator.random(shape)).astype(kind),
        }
    else:
        content = {"keys": np.zeros(keys_shape, keys), name: np.zeros(shape, kind)}
    try:
        maps = base_maps(content, (1,), VALUES, SIZE, SIZE, "a.npy")
    except UserError as error:
        assert str(error).startswith("a.npy: ") and "\n" not in str(error)
        return
    for values in maps.values():
        assert (
            values.shape == (2, *SIZE)
            and values.dtype == np.float32
            and 0 <= values.min() <= values.max() <= 1
        )
