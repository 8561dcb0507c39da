"""Pictures inside a page: as data: URIs, small ones pixel by pixel, larger ones at the size of a thumbnail."""

import base64
import io
from typing import Any

from PIL import Image

__all__ = ["EXACT", "SIDE", "uri"]

SIDE = 128  # the longer side that a picture has in a page, at most
EXACT = 64  # up to this side a picture is kept pixel by pixel
QUALITY = 85
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def uri(picture: Image.Image) -> str:
    """A picture as a data: URI: PNG up to EXACT pixels a side and where it has transparency; else JPEG of at most SIDE pixels a
    side, so that a page of many photographs stays one that a phone can open."""
    picture = picture if picture.mode in MODES else picture.convert("RGB")
    kind, settings = "PNG", dict[str, Any](optimize=True)
    if max(picture.size) > EXACT:
        scale = min(1.0, SIDE / max(picture.size))
        opaque = picture.mode in ("1", "L", "RGB") or (picture.mode == "P" and "transparency" not in picture.info)
        picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB" if opaque else "RGBA")
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS) if scale < 1 else picture
        if opaque:
            kind, settings = "JPEG", {"quality": QUALITY, "subsampling": 0}
    out = io.BytesIO()
    bare = picture.copy()
    # Nothing of what the original's file said beside it: places, names, dates.
    bare.info = {k: v for k, v in picture.info.items() if k == "transparency"}
    bare.save(out, kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
