"""The pixel store: every row once an epoch, independent of the number of shards, refusing what is
damaged.
"""

import pickle
import weakref
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brnf.errors import UserError
from brnf.store.hdf5 import FORMAT
from brnf.store.pixels import PixelBatch, PixelRows, PixelStore, hold_out, write_pixels

DIMENSION, CLASSES = 6, 4


def image(number: int, grid: tuple[int, int] = (9, 11)) -> PixelRows:
    """Return made-up rows of one image; the first two features name image and row."""
    random = np.random.default_rng(number)
    rows = grid[0] * grid[1]
    feature = random.normal(size=(rows, DIMENSION)).astype(np.float32)
    feature[:, 0], feature[:, 1] = number, np.arange(rows)
    present = np.zeros(CLASSES, np.bool_)
    present[[0, 1 + number % 3]] = True
    score = random.random(rows)
    return PixelRows(
        f"image_{number:04d}",
        grid,
        present,
        feature,
        score,
        1 - score,
        np.full(rows, 1 + number % 3),
        np.arange(rows),
    )


def store_of(folder: Path, shards: int, count: int = 30) -> PixelStore:
    """Write ``count`` images of different sizes into shards, not in the order of their ids."""
    paths = []
    for shard in range(shards):
        path = folder / f"{shards}_{shard}.h5"
        with write_pixels(path, DIMENSION, CLASSES) as writer:
            for number in reversed(range(count)):
                if (number * 7) % shards == shard:
                    writer.append(image(number, (5 + number % 7, 20 + 9 * (number % 3))))
        paths.append(path)
    return PixelStore(paths[::-1])


def identities(batch: PixelBatch) -> list[tuple[int, int]]:
    return list(
        zip(
            batch.feature[:, 0].astype(int).tolist(),
            batch.feature[:, 1].astype(int).tolist(),
            strict=True,
        )
    )


def test_round_trip_of_images(tmp_path: Path) -> None:
    store = store_of(tmp_path, 3)
    assert store.images == tuple(f"image_{number:04d}" for number in range(30))
    assert (store.dimension, store.classes) == (DIMENSION, CLASSES)
    for number in (0, 13, 29):
        expected = image(number, (5 + number % 7, 20 + 9 * (number % 3)))
        found = store.image_rows(expected.image)
        assert found.grid == expected.grid
        np.testing.assert_array_equal(found.present, expected.present)
        np.testing.assert_array_equal(found.feature, expected.feature.astype(np.float16))
        np.testing.assert_array_equal(found.score, expected.score.astype(np.float16))
        np.testing.assert_array_equal(found.background, expected.background.astype(np.float16))
        np.testing.assert_array_equal(found.label, expected.label)
        np.testing.assert_array_equal(found.position, expected.position)
        assert found.label.dtype == np.uint8 and found.position.dtype == np.int32


def test_columns_of_the_file(tmp_path: Path) -> None:
    with write_pixels(tmp_path / "a.h5", DIMENSION, CLASSES) as writer:
        for number in range(60):
            writer.append(image(number, (10, 15)))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["feature"].shape == (9000, DIMENSION) and file["feature"].chunks == (
            4096,
            DIMENSION,
        )
        np.testing.assert_array_equal(file["image"][()], np.repeat(np.arange(60), 150))
        np.testing.assert_array_equal(file["feature"][:, 0], np.repeat(np.arange(60), 150))
        assert file["offset"].shape == (61,) and file["present"].shape == (60, CLASSES)


