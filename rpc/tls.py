"""Server credentials that follow their files.

A certificate is renewed by replacing files, as cert-manager and Kubernetes do.
gRPC asks before each handshake; the answer costs three `stat` calls until one of
the files changes.
"""

import ssl
from pathlib import Path

import grpc
import structlog

_log = structlog.stdlib.get_logger(__name__)


class CertificateFiles:
    """Certificate chain, private key and, for mutual TLS, the clients' authorities."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._seen = self._stamp()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Creates credentials that use the files as they are at each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._changed,  # type: ignore[arg-type]  # the stubs forget that None means unchanged
            require_client_authentication=self._client_ca is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Reads the files when they changed. None keeps what is in use.

        Called by a thread of gRPC. Files that are gone or do not fit together, as
        when only one of them is written yet, are tried again at the next handshake.
        """
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return None
            configuration = self._read()
        except (OSError, ssl.SSLError) as error:
            _log.error("certificate not usable", path=str(self._certificate), reason=str(error))
            return None
        self._seen = stamp
        _log.info("certificate changed", path=str(self._certificate))
        return configuration

    def _read(self) -> grpc.ServerCertificateConfiguration:
        """Raises OSError or ssl.SSLError when the files cannot serve."""
        self._check()
        return grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._certificate.read_bytes())],
            root_certificates=self._client_ca.read_bytes() if self._client_ca else None,
        )

    def _check(self) -> None:
        # gRPC would accept a key of another certificate and fail every handshake.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, self._key)
        if self._client_ca:
            context.load_verify_locations(self._client_ca)

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        paths = (self._certificate, self._key, self._client_ca)
        stats = [path.stat() for path in paths if path is not None]
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in stats)
