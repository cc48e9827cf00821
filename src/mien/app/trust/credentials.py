"""C2PA manifests: a result says, signed by the operator, that a machine made or changed it.

Source: C2PA Technical Specification 2.2, actions c2pa.created and c2pa.edited with a digitalSourceType.
"""

from __future__ import annotations

import io
import json

from mien import __version__
from mien.app.settings import MarkSettings
from mien.errors import InputError, MissingExtraError
from mien.marks import Origin

__all__ = ["sign"]


def _manifest(origin: Origin) -> str:
    """Return the claim: created by a network, or created from a photo that a network then changed."""
    created = {"action": "c2pa.created", "digitalSourceType": origin.uri}
    actions = [created] if origin is Origin.INVENTED else [created, {"action": "c2pa.edited"}]
    claim = {
        "claim_generator_info": [{"name": "mien", "version": __version__}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
    return json.dumps(claim)


def sign(picture: bytes, mime: str, origin: Origin, settings: MarkSettings) -> bytes:
    """Return the picture with a manifest that the operator's certificate signs.

    Args:
        picture: a file's bytes.
        mime: of the file.
        origin: who made the pixels.
        settings: certificate, key and algorithm.

    Raises:
        InputError: the certificate cannot be read, or cannot sign.
        MissingExtraError: the extra is not installed.
    """
    try:
        import c2pa
    except ImportError as err:
        raise MissingExtraError("signing needs c2pa", hint="pip install 'mien[c2pa]'") from err
    assert settings.c2pa_certificate is not None
    hint = "give a PEM chain, the key that belongs to it and its algorithm in [marks]"
    try:
        chain = settings.c2pa_certificate.read_bytes()
    except OSError as err:
        raise InputError(f"cannot read the certificate {settings.c2pa_certificate}", hint=hint) from err
    key = settings.c2pa_key.reveal().encode()
    info = c2pa.C2paSignerInfo(settings.c2pa_algorithm, chain, key, settings.c2pa_timestamp_url or None)
    signed = io.BytesIO()
    try:
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(_manifest(origin)) as builder:
            builder.sign(signer, mime, io.BytesIO(picture), signed)
    except c2pa.C2paError as err:  # it may quote the key
        raise InputError(f"the certificate cannot sign: {type(err).__name__}", hint=hint) from None
    return signed.getvalue()
