import numpy as np
import pytest

from qtorch.data.moves import splits, taken_back, usual_move


@pytest.fixture
def moves() -> np.ndarray:
    return 0.01 * np.random.default_rng(0).standard_normal((3, 640))


def test_the_usual_move_is_the_standard_deviation_of_normal_moves(moves):
    usual = usual_move(moves)
    assert usual.shape == moves.shape
    assert usual.mean() == pytest.approx(0.01, rel=0.2)  # the greatest of three blocks' medians is a little more


def test_a_single_block_has_the_median_of_its_moves_by_hand():
    moves = np.array([[np.nan, *np.arange(1, 32) / 100, 0.0, 0.0]])
    assert usual_move(moves)[0] == pytest.approx(np.full(34, 1.4826 * 0.16))


def test_the_usual_move_is_robust_scales_and_follows_turbulence(moves):
    usual = usual_move(moves)
    assert usual_move(-7 * moves) == pytest.approx(7 * usual)
    spoilt = moves.copy()
    spoilt[:, ::5] = 3.0  # a fifth of the moves wrong
    assert (usual_move(spoilt) < 1.8 * usual).all()
    turbulent = moves * np.where(np.arange(640) >= 320, 5, 1)
    ratio = usual_move(turbulent) / usual
    assert ratio[:, 320:] == pytest.approx(np.full((3, 320), 5.0), rel=0.5)
    assert ratio[:, :256] == pytest.approx(np.ones((3, 256)))


def test_unchanged_prices_and_too_few_moves(moves):
    idle = np.zeros((1, 640))
    idle[0, ::10] = moves[0, ::10]  # fewer than 16 in each block, 64 in all
    usual = usual_move(idle)
    assert (usual == usual[0, 0]).all()
    assert usual[0, 0] == pytest.approx(0.01, rel=0.4)
    assert np.isnan(usual_move(moves[:, :15])).all()
    assert np.isnan(usual_move(np.full((2, 5), np.nan))).all()


def test_moves_taken_back():
    moves = np.array([[np.nan, 0.5, -0.4, 0.1, -0.5, 0.3, 0.2]])
    assert taken_back(moves).tolist() == [[False, True, False, False, False, False, False]]


@pytest.mark.parametrize(("volume", "suspected"), [(1.0, True), (2.0, True), (4.0, True), (9.0, False), (np.nan, True)])
def test_bad_news_are_told_from_a_split_by_their_trading(volume, suspected):
    close = np.r_[np.full(30, 100.0), np.full(30, 50.0)][None]
    traded = np.full((1, 60), 1000.0)
    traded[0, 30] = 1000 * volume
    move = np.diff(np.log(close), prepend=np.nan)
    n, k, detail = splits({"close": close, "volume": traded}, move, np.full((1, 60), 0.01))
    assert (n.tolist(), k.tolist()) == (([0], [30]) if suspected else ([], []))
    assert len(detail) == suspected


def test_an_open_in_line_with_the_close_before_speaks_against_a_split_and_a_copy_of_it_says_nothing():
    close = np.r_[np.full(30, 100.0), np.full(30, 50.0)][None]
    move, usual = np.diff(np.log(close), prepend=np.nan), np.full((1, 60), 0.01)
    for opened, suspected in ((99.0, 0), (51.0, 1), (100.0, 1), (np.nan, 1), (60.0, 0)):
        opens = close.copy()
        opens[0, 30] = opened
        assert len(splits({"close": close, "open": opens}, move, usual)[0]) == suspected


def test_a_halving_is_no_split_where_such_moves_are_usual():
    close = np.r_[np.full(30, 100.0), np.full(30, 50.0)][None]
    move = np.diff(np.log(close), prepend=np.nan)
    assert len(splits({"close": close}, move, np.full((1, 60), 0.2))[0]) == 0
