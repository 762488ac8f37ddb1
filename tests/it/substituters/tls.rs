//! A real nginx with TLS and HTTP/2, and certificates that are not to be
//! trusted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Published;
use super::fetching::Nginx;
use crate::support::{copy_tree, skipped};

fn openssl(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("openssl");
    let output = command
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// An authority, and a certificate of it for a name; gives the authority's.
fn certificate(folder: &Path, name: &str) -> PathBuf {
    let curve = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let authority = [
        "req",
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=test authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
    ];
    openssl(folder, &[&authority[..], &curve].concat());
    let subject = format!("/CN={name}");
    let request = [
        "req",
        "-subj",
        &subject,
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ];
    openssl(folder, &[&request[..], &curve].concat());
    let kind = if name.starts_with(char::is_numeric) {
        "IP"
    } else {
        "DNS"
    };
    let extensions = format!("subjectAltName={kind}:{name}\nbasicConstraints=CA:FALSE\n");
    fs::write(folder.join("extensions"), extensions).unwrap();
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "extensions",
            "-out",
            "server.pem",
        ],
    );
    folder.join("ca.pem")
}

/// An nginx with TLS that has what is published, and the file of its authority.
fn serving(published: &Published, name: &str) -> Option<(Nginx, PathBuf)> {
    let version = Command::new("openssl").arg("version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        skipped("openssl", "openssl is not installed");
        return None;
    }
    let folder = published.env.root().join(format!("tls-{name}"));
    fs::create_dir(&folder).unwrap();
    let authority = certificate(&folder, name);
    let here = folder.display();
    let settings =
        format!("ssl_certificate {here}/server.pem; ssl_certificate_key {here}/server.key;");
    let nginx = Nginx::listening("ssl http2", &settings)?;
    fs::remove_dir(&nginx.root).unwrap();
    copy_tree(&published.cache, &nginx.root);
    Some((nginx, authority))
}

#[test]
fn an_authority_that_is_known_is_enough_and_http_2_is_spoken() {
    let published = Published::new();
    let Some((nginx, authority)) = serving(&published, "127.0.0.1") else {
        return;
    };
    let mut client = published.client(&format!("https://127.0.0.1:{}", nginx.port()));
    client.env = client
        .env
        .with("SSL_CERT_FILE", authority.to_str().unwrap());
    client.assert_all_fetched();
    let requests = nginx.requests();
    assert!(requests.lines().count() > 4, "{requests}");
    let mut lines = requests.lines();
    assert!(
        lines.all(|line| line.starts_with("HTTP/2.0 ")),
        "{requests}"
    );
}

#[test]
fn certificates_that_prove_nothing_cost_a_warning() {
    let published = Published::new();
    // Nobody knows its authority.
    let Some((nginx, _)) = serving(&published, "127.0.0.1") else {
        return;
    };
    let url = format!("https://127.0.0.1:{}", nginx.port());
    let said = published.client(&url).assert_all_built();
    assert!(said.contains("cannot be reached"), "{said}");
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(nginx.requests(), "");

    // It is for another host.
    let Some((nginx, authority)) = serving(&published, "cache.example.org") else {
        return;
    };
    let url = format!("https://127.0.0.1:{}", nginx.port());
    let mut client = published.client(&url);
    client.env = client
        .env
        .with("SSL_CERT_FILE", authority.to_str().unwrap());
    let said = client.assert_all_built();
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(nginx.requests(), "");

    // What speaks no TLS at all.
    let plain = crate::support::Server::new(&published.cache);
    let url = plain.url().replace("http:", "https:");
    let said = published.client(&url).assert_all_built();
    assert!(said.contains("cannot be reached"), "{said}");
}
