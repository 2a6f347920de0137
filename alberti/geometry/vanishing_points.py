"""stub"""
import numpy as np
def segment_angles(segments: np.ndarray, points: np.ndarray) -> np.ndarray:
    segments = np.asarray(segments, dtype=np.float64).reshape(-1, 4)
    along = segments[:, 2:] - segments[:, :2]
    middle = (segments[:, 2:] + segments[:, :2]) / 2
    towards = points[None, :, :2] - points[None, :, 2:] * middle[:, None]
    cross = along[:, None, 0] * towards[..., 1] - along[:, None, 1] * towards[..., 0]
    dot = (along[:, None] * towards).sum(axis=2)
    return np.degrees(np.arctan2(np.abs(cross), np.abs(dot)))
