//! `quickbuild service`

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::arguments::Format;
use super::terminal::{print_json, print_line};
use super::{Exit, Failure, Surroundings};
use crate::builder::image::definitions;
use crate::config::{parse_age, parse_size};
use crate::console;
use crate::output::provenance::Timestamp;
use crate::serve::TlsFiles;
use crate::service::access::{self, Scope};
use crate::service::database::Location;
use crate::service::{self, Limits, Options, Publishing, Rules, ServiceError};
use crate::substituter::Substituter;

/// The database's URL; it may have a password, which no command line should.
const DATABASE: &str = "QUICKBUILD_SERVICE_DATABASE";

/// The shortest lease.
const SHORTEST: Duration = Duration::from_secs(5);

/// Arguments of `service`.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub(super) struct ServiceArguments {
    #[command(subcommand)]
    command: Option<ServiceCommand>,
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// The service's folder; it has the database unless
    /// QUICKBUILD_SERVICE_DATABASE names a PostgreSQL (`postgres://…`).
    #[arg(long, value_name = "DIR", default_value = "service", global = true)]
    data: PathBuf,
    /// The certificate in PEM, followed by those between it and the root.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The address of a proxy whose `X-Forwarded-For` is believed; may be repeated.
    #[arg(long = "proxy", value_name = "IP")]
    proxies: Vec<IpAddr>,
    /// Requests a second of one address; 0 for no limit.
    #[arg(long, value_name = "N", default_value = "20")]
    rate: u32,
    /// Connections at the same time.
    #[arg(long, value_name = "N", default_value = "4096")]
    connections: std::num::NonZeroU32,
    /// Bytes that a report may have.
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    max_report: String,
    /// How long a report may take to come.
    #[arg(long, value_name = "AGE", default_value = "30s")]
    patience: String,
    /// How long requests may still take after SIGINT or SIGTERM.
    #[arg(long, value_name = "AGE", default_value = "30s")]
    grace: String,
    /// How many must want a recipe before it is built. Of what follows such a one, a
    /// new release or a new rustc, one report is enough.
    #[arg(long, value_name = "N", default_value = "3")]
    threshold: std::num::NonZeroU32,
    /// The key that signs what workers build: a name, or a file; without one,
    /// nothing is built.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The substituter to publish in: a folder, `s3://…` and others that `push`
    /// knows; `public` in the service's folder by default.
    #[arg(long, value_name = "URL")]
    publish: Option<String>,
    /// How long builders may work a day, all together.
    #[arg(long, value_name = "AGE")]
    budget: Option<String>,
    /// After how long a worker is given up of which nothing is heard.
    #[arg(long, value_name = "AGE", default_value = "2m")]
    lease: String,
    /// When a build that failed is tried again; four times as long after each
    /// further failure, and after the fifth in seven days it rests.
    #[arg(long, value_name = "AGE", default_value = "1m")]
    retry: String,
    /// Bytes that the outputs of a build may have.
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    max_outputs: String,
    /// Do not write a line of JSON for each request on standard output.
    #[arg(long)]
    no_access_log: bool,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Make the database's tables, or bring them up to date.
    #[command(
        after_help = "Example: QUICKBUILD_SERVICE_DATABASE=postgres://quickbuild@db/quickbuild quickbuild service migrate"
    )]
    Migrate,
    /// Copy the SQLite database to a new file, while the service goes on.
    #[command(
        after_help = "Example: quickbuild service backup --data /var/lib/quickbuild backup.sqlite\n\nA service whose folder has the copy as `service.sqlite` goes on from there. PostgreSQL has `pg_dump`."
    )]
    Backup {
        /// The new file.
        file: PathBuf,
    },
    /// Tokens of clients.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it, for the only time.
    #[command(after_help = "Example: quickbuild service token add ci --scope report --expires 90d")]
    Add {
        /// A name: letters, digits, `-`, `_` and `.`.
        name: String,
        /// What it is for: `report`, `work` (what is built counts when another worker has built the same), `work-trusted` (what is built is believed), `admin` (trying builds again, cancelling them, naming toolchains). May be repeated.
        #[arg(long = "scope", required = true)]
        scopes: Vec<Scope>,
        /// For how long it counts.
        #[arg(long, value_name = "AGE", default_value = "90d")]
        expires: String,
    },
    /// List tokens.
    #[command(after_help = "Example: quickbuild service token list --format json")]
    List {
        /// How to print them.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Make a token count no more.
    #[command(after_help = "Example: quickbuild service token revoke ci")]
    Revoke {
        /// Its name.
        name: String,
    },
}

