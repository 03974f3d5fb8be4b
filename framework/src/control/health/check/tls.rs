//! TLS for HTTPS checks: who is trusted.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};

use super::super::error::Error;
use super::super::target::{Kind, Tls};

/// How to begin TLS. Made whenever a list of targets is set, of what that list needs.
#[derive(Clone, Default)]
pub(in super::super) struct TlsSettings {
    verified: Option<Arc<ClientConfig>>,
    unverified: Option<Arc<ClientConfig>>,
}

impl TlsSettings {
    pub(in super::super) fn of<'a>(kinds: impl Iterator<Item = &'a Kind> + Clone) -> Result<Self, Error> {
        let is_needed = |tls| kinds.clone().any(|kind| matches!(kind, Kind::Http(http) if http.tls == tls));
        let provider = Arc::new(ring::default_provider());
        let mut settings = Self::default();
        if is_needed(Tls::Verified) {
            let roots = roots()?;
            settings.verified = Some(config(&provider, |builder| builder.with_root_certificates(roots))?);
        }
        if is_needed(Tls::Unverified) {
            let anyone = Arc::new(Anyone(provider.clone()));
            settings.unverified = Some(config(&provider, |builder| {
                builder.dangerous().with_custom_certificate_verifier(anyone)
            })?);
        }
        Ok(settings)
    }

    /// A connection to a server of that name; none without TLS.
    pub(in super::super) fn begin(
        &self,
        tls: Tls,
        name: Option<ServerName<'static>>,
        address: std::net::IpAddr,
    ) -> Result<Option<ClientConnection>, String> {
        let (config, name) = match tls {
            Tls::Off => return Ok(None),
            Tls::Verified => (&self.verified, name),
            // A name that no certificate could be for is no hindrance: the address stands in for it.
            Tls::Unverified => {
                (&self.unverified, Some(name.unwrap_or(ServerName::IpAddress(address.into()))))
            }
        };
        let (config, name) = config.clone().zip(name).ok_or("TLS is not set up")?;
        ClientConnection::new(config, name).map(Some).map_err(|error| error.to_string())
    }
}

type Builder<State> = ConfigBuilder<ClientConfig, State>;

fn config(
    provider: &Arc<CryptoProvider>,
    trust: impl FnOnce(Builder<WantsVerifier>) -> Builder<WantsClientCert>,
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(Error::Tls)?;
    let mut config = trust(builder).with_no_client_auth();
    // A session that is resumed shows no certificate: one that has expired since would go unnoticed.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Whom this machine trusts.
fn roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
        return Err(Error::NoRoots(reasons));
    }
    Ok(roots)
}

/// Takes whatever certificate there is, and does not look into it: not even one that cannot be read is
/// refused. What is sent to a server that is checked is no secret.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.0.signature_verification_algorithms.supported_schemes();
        // Old servers have nothing else to offer.
        schemes.extend([SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy]);
        schemes
    }
}
