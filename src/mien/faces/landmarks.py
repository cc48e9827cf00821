"""MediaPipe's face landmarker on the faces that our detector found: 478 points, 52 blendshapes, head pose.

By itself the landmarker sees near faces only, upright and of middle size. So each face is cut out of the photo by its
five points, upright and with a margin, and what is found there is carried back to the photo.

Source: Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs",
arXiv:1907.06724; the model is MediaPipe's, under the Apache License 2.0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from mien.errors import MissingExtraError, NoFaceError, WeightsError
from mien.faces.align import HasLandmarks, crop_quad, ffhq_quad
from mien.report import Sink, ignore
from mien.weights.download import Download, fetch

__all__ = ["FACE_LANDMARKER", "FaceMesh", "Landmarker", "load_landmarker"]

FACE_LANDMARKER = Download(
    url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    size_bytes=3_758_596,
    license="Apache-2.0",
)

VIEW_PX = 512
MARGINS = (1.3, 1.9, 2.6)  # side of the view in sides of the FFHQ crop, tried in turn; profiles want much


@dataclass(frozen=True, eq=False)
class FaceMesh:
    """One face as the landmarker sees it."""

    landmarks: NDArray[np.float64]  # [478, 2] px of the photo; `align` takes it as it is.
    blendshapes: Mapping[str, float]  # 52 names in MediaPipe's spelling (`mouthSmileLeft`), 0..1.
    yaw_deg: float  # Positive: turned to the image's right.
    pitch_deg: float  # Positive: looking down.
    roll_deg: float  # Positive: leaning counter-clockwise, in the photo; the others are those of the upright head.

    @property
    def smile(self) -> float:
        """Mean of the two corners' smile, 0..1."""
        return (self.blendshapes["mouthSmileLeft"] + self.blendshapes["mouthSmileRight"]) / 2


def _view_quad(face: HasLandmarks, margin: float) -> NDArray[np.float64]:
    quad = ffhq_quad(face.landmarks)
    centre = quad.mean(0)
    return centre + margin * (quad - centre)


def _pose_deg(matrix: NDArray[np.float64]) -> tuple[float, float, float]:
    """Yaw, pitch and roll of a face transform [4, 4]; its axes point right, up and to the viewer."""
    rotation = matrix[:3, :3] / np.cbrt(np.linalg.det(matrix[:3, :3]))
    yaw = math.atan2(rotation[0, 2], rotation[2, 2])
    pitch = math.asin(np.clip(-rotation[1, 2], -1, 1))
    roll = math.atan2(rotation[1, 0], rotation[1, 1])
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


class Landmarker:
    """The landmarker with its model loaded; close it, or use it in a `with`."""

    def __init__(self, model: Path) -> None:
        """Load the model file.

        Raises:
            MissingExtraError: MediaPipe is not installed, or cannot be loaded.
            WeightsError: the file is not a model for it.
        """
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except (ImportError, OSError) as err:  # OSError: a system library that its OpenCV needs
            message = f"MediaPipe cannot be loaded: {err}"
            raise MissingExtraError(message, hint="pip install 'mien[mediapipe]'") from err
        self._mediapipe: Any = mediapipe
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
            num_faces=3,  # neighbours in the view; the middle one is taken
        )
        try:
            self._model: Any = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as err:
            raise WeightsError(f"{model} is no model of a face landmarker", hint="delete it to fetch it again") from err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._model.close()

    def read(self, photo: Image, face: HasLandmarks) -> FaceMesh:
        """Read one detected face of `photo`.

        Args:
            photo: RGB.
            face: where it is, with `landmarks` [5, 2] px (or more).

        Raises:
            NoFaceError: the landmarker sees no face there (a strong profile, a covered or a very small face).
        """
        for margin in MARGINS:
            quad = _view_quad(face, margin)
            view = crop_quad(photo, quad, size_px=VIEW_PX)
            picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.array(view.image))
            found = self._model.detect(picture)
            if not found.face_landmarks:
                continue
            meshes = [np.array([(p.x, p.y) for p in points]) * VIEW_PX for points in found.face_landmarks]
            distances = [np.linalg.norm(mesh.mean(0) - VIEW_PX / 2) for mesh in meshes]
            i = int(np.argmin(distances))
            if distances[i] > VIEW_PX / 4:
                continue
            yaw, pitch, roll = _pose_deg(np.array(found.facial_transformation_matrixes[i]))
            right, down = quad[3] - quad[0]
            roll = (roll - math.degrees(math.atan2(down, right)) + 180) % 360 - 180
            return FaceMesh(
                landmarks=meshes[i] @ view.matrix[:, :2].T + view.matrix[:, 2],
                blendshapes={shape.category_name: float(shape.score) for shape in found.face_blendshapes[i]},
                yaw_deg=yaw,
                pitch_deg=pitch,
                roll_deg=roll,
            )
        raise NoFaceError("the landmarker sees no face there", hint="a larger or more frontal face is needed")


def load_landmarker(*, cache: Path | None = None, offline: bool | None = None, on_step: Sink = ignore) -> Landmarker:
    """Fetch the model into the cache when it is not there, and load it.

    Raises:
        MissingExtraError: the extra `mediapipe` is not installed.
        WeightsError: the model cannot be fetched.
    """
    return Landmarker(fetch(FACE_LANDMARKER, cache=cache, offline=offline, on_step=on_step))