pub(super) fn run(
    surroundings: &Surroundings,
    arguments: ServiceArguments,
) -> Result<ExitCode, Failure> {
    let data = surroundings.folder.join(&arguments.data);
    let url = surroundings.environment.get(DATABASE);
    let database = Location::new(url.filter(|url| !url.is_empty()), &data).map_err(|error| {
        Failure::from(error).hint(format!(
            "`{DATABASE}` is for PostgreSQL; leave it out for SQLite"
        ))
    })?;
    match arguments.command {
        Some(ServiceCommand::Migrate) => return migrate(&data, &database),
        Some(ServiceCommand::Backup { file }) => {
            return back_up(&database, &surroundings.folder.join(file));
        }
        Some(ServiceCommand::Token(command)) => return token(&data, &database, command),
        None => {}
    }
    let limits = limits(&arguments)?;
    let rules = rules(&arguments)?;
    let publishing = Arc::new(publishing(surroundings, &arguments, &data)?);
    let tls = arguments.tls_cert.zip(arguments.tls_key);
    let tls = tls.map(|(certificates, key)| TlsFiles { certificates, key });
    let scheme = if tls.is_some() { "https" } else { "http" };
    if tls.is_none() && !arguments.listen.ip().is_loopback() && arguments.proxies.is_empty() {
        Failure::new("tokens come here without TLS, so that others may read them on their way")
            .hint("`--tls-cert` and `--tls-key`, or a proxy that speaks TLS, named by `--proxy`")
            .warn();
    }
    let options = Options {
        listen: arguments.listen,
        tls,
        data,
        database,
        rules,
        publishing,
        proxies: arguments.proxies,
        limits,
        access_log: !arguments.no_access_log,
    };
    let started = |address| {
        console::line(&format!(
            "quickbuild: the service is at {scheme}://{address}"
        ));
    };
    service::run(options, started).map_err(failure)?;
    Ok(Exit::Success.into())
}

fn failure(error: ServiceError) -> Failure {
    let is_old = matches!(
        &error,
        ServiceError::Database(service::database::DatabaseError::Older { .. })
    );
    let failure = Failure::from(error);
    if is_old {
        return failure.hint("`quickbuild service migrate` changes the tables; back up first");
    }
    failure
}

fn age(text: &str) -> Result<Duration, Failure> {
    let seconds = parse_age(text)
        .ok_or_else(|| Failure::new(format!("`{text}` is not a time")).hint("write `30s`"));
    seconds.map(Duration::from_secs)
}

fn rules(arguments: &ServiceArguments) -> Result<Rules, Failure> {
    let budget = arguments.budget.as_deref().map(age).transpose()?;
    let lease = age(&arguments.lease)?;
    if lease < SHORTEST {
        return Err(Failure::new("a lease is at least five seconds")
            .hint("workers tell that they live four times within it"));
    }
    let upload = parse_size(&arguments.max_outputs).ok_or_else(|| {
        Failure::new(format!("`{}` is not a size", arguments.max_outputs)).hint("write `4GiB`")
    })?;
    Ok(Rules {
        threshold: arguments.threshold.get(),
        budget: budget.map(|budget| budget.as_secs()),
        lease,
        retry: age(&arguments.retry)?,
        upload,
        ..Rules::default()
    })
}

/// Where outputs go, and what they must be.
fn publishing(
    surroundings: &Surroundings,
    arguments: &ServiceArguments,
    data: &std::path::Path,
) -> Result<Publishing, Failure> {
    let config = surroundings.config()?;
    let to = match &arguments.publish {
        Some(url) => surroundings.substituter(&config, url)?,
        None => {
            let folder = data.join("public");
            crate::fs::create_private_dir_all(data)?;
            crate::fs::create_dir_all(&folder)?;
            Substituter::folder(&folder)?
        }
    };
    let key = arguments.key.as_deref();
    let key = key
        .map(|name| super::key::read(surroundings, name))
        .transpose()?;
    let images = config.builders.iter().filter_map(|(name, settings)| {
        let digest = settings.image.as_ref()?.digest.strip_prefix("sha256:")?;
        Some((name.clone(), digest.parse().ok()?))
    });
    let project = crate::config::project_file(&surroundings.folder);
    Ok(Publishing {
        to,
        key,
        images: images.collect(),
        definitions: definitions(project.as_deref().and_then(std::path::Path::parent))?,
    })
}

