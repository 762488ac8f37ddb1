//! `quickbuild serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::key::own_keys;
use super::{Exit, Failure, Surroundings};
use crate::config::{parse_age, parse_size};
use crate::console;
use crate::environment::Environment;
use crate::publish::Local;
use crate::serve::{self, Limits, Options, Source, TlsFiles, Tokens, parse_tokens, read_tokens};
use crate::trust::PublicKey;

/// Tokens of those who may read.
const READ_TOKENS: &str = "QUICKBUILD_SERVE_READ_TOKENS";
/// Tokens of those who may also write.
const WRITE_TOKENS: &str = "QUICKBUILD_SERVE_WRITE_TOKENS";

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// A published folder; by default, the store is served.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The certificate in PEM, followed by those between it and the root.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Tokens of which one is needed to read, one a line; the variable
    /// QUICKBUILD_SERVE_READ_TOKENS has them apart by spaces.
    #[arg(long, value_name = "FILE")]
    read_tokens: Option<PathBuf>,
    /// Tokens of which one is needed to publish into the folder; the variable is
    /// QUICKBUILD_SERVE_WRITE_TOKENS.
    #[arg(long, value_name = "FILE")]
    write_tokens: Option<PathBuf>,
    /// A public key that must have signed what is published; may be repeated.
    #[arg(
        long = "public-key",
        value_name = "NAME:BASE64",
        conflicts_with = "accept_unsigned"
    )]
    public_keys: Vec<String>,
    /// Let others publish what nobody has signed.
    #[arg(long)]
    accept_unsigned: bool,
    /// Also serve what was compiled on this machine, which names its folders.
    #[arg(long, conflicts_with = "folder")]
    include_local: bool,
    /// Requests a second of one address; 0 for no limit.
    #[arg(long, value_name = "N", default_value = "0")]
    rate: u32,
    /// Connections at the same time.
    #[arg(long, value_name = "N", default_value = "4096")]
    connections: std::num::NonZeroU32,
    /// Bytes that an archive may have that is published here.
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    max_upload: String,
    /// How long requests may still take after SIGINT or SIGTERM.
    #[arg(long, value_name = "AGE", default_value = "30s")]
    grace: String,
    /// Do not write a line for each request on standard output.
    #[arg(long)]
    no_access_log: bool,
}

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: ServeArguments,
) -> Result<ExitCode, Failure> {
    let tokens = tokens(&arguments, &surroundings.environment)?;
    let limits = limits(&arguments)?;
    let source = source(surroundings, &arguments, &tokens)?;
    let tls = arguments.tls_cert.zip(arguments.tls_key);
    let tls = tls.map(|(certificates, key)| TlsFiles { certificates, key });
    let scheme = if tls.is_some() { "https" } else { "http" };
    let what = match &source {
        Source::Store { store, .. } => format!("the store `{}`", store.display()),
        Source::Folder { folder, .. } => format!("`{}`", folder.display()),
    };
    let is_near = arguments.listen.ip().is_loopback();
    if tls.is_none() && !is_near && (tokens.guards_reading() || tokens.allows_writing()) {
        Failure::new("tokens come here without TLS, so that others may read them on their way")
            .hint("`--tls-cert` and `--tls-key`, or a proxy that speaks TLS; quickbuild itself shows no token without it")
            .warn();
    }
    let options = Options {
        listen: arguments.listen,
        source,
        tls,
        tokens,
        limits,
        access_log: !arguments.no_access_log,
    };
    serve::run(options, |address| {
        console::line(&format!(
            "quickbuild: serving {what} at {scheme}://{address}"
        ));
    })?;
    Ok(Exit::Success.into())
}

fn tokens(arguments: &ServeArguments, environment: &Environment) -> Result<Tokens, Failure> {
    let all = |file: &Option<PathBuf>, variable| -> Result<Vec<String>, Failure> {
        let mut all = Vec::new();
        if let Some(path) = file {
            all.extend(read_tokens(path).map_err(|error| {
                Failure::from(error)
                    .hint("`head -c 32 /dev/urandom | base64` makes a token, and `chmod 600` a file of your own")
            })?);
        }
        if let Some(value) = environment.get(variable) {
            all.extend(parse_tokens(value, variable)?);
        }
        Ok(all)
    };
    let mut tokens = Tokens::default();
    tokens.allow_reading(&all(&arguments.read_tokens, READ_TOKENS)?);
    tokens.allow_writing(&all(&arguments.write_tokens, WRITE_TOKENS)?);
    Ok(tokens)
}

fn limits(arguments: &ServeArguments) -> Result<Limits, Failure> {
    let upload = parse_size(&arguments.max_upload).ok_or_else(|| {
        Failure::new(format!("`{}` is not a size", arguments.max_upload)).hint("write `4GiB`")
    })?;
    let grace = parse_age(&arguments.grace).ok_or_else(|| {
        Failure::new(format!("`{}` is not a time", arguments.grace)).hint("write `30s`")
    })?;
    Ok(Limits {
        connections: arguments.connections.get() as usize,
        rate: arguments.rate,
        upload,
        grace: Duration::from_secs(grace),
    })
}

fn source(
    surroundings: &Surroundings,
    arguments: &ServeArguments,
    tokens: &Tokens,
) -> Result<Source, Failure> {
    let keys = arguments.public_keys.iter().map(|text| text.parse());
    let keys: Vec<PublicKey> = keys.collect::<Result<_, _>>()?;
    let Some(folder) = &arguments.folder else {
        if tokens.allows_writing() {
            return Err(
                Failure::new("nobody can publish into a store over HTTP").hint(
                    "serve a folder, `quickbuild serve DIR`, or leave the tokens for writing out",
                ),
            );
        }
        return Ok(Source::Store {
            store: surroundings.config()?.store,
            local: if arguments.include_local {
                Local::Publish
            } else {
                Local::Leave
            },
            keys: own_keys(surroundings),
        });
    };
    if tokens.allows_writing() && keys.is_empty() && !arguments.accept_unsigned {
        return Err(
            Failure::new("nothing says whose outputs may be published here")
                .hint("name the keys with `--public-key NAME:BASE64`, or say `--accept-unsigned`"),
        );
    }
    Ok(Source::Folder {
        folder: surroundings.folder.join(folder),
        keys,
    })
}
