//! Requests, and who answers them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, MatchedPath, Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tower_service::Service as _;

use super::access::{self, Holder, Scope};
use super::answer::{self, Handled, Refusal};
use super::body::{Bodies, Coding, Held};
use super::builds::{Builds, board};
use super::counter::{Counter, Submission};
use super::database::Database;
use super::intake::{Intake, IntakeError, Kind};
use super::journal::{self, Journal, family, sample};
use super::{Limits, Options, Publishing};
use super::{admin, coverage, dashboard, demand, work};
use crate::serve::connections::{Application, Incoming};
use crate::serve::rate::Rates;

/// Reports that are taken apart at the same time.
const AT_WORK: usize = 8;
/// Things that are looked at for pages at the same time.
const LOOKS: usize = 4;
/// How long a page waits for what is looked at for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Browsers that are told how builds go on.
const WATCHED: usize = 256;
/// Things that one answer lists at most.
pub(super) const LISTED: u32 = 1_000;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What requests share.
pub(super) struct App {
    pub(super) is_stopping: AtomicBool,
    pub(super) builds: Builds,
    counter: Counter,
    secret: String,
    proxies: Vec<IpAddr>,
    rates: Rates,
    bodies: Bodies,
    at_work: Semaphore,
    looks: Arc<Semaphore>,
    /// Where outputs are published, and by whom.
    pub(super) publishing: Arc<Publishing>,
    /// Who looks on while something is built.
    pub(super) watched: Arc<Semaphore>,
    pub(super) journal: Journal,
    router: std::sync::OnceLock<Router>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
struct Asking(IpAddr);

impl App {
    pub(super) fn new(
        options: &Options,
        builds: Builds,
        counter: Counter,
        secret: String,
    ) -> Arc<Self> {
        let Limits {
            rate,
            body,
            patience,
            ..
        } = options.limits;
        Arc::new(Self {
            is_stopping: AtomicBool::new(false),
            builds,
            counter,
            secret,
            proxies: options.proxies.clone(),
            rates: Rates::new(rate),
            bodies: Bodies::new(body, patience),
            at_work: Semaphore::new(AT_WORK),
            looks: Arc::new(Semaphore::new(LOOKS)),
            publishing: Arc::clone(&options.publishing),
            watched: Arc::new(Semaphore::new(WATCHED)),
            journal: Journal::new(options.access_log),
            router: std::sync::OnceLock::new(),
        })
    }

    /// Who asks, as the nearest proxy that is believed says.
    fn asking(&self, from: IpAddr, headers: &HeaderMap) -> IpAddr {
        let said = headers.get_all(FORWARDED).iter();
        let said = said.filter_map(|value| value.to_str().ok());
        let hops = said.flat_map(|value| value.split(','));
        let mut hops: Vec<IpAddr> = hops.flat_map(|hop| hop.trim().parse()).collect();
        let mut asking = from.to_canonical();
        while self.proxies.contains(&asking)
            && let Some(before) = hops.pop()
        {
            asking = before.to_canonical();
        }
        asking
    }

    pub(super) fn database(&self) -> &Database {
        self.builds.database()
    }

    /// All of a body, within bounds.
    pub(super) async fn receive(&self, body: Body) -> Result<Held<'_>, Refusal> {
        self.bodies.receive(body).await
    }

    /// Takes something apart in a thread, a few at the same time.
    pub(super) async fn read(
        &self,
        work: impl FnOnce() -> Result<Intake, IntakeError> + Send + 'static,
    ) -> Result<Intake, Refusal> {
        let permit = self.at_work.acquire().await;
        let read = tokio::task::spawn_blocking(work).await;
        drop(permit);
        match read {
            Ok(Ok(intake)) => Ok(intake),
            Ok(Err(error)) => {
                self.journal.count("refused");
                Err(error.into())
            }
            // It has panicked, which is a fault of ours.
            Err(_panic) => {
                let text = "the service could not read that";
                Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text))
            }
        }
    }

    /// Looks at something for a page in a thread, a few at the same time; none
    /// where it takes too long. Whoever goes on looking keeps others from it.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let until = tokio::time::Instant::now() + PATIENCE;
        let permit = Arc::clone(&self.looks).acquire_owned();
        let permit = timeout_at(until, permit).await.ok()?.ok()?;
        let looked = tokio::task::spawn_blocking(move || {
            let _held = permit;
            work()
        });
        timeout_at(until, looked).await.ok()?.ok()
    }

    /// Whose token is shown; none if none is.
    pub(super) async fn holder(&self, headers: &HeaderMap) -> Result<Option<Holder>, Refusal> {
        let Some(shown) = headers.get(AUTHORIZATION) else {
            return Ok(None);
        };
        let unknown = || {
            let text = "this token is not known here, or counts no more";
            Refusal::new(StatusCode::UNAUTHORIZED, text)
        };
        let shown = shown.to_str().map_err(|_not_ascii| unknown())?;
        let (scheme, token) = shown.split_once(' ').ok_or_else(unknown)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unknown());
        }
        let holder = access::holder(self.database(), token.trim()).await?;
        Ok(Some(holder.ok_or_else(unknown)?))
    }
}

