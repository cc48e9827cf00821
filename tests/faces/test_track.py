"""Following: nobody is exchanged, gaps are bridged, cuts are seen, quads are steady and none is lost."""

from __future__ import annotations

import numpy as np
import pytest

from mien.errors import InputError
from mien.faces.align import ffhq_quad
from mien.faces.detect import Face
from mien.faces.track import FollowConfig, Follower, Track, jitter_px, smooth_quads, spans

FIVE = np.array([[-20.0, -15], [20, -15], [0, 5], [-14, 25], [14, 25]])
CONFIG = FollowConfig()


def face(x: float, y: float = 100.0, size: float = 40.0, noise: np.ndarray | float = 0.0) -> Face:
    centre = np.array([x, y])
    return Face(np.concatenate([centre - size, centre + size]), centre + FIVE * size / 40 + noise, 0.9)


def looks(who: int, rng: np.random.Generator, spread: float = 0.05) -> np.ndarray:
    """A unit vector near that of a person; people are at right angles."""
    vector = np.eye(16)[who] + spread * rng.normal(size=16)
    return vector / np.linalg.norm(vector)


def test_two_people_who_cross_are_not_exchanged() -> None:
    rng, follower = np.random.default_rng(0), Follower()
    for t in range(41):
        places = [(50 + 5 * t, 0), (250 - 5 * t, 1)]
        rng.shuffle(places)
        seen = places if t != 20 else [place for place in places if place[1] == 0]  # one hides the other
        follower.see(t, [face(x) for x, _ in seen], [looks(who, rng) for _, who in seen])
    tracks = follower.tracks()
    assert [len(track.faces) for track in tracks] == [41, 40]
    for track, first, step in zip(tracks, (50, 250), (5, -5), strict=True):
        for t, seen_face in track.faces.items():
            assert seen_face.box[[0, 2]].mean() == pytest.approx(first + step * t)


def test_places_alone_follow_who_does_not_cross() -> None:
    follower = Follower()
    for t in range(10):
        follower.see(t, [face(60 + 2 * t), face(300 - 2 * t, size=30)])
    assert [len(track.faces) for track in follower.tracks()] == [10, 10]


def test_a_cut_to_somebody_else_in_the_same_place_is_another_person() -> None:
    rng, follower = np.random.default_rng(1), Follower()
    for t in range(12):
        follower.see(t, [face(100)], [looks(t // 6, rng)])
    assert [list(track.faces) for track in follower.tracks()] == [[*range(6)], [*range(6, 12)]]


def test_who_was_away_comes_back_anywhere() -> None:
    rng, follower = np.random.default_rng(2), Follower()
    for t in [*range(5), *range(40, 45)]:
        follower.see(t, [face(100 if t < 5 else 400)], [looks(0, rng)])
    (track,) = follower.tracks()
    assert len(track.faces) == 10
    assert set(smooth_quads(track, CONFIG)) == set(track.faces)  # the long gap is no bridge


def test_mistakes_of_the_detector_are_nobody() -> None:
    follower = Follower()
    for t in range(6):
        follower.see(t, [face(100), face(400)] if t < 2 else [face(100)])
    assert len(follower.tracks()) == 1
    follower.see(6, [])
    assert len(follower.tracks()[0].faces) == 6


def test_short_gaps_are_bridged_along_a_line() -> None:
    track = Track({t: face(100 + 3 * t) for t in range(20) if t not in (7, 8, 9)})
    quads = smooth_quads(track, CONFIG)
    assert list(quads) == list(range(20))
    for t in range(20):
        np.testing.assert_allclose(quads[t], ffhq_quad(face(100 + 3 * t).landmarks), atol=1e-6)


def test_a_face_that_stands_stays_and_none_is_lost_at_the_ends() -> None:
    track = Track({t: face(120) for t in range(3, 9)})
    quads = smooth_quads(track, CONFIG)
    assert list(quads) == list(range(3, 9))
    for quad in quads.values():
        np.testing.assert_allclose(quad, ffhq_quad(face(120).landmarks))


def test_smoothing_takes_the_jitter_and_keeps_squares_in_place() -> None:
    rng = np.random.default_rng(3)
    track = Track({t: face(100 + 40 * np.sin(t / 15), noise=rng.normal(0, 0.8, (5, 2))) for t in range(60)})
    true = {t: ffhq_quad(face(100 + 40 * np.sin(t / 15)).landmarks) for t in range(60)}
    raw = smooth_quads(track, FollowConfig(centre_sigma=0, axes_sigma=0))
    smooth = smooth_quads(track, CONFIG)
    assert jitter_px(smooth) < jitter_px(raw) / 4
    error = {
        name: np.mean([np.abs(q[t] - true[t]).mean() for t in q]) for name, q in (("raw", raw), ("smooth", smooth))
    }
    assert error["smooth"] < error["raw"]
    for quad in smooth.values():
        down, right = quad[1] - quad[0], quad[3] - quad[0]
        np.testing.assert_allclose(down, [-right[1], right[0]], atol=1e-9)
        np.testing.assert_allclose(quad[2] - quad[3], down, atol=1e-9)


def test_jitter_of_even_motion_is_zero() -> None:
    assert jitter_px({t: np.full((4, 2), 3.0 * t) for t in range(5)}) == pytest.approx(0)
    assert jitter_px({0: np.zeros((4, 2)), 1: np.zeros((4, 2)), 2: np.full((4, 2), [3.0, 4.0])}) == pytest.approx(5)
    assert jitter_px({0: np.zeros((4, 2))}) == 0


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="max_gap"):
        FollowConfig(max_gap=-1)
    with pytest.raises(InputError, match="sigmas"):
        FollowConfig(axes_sigma=float("nan"))
    assert spans([], 3) == []
