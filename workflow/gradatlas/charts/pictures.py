"""A few figures as small pictures, to be committed and shown where the project is read."""

import io
import json
from pathlib import Path

import vl_convert
from PIL import Image

from gradatlas.charts.save import CAPTION, caption_of, version_of
from gradatlas.core.errors import InputError
from gradatlas.core.files import replacing, write_text

# Sharp enough in a page; with so many colours a picture stays under 150 kB.
PPI, COLOURS = 144, 160


def write_gallery(chosen: str | Path, figures: str | Path, output: str | Path) -> list[str]:
    """Draw the figures that the file `chosen` lists, a line each (``gsm8k/mini.correct.panels``), as small PNGs.

    Each has its caption beside it.

    `figures`: the folder of all figures, whose records (``.vl.json``) are drawn. Returns the names of the pictures in
    `output`. `InputError` where a listed figure has no record.
    """
    try:
        stems = Path(chosen).read_text(encoding="utf-8").split()
    except OSError as error:
        raise InputError(f"{chosen}: cannot be read ({error.strerror}); list the figures there, one a line") from None
    records = {stem: Path(figures) / f"{stem}.vl.json" for stem in stems}
    for stem, record in records.items():
        if not record.is_file():
            raise InputError(f"{chosen}, '{stem}': no file {record}; run the default study first, or correct the line")
    names = []
    for stem, record in records.items():
        specification = json.loads(record.read_text(encoding="utf-8"))
        name = stem.replace("/", ".")
        names.append(f"{name}.png")
        write_text(Path(output) / f"{name}{CAPTION}", caption_of(specification))
        with replacing(Path(output) / names[-1]) as temporary:
            drawn = vl_convert.vegalite_to_png(specification, vl_version=version_of(specification), ppi=PPI)
            picture = Image.open(io.BytesIO(drawn)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            picture.save(temporary, format="PNG", optimize=True)
    return names
