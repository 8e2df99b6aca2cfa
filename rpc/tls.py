"""Credentials that follow their files, for a server and for a caller.

A certificate is renewed by replacing files, as cert-manager and Kubernetes do. A
server is asked by gRPC before each handshake; the answer costs three `stat` calls
until one of the files changes. A caller reads its files for each connection.
"""

import math
import ssl
from pathlib import Path

import grpc
import structlog
from cryptography import x509

_log = structlog.stdlib.get_logger(__name__)


class CertificateFiles:
    """Certificate chain, private key and, for mutual TLS, the clients' authorities."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._seen = self._stamp()
        self._first = self._read()

    def expires_at(self) -> float:
        """Returns when the first certificate of the chain in the file expires, in Unix time.

        NaN while there is no such file, or none that can be read.
        """
        try:
            chain = x509.load_pem_x509_certificates(self._certificate.read_bytes())
        except (OSError, ValueError):
            return math.nan
        return min(each.not_valid_after_utc.timestamp() for each in chain)

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


class CallerFiles:
    """What a caller trusts and shows: authorities and, for mutual TLS, its own certificate."""

    def __init__(self, authority: Path, certificate: Path | None, key: Path | None) -> None:
        """Takes the files. Nothing is read yet.

        Args:
            authority: authorities that sign the server's certificate.
            certificate: the caller's chain, or None.
            key: private key of `certificate`.
        """
        self._authority = authority
        self._certificate = certificate
        self._key = key
        self._last: grpc.ChannelCredentials | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Creates credentials of the files as they are now, for one connection.

        While files are missing or do not fit together, for example when only one of
        them has been written yet, the previous credentials stay in use.

        Raises:
            OSError: a file cannot be read, and never could.
            ssl.SSLError: the files do not fit together, and never did.
        """
        try:
            self._last = self._read()
        except (OSError, ssl.SSLError) as error:
            path = self._certificate or self._authority
            _log.error("certificate not usable", path=str(path), reason=str(error))
            if self._last is None:
                raise
        return self._last

    def _read(self) -> grpc.ChannelCredentials:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self._authority)
        if self._certificate is None or self._key is None:
            return grpc.ssl_channel_credentials(self._authority.read_bytes())
        context.load_cert_chain(self._certificate, self._key)
        return grpc.ssl_channel_credentials(
            self._authority.read_bytes(), self._key.read_bytes(), self._certificate.read_bytes()
        )
