"""Pictures made by a machine say so, in the same bytes each time."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import PIL.Image
import pytest

from mien.images import open_photo, save_png
from mien.marks import Origin, xmp_packet

EXT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"


@pytest.mark.parametrize("origin", list(Origin))
def test_a_png_says_where_it_comes_from(origin: Origin, tmp_path: Path) -> None:
    path, image = tmp_path / "x.png", PIL.Image.new("RGB", (4, 4), (1, 2, 3))
    save_png(image, path, origin)
    with PIL.Image.open(path) as opened:
        packet = opened.text["XML:com.adobe.xmp"]
    (description,) = ET.fromstring(packet).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert description.attrib[EXT] == f"http://cv.iptc.org/newscodes/digitalsourcetype/{origin.value}"
    assert "by a machine" in "".join(description.itertext())
    again = tmp_path / "y.png"
    save_png(open_photo(path), again, origin)
    assert again.read_bytes() == path.read_bytes()


def test_what_a_camera_made_says_nothing(tmp_path: Path) -> None:
    save_png(PIL.Image.new("RGB", (4, 4)), tmp_path / "x.png", origin=None)
    assert b"xmp" not in (tmp_path / "x.png").read_bytes()


def test_a_changed_photo_is_the_usual_case(tmp_path: Path) -> None:
    save_png(PIL.Image.new("RGB", (4, 4)), tmp_path / "x.png")
    assert b"compositeWithTrainedAlgorithmicMedia" in (tmp_path / "x.png").read_bytes()


def test_a_packet_is_wrapped_as_xmp() -> None:
    packet = xmp_packet(Origin.CHANGED).decode()
    assert packet.startswith('<?xpacket begin="\ufeff"') and packet.endswith('<?xpacket end="r"?>')