impl Application for App {
    type Body = Body;

    async fn respond(self: Arc<Self>, request: Request<Incoming>, from: IpAddr) -> Response<Body> {
        let mut router = self.router.get_or_init(|| router(&self)).clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Asking(from));
        match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn connected(&self) {
        self.journal.connection(1);
    }

    fn disconnected(&self) {
        self.journal.connection(-1);
    }
}

fn router(app: &Arc<App>) -> Router {
    // Weak, since the application holds the router.
    let weak = Arc::downgrade(app);
    let app = Shared(weak);
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/lockfiles", post(lockfiles))
        .route("/v1/wants", get(wants))
        .route("/v1/wants/{hash}", get(want))
        .route("/v1/totals", get(totals))
        .route("/v1/coverage", get(covered))
        .route("/v1/openapi.json", get(described))
        .merge(work::routes())
        .merge(admin::routes())
        .merge(dashboard::routes())
        .fallback(async || Refusal::absent().into_response())
        .method_not_allowed_fallback(async || {
            let text = "this path takes no such method";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text).into_response()
        })
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// The application, as handlers have it.
#[derive(Clone)]
pub(super) struct Shared(std::sync::Weak<App>);

impl Shared {
    pub(super) fn app(&self) -> Arc<App> {
        self.0
            .upgrade()
            .expect("whoever answers holds the application")
    }
}

/// What is done around every request.
async fn around(
    State(shared): State<Shared>,
    Extension(Asking(from)): Extension<Asking>,
    mut request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let begin = Instant::now();
    let app = shared.app();
    let from = app.asking(from, request.headers());
    request.extensions_mut().insert(Asking(from));
    let id = request_id(request.headers());
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    // Whoever looks after the service is never sent away.
    let is_watch = matches!(&*route, "/healthz" | "/readyz");
    let pause = match is_watch {
        true => Ok(()),
        false => app.rates.take(from, begin),
    };
    let mut response = match pause {
        Ok(()) => next.run(request).await,
        Err(pause) => {
            app.journal.count("limited");
            let text = "too many requests; wait a moment";
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, text);
            refusal
                .again(pause.as_secs_f64().ceil() as u64)
                .into_response()
        }
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    let no_sniff = HeaderName::from_static("x-content-type-options");
    headers.insert(no_sniff, HeaderValue::from_static("nosniff"));
    app.journal.note(journal::Request {
        id,
        from,
        method,
        path,
        route,
        status: response.status().as_u16(),
        took: begin.elapsed(),
    });
    response
}

/// The id that somebody before us gave a request, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_id = |id: &&str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (8..=64).contains(&id.len()) && id.bytes().all(is_allowed)
    };
    if let Some(id) = given.filter(is_id) {
        return id.to_owned();
    }
    format!("{:016x}", getrandom::u64().unwrap_or_default())
}

async fn healthy() -> Response<Body> {
    answer::line(StatusCode::OK, "ok")
}

async fn ready(State(shared): State<Shared>) -> Response<Body> {
    let app = shared.app();
    if app.is_stopping.load(Ordering::Relaxed) {
        return answer::line(StatusCode::SERVICE_UNAVAILABLE, "stopping");
    }
    match app.database().check().await {
        Ok(()) => answer::line(StatusCode::OK, "ready"),
        Err(_error) => answer::line(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer",
        ),
    }
}

