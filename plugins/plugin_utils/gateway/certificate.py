# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate for trying the gateway: no client trusts it by itself, and it is that of one address."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from typing import Any

DAYS = 3650
AS_TEXT = "the text of a PEM file with the certificate, those that signed it, and the private key"


def certificate_faults(pem: str) -> Iterator[str]:
    """What is wrong with a certificate that somebody gave, without the variable's name; nothing of its text."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        yield f"has no certificate that can be read: give {AS_TEXT}."
        return
    try:
        key = load_pem_private_key(pem.encode(), None)
    except TypeError:
        yield "has a private key with a password, which nobody could type at a start: give it without, and the text from a vault."
        return
    except ValueError:
        yield f"has no private key that can be read: give {AS_TEXT}."
        return
    spki = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
        yield "has another certificate first than that of its private key: put that one first, then those that signed it."
    ends = _end_of(certificate)
    if ends < datetime.datetime.now(datetime.timezone.utc):
        yield f"ended on {ends:%Y-%m-%d}, and no client would take it: get a new one."


def _end_of(certificate: Any) -> datetime.datetime:
    if hasattr(certificate, "not_valid_after_utc"):  # cryptography 42 and later
        found: datetime.datetime = certificate.not_valid_after_utc
        return found
    naive: datetime.datetime = certificate.not_valid_after
    return naive.replace(tzinfo=datetime.timezone.utc)


def self_signed(name: str, address: str) -> str:
    """PEM text of a new certificate for ``address`` and of its private key. ansible-core has the library."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name} (lmfleet.lmdeploy, for trying)")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (certificate.public_bytes(serialization.Encoding.PEM) + private).decode()
