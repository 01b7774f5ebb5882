"""Rendered scenes: how often contexts occur, what hides what, determinism."""

import cv2
import numpy as np
import pytest
from scipy import stats

from brnf.data.scene_layout import (
    SCENE_CLASSES,
    Content,
    Layout,
    PlacedContext,
    PlacedObject,
    place,
    sample_content,
)
from brnf.data.scene_textures import CONTEXTS, OBJECTS
from brnf.data.scenes import draw_scene, render

RHO, NU, NUMBER = 0.9, 0.6, 4000


@pytest.fixture(scope="module")
def contents() -> list[Content]:
    rng = np.random.default_rng(7)
    return [sample_content(rng, RHO, NU) for _ in range(NUMBER)]


def within(successes: int, trials: int, probability: float) -> bool:
    return stats.binomtest(successes, trials, probability).pvalue > 1e-4


def test_numbers_of_objects_contexts_and_strangers(contents: list[Content]) -> None:
    counts = np.bincount([len(content.classes) for content in contents], minlength=4)
    for count, probability in zip(counts[1:], (0.5, 0.35, 0.15), strict=True):
        assert within(int(count), NUMBER, probability)
    beside = [flag for content in contents for flag in content.accompanied]
    assert within(sum(beside), len(beside), RHO)
    assert within(sum(bool(content.strangers) for content in contents), NUMBER, NU)
    strangers = np.bincount([len(content.strangers) for content in contents], minlength=4)[1:]
    assert stats.chisquare(strangers).pvalue > 1e-4
    per_class = np.bincount(
        [label for content in contents for label in content.classes], minlength=7
    )[1:]
    assert stats.chisquare(per_class).pvalue > 1e-4


def test_strangers_are_contexts_of_absent_classes(contents: list[Content]) -> None:
    for content in contents:
        assert len({*content.classes, *content.strangers}) == len(content.classes) + len(
            content.strangers
        )


def test_object_given_its_context_is_about_a_coin_toss(contents: list[Content]) -> None:
    with_object = sum(sum(content.accompanied) for content in contents)
    alone = sum(len(content.strangers) for content in contents)
    assert with_object / (with_object + alone) == pytest.approx(
        0.55, abs=0.02
    )  # docs/method.md section 12


@pytest.mark.parametrize(
    ("rho", "nu", "accompanied", "strangers"), [(1.0, 0.0, True, False), (0.0, 1.0, False, True)]
)
def test_extreme_probabilities(rho: float, nu: float, accompanied: bool, strangers: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        content = sample_content(rng, rho, nu)
        assert all(flag is accompanied for flag in content.accompanied)
        assert bool(content.strangers) is strangers


def test_masks_exclude_each_other_and_agree_with_the_labels() -> None:
    for number in range(16):
        scene = draw_scene(3, "train", number, size=224, rho=RHO, nu=1.0)
        assert scene.image.shape == (224, 224, 3)
        assert not ((scene.objects > 0) & (scene.contexts > 0)).any()
        assert tuple(np.unique(scene.objects[scene.objects > 0])) == scene.labels
        for label in scene.labels:
            assert (
                scene.objects == label
            ).sum() > 0.4 * np.pi * 30**2 * 0.6  # hidden in part, never lost


def test_an_object_covers_its_context_and_later_objects_cover_earlier_ones() -> None:
    patch = PlacedContext(2, 100.0, 100.0, 50.0, 40.0, 0.0)
    first = PlacedObject(3, 100.0, 100.0, 35.0, 0.0, 1.0, False, 10.0)
    second = PlacedObject(6, 112.0, 100.0, 35.0, 0.0, 1.0, False, 200.0)

    def drawn(*objects: PlacedObject) -> tuple[np.ndarray, np.ndarray]:
        scene = render(Layout(224, (patch,), objects), np.random.default_rng(0))
        return scene.objects, scene.contexts

    bare = drawn()[1] == 2
    alone, context = drawn(first)
    assert alone[100, 100] == 3
    assert ((context == 2) == (bare & (alone == 0))).all()
    upper = drawn(second)[0] == 6
    both, _ = drawn(first, second)
    assert ((both == 6) == upper).all()
    assert ((both == 3) == ((alone == 3) & ~upper)).all()


def test_visible_context_is_thicker_than_two_grid_cells() -> None:
    for label in range(1, 7):
        rng = np.random.default_rng(label)
        scene = render(place(Content((label,), (True,), ()), 224, rng), rng)
        inscribed = (
            cv2.distanceTransform(
                np.pad((scene.contexts == label).astype(np.uint8), 1), cv2.DIST_L2, 5
            ).max()
            * 2
        )
        assert inscribed > 32
        centre_of = {
            name: np.argwhere(mask == label).mean(0)
            for name, mask in (("object", scene.objects), ("context", scene.contexts))
        }
        assert np.linalg.norm(centre_of["object"] - centre_of["context"]) < 2.2 * 42  # beside it


def test_hue_tells_nothing_and_radius_keeps_its_range() -> None:
    rng = np.random.default_rng(1)
    objects = [
        thing for _ in range(80) for thing in place(sample_content(rng, 1.0, 0.0), 224, rng).objects
    ]
    assert stats.kstest([thing.hue / 360 for thing in objects], "uniform").pvalue > 1e-3
    assert all(30 <= thing.radius <= 42 for thing in objects)
    assert all(
        thing.radius <= thing.x <= 224 - thing.radius
        and thing.radius <= thing.y <= 224 - thing.radius
        for thing in objects
    )


def test_a_scene_depends_on_seed_split_and_number_only() -> None:
    def draw(seed: int, split: str, number: int) -> bytes:
        scene = draw_scene(seed, split, number, size=96, rho=RHO, nu=NU)
        return scene.image.tobytes() + scene.objects.tobytes() + scene.contexts.tobytes()

    wanted = draw(0, "train", 5)
    np.random.seed(11)
    draw(0, "train", 4)
    assert draw(0, "train", 5) == wanted
    assert len({wanted, draw(1, "train", 5), draw(0, "val", 5), draw(0, "train", 6)}) == 4


def test_objects_scale_with_the_image() -> None:
    shares = []
    for size in (112, 224):
        scenes = [draw_scene(0, "train", number, size=size, rho=RHO, nu=0.0) for number in range(8)]
        shares.append(np.mean([(scene.objects > 0).mean() for scene in scenes]))
    assert shares[0] == pytest.approx(shares[1], rel=0.15)


def test_every_class_has_its_own_silhouette_and_texture() -> None:
    axis = np.linspace(-1.2, 1.2, 96, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    shapes = [thing.silhouette(u, v) for thing in OBJECTS]
    x, y = np.meshgrid(np.arange(96, dtype=np.float32), np.arange(96, dtype=np.float32))
    spectra = [
        np.abs(np.fft.rfft2(texture.tone(x, y) - texture.tone(x, y).mean())).ravel()
        for texture in CONTEXTS
    ]
    for i in range(6):
        tone = OBJECTS[i].tone(u, v)[shapes[i]]
        assert tone.min() >= 0 and tone.max() <= 1 and tone.std() > 0.15
        assert 0.4 < shapes[i].sum() * (2.4 / 95) ** 2 / np.pi < 1.2
        for j in range(i):
            assert (shapes[i] & shapes[j]).sum() / (shapes[i] | shapes[j]).sum() < 0.85
            assert np.corrcoef(spectra[i], spectra[j])[0, 1] < 0.6
    assert len(set(SCENE_CLASSES)) == 6
