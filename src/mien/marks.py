"""Marks of pictures that a machine made: an XMP packet with IPTC's DigitalSourceType and a note in words.

The packet is a constant of its kind, so that the same pixels stay the same bytes.

Source: IPTC Photo Metadata Standard 2025.1, Digital Source Type; ISO 16684-1 (XMP); PNG, keyword
XML:com.adobe.xmp; MP4, ISO 14496-12, box uuid, and XMP Specification Part 3, Sec. 1.2.7.
"""

from __future__ import annotations

from enum import StrEnum

from PIL.PngImagePlugin import PngInfo

__all__ = ["Origin", "mp4_box", "png_info", "xmp_packet"]

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
PNG_KEYWORD = "XML:com.adobe.xmp"
MP4_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


class Origin(StrEnum):
    """Where the pixels of a picture come from, by IPTC's names."""

    INVENTED = "trainedAlgorithmicMedia"  # a network made all of it
    CHANGED = "compositeWithTrainedAlgorithmicMedia"  # a photo of which a network changed some

    @property
    def uri(self) -> str:
        """The term in IPTC's vocabulary."""
        return VOCABULARY + self.value

    @property
    def note(self) -> str:
        """The same in words."""
        words = {Origin.INVENTED: "Made", Origin.CHANGED: "Changed"}
        return f"{words[self]} by a machine: mien, generative networks. What it shows did not happen."


def xmp_packet(origin: Origin) -> bytes:
    """Return the XMP packet of an origin, UTF-8.

    >>> b"digitalsourcetype/trainedAlgorithmicMedia" in xmp_packet(Origin.INVENTED)
    True
    """
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    Iptc4xmpExt:DigitalSourceType="{origin.uri}"
    xmp:CreatorTool="mien">
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{origin.note}</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>""".encode()


def png_info(origin: Origin | None) -> PngInfo | None:
    """Return what Pillow writes into a PNG to tell an origin; None tells nothing."""
    if origin is None:
        return None
    info = PngInfo()
    info.add_itxt(PNG_KEYWORD, xmp_packet(origin).decode())
    return info


def mp4_box(origin: Origin) -> bytes:
    """Return the box that, at the end of an MP4, tells an origin; players pass over it."""
    packet = xmp_packet(origin)
    return (8 + len(MP4_UUID) + len(packet)).to_bytes(4, "big") + b"uuid" + MP4_UUID + packet
