"""The people of a clip drawn, picture by picture: faces are followed and their places steadied, so nothing shakes.

Source: as clips are edited, see `video.py`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL.Image import Image

from mien.edits.toonify import Artist, ToonConfig, toonify
from mien.edits.video import Find, follow_clip
from mien.errors import NoFaceError
from mien.faces.align import crop_quad, is_in_photo
from mien.faces.track import FollowConfig, smooth_quads
from mien.inversion.objective import FaceModel
from mien.report import Sink, Step, ignore
from mien.video import clip_info, rewrite_clip

__all__ = ["toonify_clip"]

CPU = torch.device("cpu")


def toonify_clip(
    source: Path,
    path: Path,
    artist: Artist,
    config: ToonConfig | None = None,
    *,
    find: Find,
    follow: FollowConfig | None = None,
    face_model: FaceModel | None = None,
    device: torch.device = CPU,
    on_step: Sink = ignore,
) -> int:
    """Draw the faces of a clip; pictures without one, the clock and the sound stay as they are.

    Where the finder misses a face for a few pictures, it is drawn where it must have been.

    Args:
        source: any clip.
        path: the clip to make or replace, whole or not at all.
        artist: who draws.
        config: how; a whole picture needs no face.
        find: a picture's faces.
        follow: how faces are followed and their places smoothed.
        face_model: knows people again.
        device: of `face_model`.
        on_step: hears of every picture in the stages `follow` and `draw`.

    Returns:
        How many pictures were written.

    Raises:
        InputError: no such clip, no pictures in it, or a whole picture asked of who draws faces only.
        UnsupportedFileError: it is no video, too large, or damaged.
        NoFaceError: nobody is seen in it.
        MissingExtraError: the extra `video` is not installed.
        MienError: the clip cannot be written.
    """
    config, follow = config or ToonConfig(), follow or FollowConfig()
    try:
        tracks = follow_clip(source, find, follow, face_model=face_model, device=device, on_step=on_step)
    except NoFaceError:
        if not config.is_whole:
            raise
        tracks = []
    people = [smooth_quads(track, follow) for track in tracks]
    total = clip_info(source).num_frames

    def draw(frame: int, image: Image) -> Image | None:
        quads = [quads[frame] for quads in people if frame in quads and is_in_photo(quads[frame], image.size)]
        crops = [crop_quad(image, quad, size_px=artist.size_px) for quad in quads]
        crops.sort(key=lambda crop: -crop.native_px)
        on_step(Step("draw", frame + 1, max(total, frame + 1)))
        return toonify(image, crops, artist, config) if crops or config.is_whole else None

    return rewrite_clip(source, path, draw)
