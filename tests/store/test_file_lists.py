"""Lists of numbered files as short words, and back."""

from hypothesis import given
from hypothesis import strategies as st

from brnf.store.file_lists import condensed, expanded

PATHS = st.lists(
    st.one_of(
        st.builds("results/x/{}/{}.h5".format, st.sampled_from("ab"), st.integers(0, 12)),
        st.builds("seed{}/masks".format, st.integers(0, 3)),
        st.sampled_from(
            ["flow.pt", "07.h5", "a{1..3}.h5", "{2..4}", "line\n3", "9", "x9}", "٣.h5"]
        ),
    ),
    max_size=40,
)


@given(PATHS)
def test_every_list_comes_back(paths: list[str]) -> None:
    plain = [path for path in paths if "{" not in path]
    assert [path for word in condensed(plain) for path in expanded(word)] == plain


def test_ten_thousand_shards_are_one_word() -> None:
    paths = [f"results/x/base/seed0/cams/train/{shard}.h5" for shard in range(10_000)]
    assert condensed(paths) == ["results/x/base/seed0/cams/train/{0..9999}.h5"]
