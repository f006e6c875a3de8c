"""HTML pages of one look: templates over `base.html`, each page a single file with everything in it."""

from __future__ import annotations

import base64
import io
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image


def page(template: str, **values: Any) -> str:
    """A page from a template of this package; values are escaped."""
    environment = Environment(loader=PackageLoader(__name__, ""), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(values)


def data_url(image: np.ndarray, form: Literal["png", "jpeg"] = "png") -> str:
    """A uint8 (H, W, 3) picture as an `src` of an `img`."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, quality=88)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