def test_every_row_once_an_epoch(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    batches = list(store.shuffled_batches(1000, seed=3, epochs=1))
    rows = np.concatenate([batch.row for batch in batches])
    assert sorted(rows.tolist()) == list(range(len(store)))
    assert [len(batch) for batch in batches[:-1]] == [1000] * (len(batches) - 1)
    ordered = {
        row: identity
        for batch in store.blocks(rows=777)
        for row, identity in zip(batch.row.tolist(), identities(batch), strict=True)
    }
    for batch in batches:
        assert identities(batch) == [ordered[row] for row in batch.row.tolist()]
        np.testing.assert_array_equal(batch.image, batch.feature[:, 0].astype(np.int32))
        np.testing.assert_array_equal(batch.label, 1 + batch.image % 3)
    # Shuffled: neighbours in a batch are not neighbours in the store.
    assert np.mean(np.diff(rows) == 1) < 0.02


def test_endless_batches_are_whole_and_epochs_follow_each_other(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    batches = store.shuffled_batches(700, seed=0)
    rows: list[int] = []
    while len(rows) < 3 * len(store):
        batch = next(batches)
        assert len(batch) == 700
        rows += batch.row.tolist()
    for epoch in range(3):
        assert sorted(rows[epoch * len(store) : (epoch + 1) * len(store)]) == list(
            range(len(store))
        )
    assert rows[: len(store)] != rows[len(store) : 2 * len(store)]


def test_one_pool_at_a_time_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, 2)
    pools: list[weakref.ref[object]] = []
    gather = store._gather

    def gather_alone(*words: Any) -> PixelBatch:
        assert not any(pool() is not None for pool in pools), "an earlier pool is still there"
        pools.append(weakref.ref((batch := gather(*words)).feature))
        return batch

    monkeypatch.setattr(store, "_gather", gather_alone)
    for _ in store.shuffled_batches(700, seed=0, epochs=3):
        pass
    assert len(pools) == 3


def test_number_of_shards_changes_nothing(tmp_path: Path) -> None:
    stores = [store_of(tmp_path, shards) for shards in (1, 2, 7)]
    streams = [
        list(store.shuffled_batches(512, seed=5, keep=lambda name: name[-1] != "3", epochs=2))
        for store in stores
    ]
    orders = [list(store.blocks()) for store in stores]
    for other_stream, other_order in zip(streams[1:], orders[1:], strict=True):
        for one, other in [
            *zip(streams[0], other_stream, strict=True),
            *zip(orders[0], other_order, strict=True),
        ]:
            for name in ("row", "image", "feature", "score", "background", "label"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_seed_decides_the_order(tmp_path: Path) -> None:
    store = store_of(tmp_path, 1)
    one, again, other = (
        next(store.shuffled_batches(100, seed=seed)).row.tolist() for seed in (0, 0, 1)
    )
    assert one == again != other


def test_keep_and_held_out_images_part_the_store(tmp_path: Path) -> None:
    store = store_of(tmp_path, 3)
    held = hold_out(store.images, 0.1)
    assert len(held) == 3
    inside = np.concatenate(
        [batch.row for batch in store.shuffled_batches(500, 0, held.__contains__, epochs=1)]
    )
    outside = np.concatenate(
        [
            batch.row
            for batch in store.shuffled_batches(500, 0, lambda name: name not in held, epochs=1)
        ]
    )
    assert sorted([*inside.tolist(), *outside.tolist()]) == list(range(len(store)))
    with pytest.raises(ValueError, match="no row"):
        next(store.shuffled_batches(10, 0, lambda name: False))


def test_hold_out_depends_on_ids_alone() -> None:
    names = [f"n{i}" for i in range(100)]
    assert hold_out(names, 0.05) == hold_out(names[::-1], 0.05)
    assert len(hold_out(names, 0.05)) == 5
    assert hold_out(names, 0) == hold_out(["one"], 0.5) == frozenset()
    assert len(hold_out(["one", "two"], 0.01)) == 1


def test_blocks_beyond_one_pool(tmp_path: Path) -> None:
    """More rows than a pool of 16 x 4,096 holds, and a batch larger than a block."""
    with write_pixels(tmp_path / "a.h5", 2, 2) as writer:
        for number in range(24):
            rows = 3000
            feature = np.stack([np.full(rows, number), np.arange(rows) % 2000], 1).astype(
                np.float32
            )
            zeros = np.zeros(rows)
            writer.append(
                PixelRows(
                    f"{number:02d}",
                    (30, 100),
                    np.array([True, True]),
                    feature,
                    zeros,
                    zeros,
                    zeros + 1,
                    zeros,
                )
            )
    store = PixelStore([tmp_path / "a.h5"])
    rows = [batch.row for batch in store.shuffled_batches(20480, seed=1, epochs=1)]
    assert [len(part) for part in rows] == [20480, 20480, 20480, 72000 - 3 * 20480]
    assert np.array_equal(np.sort(np.concatenate(rows)), np.arange(72000))


def test_batches_that_are_done_are_left_out_and_their_pools_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pools an epoch, of 65,536 and 6,464 rows; seven batches end within the second pool of the
    second epoch.
    """
    with write_pixels(tmp_path / "a.h5", 2, 2) as writer:
        for number in range(24):
            zeros = np.zeros(3000)
            feature = np.full((3000, 2), number, np.float32)
            writer.append(
                PixelRows(
                    f"{number:02d}",
                    (30, 100),
                    np.array([True, True]),
                    feature,
                    zeros,
                    zeros,
                    zeros + 1,
                    zeros,
                )
            )
    store = PixelStore([tmp_path / "a.h5"])
    whole = [batch.row for batch in islice(store.shuffled_batches(20480, seed=1), 9)]
    read: list[int] = []
    gather = PixelStore._gather
    monkeypatch.setattr(
        PixelStore,
        "_gather",
        lambda self, order, spans: read.append(len(spans)) or gather(self, order, spans),
    )
    for done in range(9):
        read.clear()
        rest = [
            batch.row
            for batch in islice(store.shuffled_batches(20480, seed=1, done=done), 9 - done)
        ]
        assert all(
            np.array_equal(one, other) for one, other in zip(rest, whole[done:], strict=True)
        )
        if done == 7:
            assert read == [2, 16]


def test_batches_that_are_done_in_finite_epochs(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    whole = [batch.row.tolist() for batch in store.shuffled_batches(700, seed=0, epochs=2)]
    for done in range(len(whole) + 2):
        assert [
            batch.row.tolist() for batch in store.shuffled_batches(700, seed=0, epochs=2, done=done)
        ] == whole[done:]


def test_empty_shards_are_allowed(tmp_path: Path) -> None:
    with write_pixels(tmp_path / "none.h5", DIMENSION, CLASSES):
        pass
    with write_pixels(tmp_path / "some.h5", DIMENSION, CLASSES) as writer:
        writer.append(image(1))
    store = PixelStore([tmp_path / "none.h5", tmp_path / "some.h5"])
    assert len(store) == 99 and store.images == ("image_0001",)
    assert len(PixelStore([tmp_path / "none.h5"])) == 0
    assert list(PixelStore([tmp_path / "none.h5"]).blocks()) == []


def test_reading_in_another_process(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    next(store.shuffled_batches(10, 0))
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(
        copy.image_rows("image_0004").feature, store.image_rows("image_0004").feature
    )


@pytest.mark.parametrize("value", [7e4, np.nan, np.inf])
def test_values_beyond_float16_name_the_image(tmp_path: Path, value: float) -> None:
    rows = image(3)
    rows.feature[5, 2] = value
    with (
        pytest.raises(UserError, match="image_0003"),
        write_pixels(tmp_path / "a.h5", DIMENSION, CLASSES) as writer,
    ):
        writer.append(rows)
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_end_in_one_line(tmp_path: Path) -> None:
    store_of(tmp_path, 1)
    path = tmp_path / "1_0.h5"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"1_0\.h5"):
        PixelStore([path])
    with pytest.raises(UserError, match=r"missing\.h5"):
        PixelStore([tmp_path / "missing.h5"])
    with h5py.File(tmp_path / "maps.h5", "w", libver=FORMAT) as file:
        file.create_group("image")
    with pytest.raises(UserError, match="not a pixel store"):
        PixelStore([tmp_path / "maps.h5"])
    path.write_bytes(content)
    with h5py.File(path, "a") as file:
        file["score"].resize(10, axis=0)
    with pytest.raises(UserError, match="do not fit each other"):
        PixelStore([path])


def test_shards_that_do_not_fit(tmp_path: Path) -> None:
    for name, width, number in (("a", 6, 1), ("b", 4, 2), ("c", 6, 1)):
        rows = image(number)
        with write_pixels(tmp_path / f"{name}.h5", width, CLASSES) as writer:
            writer.append(PixelRows(**{**rows.__dict__, "feature": rows.feature[:, :width]}))
    with pytest.raises(UserError, match=r"b\.h5.*do not fit"):
        PixelStore([tmp_path / "a.h5", tmp_path / "b.h5"])
    with pytest.raises(UserError, match="image_0001 is stored twice"):
        PixelStore([tmp_path / "a.h5", tmp_path / "c.h5"])
    with pytest.raises(UserError, match="no pixels of this image"):
        PixelStore([tmp_path / "a.h5"]).image_rows("other")