fn limits(arguments: &ServiceArguments) -> Result<Limits, Failure> {
    let body = parse_size(&arguments.max_report).and_then(|size| usize::try_from(size).ok());
    let body = body.ok_or_else(|| {
        Failure::new(format!("`{}` is not a size", arguments.max_report)).hint("write `4MiB`")
    })?;
    Ok(Limits {
        connections: arguments.connections.get() as usize,
        rate: arguments.rate,
        body,
        patience: age(&arguments.patience)?,
        grace: age(&arguments.grace)?,
    })
}

fn migrate(data: &std::path::Path, location: &Location) -> Result<ExitCode, Failure> {
    crate::fs::create_private_dir_all(data)?;
    let before = service::runtime()?.block_on(async { service::migrate(location).await })?;
    let now = service::VERSION;
    let said = match before {
        0 => format!("the tables are made, in version {now}"),
        _ if before == now => format!("the tables have version {now} already"),
        _ => format!("the tables are brought from version {before} to {now}"),
    };
    print_line(&format!("quickbuild: {said}"));
    Ok(Exit::Success.into())
}

fn back_up(location: &Location, file: &std::path::Path) -> Result<ExitCode, Failure> {
    let copied = service::runtime()?.block_on(service::back_up(location, file));
    copied.map_err(|error| match error {
        service::database::DatabaseError::NotAFile => {
            Failure::from(error).hint("docs/service.md has the commands")
        }
        _ => Failure::from(error),
    })?;
    print_line(&format!(
        "quickbuild: the database is copied to `{}`",
        file.display()
    ));
    Ok(Exit::Success.into())
}

fn token(
    data: &std::path::Path,
    location: &Location,
    command: TokenCommand,
) -> Result<ExitCode, Failure> {
    let runtime = service::runtime()?;
    let database = runtime
        .block_on(service::open(data, location))
        .map_err(failure)?;
    let exit = match command {
        TokenCommand::Add {
            name,
            scopes,
            expires,
        } => {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(is_allowed) {
                return Err(Failure::new(format!("`{name}` is no name of a token"))
                    .hint("use up to 64 letters, digits, `-`, `_` and `.`"));
            }
            let seconds = parse_age(&expires).ok_or_else(|| {
                Failure::new(format!("`{expires}` is not a time")).hint("write `90d`")
            })?;
            let made = access::add_token(&database, &name, &scopes, seconds);
            print_line(&runtime.block_on(made).map_err(|error| {
                Failure::from(error).hint("a name is for one token; `token list` has them all")
            })?);
            Exit::Success
        }
        TokenCommand::List { format } => {
            list(&runtime.block_on(access::list_tokens(&database))?, format);
            Exit::Success
        }
        TokenCommand::Revoke { name } => {
            if !runtime.block_on(access::revoke_token(&database, &name))? {
                return Err(Failure::new(format!("there is no token `{name}`")));
            }
            Exit::Success
        }
    };
    runtime.block_on(database.close());
    Ok(exit.into())
}

fn list(tokens: &[access::Listed], format: Format) {
    let time = |seconds| Timestamp::from_seconds(seconds).map(|time| time.to_string());
    if format == Format::Json {
        let listed = tokens.iter().map(|token| {
            serde_json::json!({
                "name": token.name,
                "scopes": token.scopes.split(' ').collect::<Vec<_>>(),
                "since": time(token.since),
                "until": time(token.until),
            })
        });
        print_json(&listed.collect::<Vec<_>>());
        return;
    }
    for token in tokens {
        let until = time(token.until).unwrap_or_default();
        print_line(&format!("{}\t{}\tuntil {until}", token.name, token.scopes));
    }
}