async fn metrics(State(shared): State<Shared>) -> Handled {
    let app = shared.app();
    let totals = demand::totals(app.database()).await?;
    let mut text = app.journal.text();
    let help = "Trees, recipes and builders that somebody ever wanted.";
    family(&mut text, "wants", "gauge", help);
    sample(&mut text, "wants", "", &totals.wants);
    family(
        &mut text,
        "voices",
        "gauge",
        "Clients and projects that were counted.",
    );
    sample(&mut text, "voices", "", &totals.voices);
    let builds = board::overview(app.database()).await?;
    family(&mut text, "builds", "gauge", "Builds, by their state.");
    for (state, count) in [
        ("queued", builds.queued),
        ("leased", builds.leased),
        ("built", builds.built),
        ("resting", builds.resting),
        ("refused", builds.refused),
    ] {
        sample(
            &mut text,
            "builds",
            &format!("{{state=\"{state}\"}}"),
            &count,
        );
    }
    let help = "Bytes of outputs that are published.";
    family(&mut text, "published_bytes", "gauge", help);
    sample(&mut text, "published_bytes", "", &builds.bytes);
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// What follows a path's `?`, if it can be read.
pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) fn asked<T>(query: Asked<T>) -> Result<T, Refusal> {
    match query {
        Ok(Query(asked)) => Ok(asked),
        Err(wrong) => Err(Refusal::new(StatusCode::BAD_REQUEST, wrong.body_text())),
    }
}

#[derive(Deserialize)]
struct Project {
    project: Option<String>,
}

/// Takes a report.
async fn lockfiles(
    State(shared): State<Shared>,
    Extension(Asking(from)): Extension<Asking>,
    project: Asked<Project>,
    request: Request<Body>,
) -> Handled {
    let app = shared.app();
    let Project { project } = asked(project)?;
    let (head, body) = request.into_parts();
    let holder = app.holder(&head.headers).await?;
    if holder
        .as_ref()
        .is_some_and(|holder| !holder.may(Scope::Report))
    {
        let text = "this token is not for reports";
        return Err(Refusal::new(StatusCode::FORBIDDEN, text));
    }
    let coding = Coding::of(&head.headers)?;
    let held = app.receive(body).await?;
    let kind = head.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let (bytes, limit) = (held.bytes, app.bodies.limit);
    let read = app.read(move || {
        let bytes = coding.unpack(bytes, limit)?;
        match &*kind {
            "application/json" => Intake::of_report(&bytes),
            _ => Intake::of_lock(&bytes, project.as_deref()),
        }
    });
    let intake = read.await?;
    let (wants, left_out) = (intake.wants.len(), intake.left_out);
    let voice = access::voice(&app.secret, holder.as_ref(), from, &intake.project);
    let counted = app.counter.count(Submission { voice, intake }).await?;
    app.journal.count(if counted.is_new {
        "counted"
    } else {
        "unchanged"
    });
    Ok(answer::json(&json!({
        "counted": counted.is_new,
        "usage-counted": counted.usage,
        "wants": wants,
        "left-out": left_out,
    })))
}

#[derive(Deserialize)]
struct Choice {
    kind: Option<String>,
    package: Option<String>,
    limit: Option<u32>,
}

async fn wants(State(shared): State<Shared>, choice: Asked<Choice>) -> Handled {
    let app = shared.app();
    let choice = asked(choice)?;
    let limit = choice.limit.unwrap_or(50).min(LISTED);
    let kind = Kind::named(choice.kind.as_deref().unwrap_or("tree"));
    let found = match &choice.package {
        Some(name) if !is_word(name) => Vec::new(),
        Some(name) => demand::of_package(app.database(), name, limit).await?,
        None => match kind {
            Some(kind) => demand::top(app.database(), kind, limit).await?,
            None => Vec::new(),
        },
    };
    Ok(answer::json(&json!({ "wants": found })))
}

/// Whether text could be a name or a hash; whatever else it is, there is none.
pub(super) fn is_word(text: &str) -> bool {
    text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

async fn want(State(shared): State<Shared>, Path(hash): Path<String>) -> Handled {
    if !is_word(&hash) {
        return Err(Refusal::absent());
    }
    let found = demand::detail(shared.app().database(), &hash).await?;
    Ok(answer::json(&found.ok_or_else(Refusal::absent)?))
}

/// The API as OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("../../docs/openapi.json");

async fn described() -> Response<Body> {
    answer::document(DESCRIPTION, "application/json")
}

async fn totals(State(shared): State<Shared>) -> Handled {
    let app = shared.app();
    Ok(answer::json(&demand::totals(app.database()).await?))
}

async fn covered(State(shared): State<Shared>) -> Handled {
    let app = shared.app();
    let totals = demand::totals(app.database()).await?;
    let days = coverage::days(app.database(), &totals.days).await?;
    Ok(answer::json(&json!({ "days": days })))
}
