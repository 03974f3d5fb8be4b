//! HTTPS checks.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use afx::control::health::{Check, Checker, Error, Http, Kind, State, Target, Tls};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::http::http;
use super::lab::{SHORT, host, ip, is_up, often, why_down};
use super::namespace::Namespace;
use super::server::{answer, request, serve};

/// Set for this test itself, run once more: which roots are trusted is a matter of the whole process.
const TRUSTED: &str = "AFX_TEST_HTTPS";

fn check(tls: Tls) -> Check {
    often(Kind::Http(Http { port: 443, ..http(tls, &[200..=200]) }))
}

fn named(tls: Tls, host: &str) -> Check {
    let http = Http { port: 443, host: Some(host.to_owned()), ..http(tls, &[200..=200]) };
    often(Kind::Http(http))
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).expect("it is for no host");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("the system has random numbers");
    CertifiedIssuer::self_signed(params, key).expect("the parameters are sound")
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).expect("a sound name")
}

/// A server with that certificate; signed by itself, if by nobody else.
fn serve_tls(host: &Namespace, address: &str, params: CertificateParams, authority: Option<&Authority>) {
    let key = KeyPair::generate().expect("the system has random numbers");
    let certificate = match authority {
        Some(authority) => params.signed_by(&key, authority),
        None => params.self_signed(&key),
    };
    let chain = vec![certificate.expect("the parameters are sound").der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("made just now");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("key and certificate belong together");
    let config = Arc::new(config);
    serve(host, address, move |stream| {
        let connection = ServerConnection::new(config.clone()).expect("the configuration is sound");
        let mut stream = StreamOwned::new(connection, stream);
        if request(&mut stream).starts_with("GET / HTTP/1.1\r\n") {
            // The checker may have gone already.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let _ = stream.flush();
        }
    });
}

#[test]
fn any_certificate_will_do_unless_it_is_verified() {
    let host = host();
    serve_tls(&host, "127.0.0.1:443", params("example.org"), None);
    is_up(&host, "127.0.0.1", check(Tls::Unverified));
    is_up(&host, "127.0.0.1", named(Tls::Unverified, "example.com"));
    is_up(&host, "127.0.0.1", named(Tls::Unverified, "no_name/at_all"));

    let mut expired = params("example.org");
    expired.not_after = date_time_ymd(2001, 1, 1);
    serve_tls(&host, "[::1]:443", expired, None);
    is_up(&host, "::1", check(Tls::Unverified));
}

#[test]
fn a_server_without_tls_is_down() {
    let host = host();
    answer(&host, "127.0.0.1:443", "HTTP/1.1 400 Bad Request\r\n\r\n");
    let why = why_down(&host, "127.0.0.1", Check { timeout: SHORT, ..check(Tls::Unverified) });
    // It waits for the end of a request that it does not understand, or says what is no TLS.
    assert!(why.starts_with("TLS with 127.0.0.1:443: "), "{why}");

    serve(&host, "127.0.0.2:443", |stream| {
        std::thread::park();
        drop(stream);
    });
    let why = why_down(&host, "127.0.0.2", Check { timeout: SHORT, ..check(Tls::Unverified) });
    assert_eq!(why, "TLS with 127.0.0.2:443: no answer within 300 ms");
}

#[test]
fn certificates_are_verified_against_those_that_the_machine_trusts() {
    if let Some(folder) = std::env::var_os(TRUSTED) {
        return verify(Path::new(&folder));
    }
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let roots = folder.path().join("roots.pem");
    for (roots, role) in [(&roots, "verify"), (&folder.path().join("none.pem"), "trust nobody")] {
        std::fs::write(roots, "").expect("the folder is the test's own");
        let test = "https::certificates_are_verified_against_those_that_the_machine_trusts";
        let output = Command::new(std::env::current_exe().expect("this program has a file"))
            .args(["--exact", test, "--nocapture"])
            .env(TRUSTED, folder.path())
            .env("SSL_CERT_FILE", roots)
            .env_remove("SSL_CERT_DIR")
            .output()
            .expect("this program runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{role}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        assert!(printed.contains("1 passed"), "{role}: {printed}");
    }
}

/// In a process that trusts those in the file that `SSL_CERT_FILE` names.
fn verify(folder: &Path) {
    let host = host();
    let file = std::env::var_os("SSL_CERT_FILE").expect("set by the test above");
    let file = Path::new(&file);
    if file.ends_with("none.pem") {
        let checker = host.run(|| Checker::start().expect("the system has threads"));
        let kept = Target { key: 1, address: ip("127.0.0.1"), check: check(Tls::Off), initially: State::Up };
        checker.set(vec![kept.clone()]).expect("without TLS no trust is needed");
        let error = checker.set(vec![Target { key: 2, check: check(Tls::Verified), ..kept }]);
        assert!(matches!(error, Err(Error::NoRoots(_))), "{error:?}");
        assert_eq!(checker.states()[0].key, 1, "what was set before stays");
        return;
    }
    assert!(file.starts_with(folder));
    let trusted = authority("trusted");
    std::fs::write(file, trusted.pem()).expect("the folder is the test's own");

    serve_tls(&host, "127.0.0.1:443", params("example.org"), Some(&trusted));
    is_up(&host, "127.0.0.1", named(Tls::Verified, "example.org"));
    is_up(&host, "127.0.0.1", named(Tls::Verified, "example.org:443"));
    let refusal = "TLS with 127.0.0.1:443: invalid peer certificate: ";
    for check in [named(Tls::Verified, "example.com"), check(Tls::Verified)] {
        let why = why_down(&host, "127.0.0.1", check);
        assert!(why.starts_with(&format!("{refusal}certificate not valid for name")), "{why}");
    }

    serve_tls(&host, "[::1]:443", params("::1"), Some(&trusted));
    is_up(&host, "::1", check(Tls::Verified));

    serve_tls(&host, "127.0.0.2:443", params("127.0.0.2"), None);
    let why = why_down(&host, "127.0.0.2", check(Tls::Verified));
    assert!(why.starts_with("TLS with 127.0.0.2:443: invalid peer certificate: "), "{why}");

    serve_tls(&host, "127.0.0.3:443", params("127.0.0.3"), Some(&authority("other")));
    let why = why_down(&host, "127.0.0.3", check(Tls::Verified));
    assert!(why.ends_with("UnknownIssuer"), "{why}");

    let mut expired = params("127.0.0.4");
    expired.not_after = date_time_ymd(2001, 1, 1);
    serve_tls(&host, "127.0.0.4:443", expired, Some(&trusted));
    let why = why_down(&host, "127.0.0.4", check(Tls::Verified));
    assert!(why.contains("certificate expired"), "{why}");
}
