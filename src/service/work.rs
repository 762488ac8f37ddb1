//! What workers ask.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{get, post, put};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::access::{Holder, Scope};
use super::answer::{self, Handled, Refusal};
use super::builds::accept::AcceptError;
use super::builds::board;
use super::builds::lease::Leased;
use super::builds::plans::PlanError;
use super::web::{App, Asked, LISTED, Shared, asked, is_word};
use crate::console;
use crate::report::work::{Alive, Ask, Failed, Planned, WORK_FORMAT};

/// Seconds within which a worker must have asked to be listed.
const LATELY: i64 = 86_400;
/// Builders that a worker may name.
const BUILDERS: usize = 32;
/// Characters of a name.
const NAME: usize = 96;
/// Characters of a reason.
const REASON: usize = 2_000;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/work", post(lease))
        .route("/v1/trees", post(tree))
        .route("/v1/trees/{tree}", post(planned))
        .route("/v1/work/{lease}/alive", post(alive))
        .route("/v1/work/{lease}/failed", post(failed))
        .route("/v1/work/{lease}/outputs", put(outputs))
        .route("/v1/builds", get(builds))
        .route("/v1/builds/{id}", get(build))
        .route("/v1/workers", get(workers))
}

/// A worker, by its token.
async fn worker(app: &App, headers: &HeaderMap) -> Result<Holder, Refusal> {
    let holder = app.holder(headers).await?.ok_or_else(|| {
        let text = "work is for who shows a token; `quickbuild service token add` makes one";
        Refusal::new(StatusCode::UNAUTHORIZED, text)
    })?;
    if holder.may(Scope::Work) || holder.may(Scope::WorkTrusted) {
        return Ok(holder);
    }
    let text = "this token is not for work";
    Err(Refusal::new(StatusCode::FORBIDDEN, text))
}

/// JSON of a body, within its bounds.
pub(super) async fn read<T: DeserializeOwned>(app: &App, body: Body) -> Result<T, Refusal> {
    let held = app.receive(body).await?;
    serde_json::from_slice(&held.bytes)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error))
}

/// The lease that the worker holds, and what it sends.
async fn leased(app: &App, lease: &str, request: Request) -> Result<(Leased, Body), Refusal> {
    let (head, body) = request.into_parts();
    let holder = worker(app, &head.headers).await?;
    let leased = app.builds.leased(lease, &holder).await?;
    Ok((leased.ok_or_else(lost)?, body))
}

fn lost() -> Refusal {
    let text = "this lease counts no more; another worker has the build, or it is done";
    Refusal::new(StatusCode::CONFLICT, text)
}

/// What a worker has, if it is made of names.
async fn asking(app: &App, body: Body) -> Result<Ask, Refusal> {
    let ask: Ask = read(app, body).await?;
    if ask.format != WORK_FORMAT {
        let text = format!("format {} is not known, only {WORK_FORMAT} is", ask.format);
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let is_name = |name: &String| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        (1..=NAME).contains(&name.len()) && name.bytes().all(is_allowed)
    };
    if !is_name(&ask.worker) || ask.builders.len() > BUILDERS || !ask.builders.iter().all(is_name) {
        let text = "names are made of up to 96 letters, digits and `-_.+`";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    Ok(ask)
}

async fn lease(State(shared): State<Shared>, request: Request) -> Handled {
    let app = shared.app();
    let (head, body) = request.into_parts();
    let holder = worker(&app, &head.headers).await?;
    let ask = asking(&app, body).await?;
    match app.builds.lease(&ask, &holder).await? {
        Some(job) => {
            app.journal.count("leased");
            Ok(answer::json(&job))
        }
        None => Ok(nothing()),
    }
}

fn nothing() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

async fn tree(State(shared): State<Shared>, request: Request) -> Handled {
    let app = shared.app();
    let (head, body) = request.into_parts();
    let _ = worker(&app, &head.headers).await?;
    let ask = asking(&app, body).await?;
    match app.builds.tree(&ask).await? {
        Some(tree) => Ok(answer::json(&tree)),
        None => Ok(nothing()),
    }
}

async fn planned(
    State(shared): State<Shared>,
    Path(tree): Path<String>,
    request: Request,
) -> Handled {
    let app = shared.app();
    let (head, body) = request.into_parts();
    let _ = worker(&app, &head.headers).await?;
    let mut planned: Planned = read(&app, body).await?;
    planned.reason = planned.reason.chars().take(REASON).collect();
    match app.builds.planned(&tree, planned).await {
        Ok(()) => Ok(nothing()),
        Err(PlanError::Database(error)) => Err(Refusal::failure(&error)),
        Err(error @ PlanError::Unwanted) => Err(Refusal::new(StatusCode::CONFLICT, error)),
        Err(error @ PlanError::Refused(_)) => {
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error))
        }
        Err(error @ PlanError::Task(_)) => {
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))
        }
    }
}

async fn alive(
    State(shared): State<Shared>,
    Path(lease): Path<String>,
    request: Request,
) -> Handled {
    let app = shared.app();
    let (leased, body) = leased(&app, &lease, request).await?;
    let alive: Alive = read(&app, body).await?;
    app.builds.alive(&leased, &alive.log).await?;
    Ok(nothing())
}

async fn failed(
    State(shared): State<Shared>,
    Path(lease): Path<String>,
    request: Request,
) -> Handled {
    let app = shared.app();
    let (leased, body) = leased(&app, &lease, request).await?;
    let mut failed: Failed = read(&app, body).await?;
    failed.reason = failed.reason.chars().take(REASON).collect();
    app.builds.failed(&leased, &failed).await?;
    app.journal.count("failed");
    Ok(nothing())
}

async fn outputs(
    State(shared): State<Shared>,
    Path(lease): Path<String>,
    request: Request,
) -> Handled {
    let app = shared.app();
    let (leased, body) = leased(&app, &lease, request).await?;
    // Whoever hangs up does not stop half of it.
    let builds = app.builds.clone();
    let accept = tokio::spawn(async move { builds.accept(&leased, body).await });
    let accepted = accept.await.map_err(|_panic| {
        let text = "the service could not look at the outputs";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    let verdict = accepted.map_err(|error| refusal(&app, error))?;
    app.journal.count("accepted");
    if !verdict.conflicts.is_empty() {
        app.journal.count("conflicts");
    }
    Ok(answer::json(&verdict))
}

#[derive(Deserialize)]
struct Choice {
    state: Option<String>,
    recipe: Option<String>,
    limit: Option<u32>,
}

async fn builds(State(shared): State<Shared>, choice: Asked<Choice>) -> Handled {
    let choice = asked(choice)?;
    let app = shared.app();
    let limit = choice.limit.unwrap_or(50).min(LISTED);
    let found = match &choice.recipe {
        Some(recipe) if !is_word(recipe) => Vec::new(),
        Some(recipe) => board::of_recipe(app.database(), recipe)
            .await?
            .into_iter()
            .collect(),
        None => {
            let state = choice.state.as_deref().unwrap_or("queued");
            match is_word(state) {
                true => board::builds(app.database(), state, limit).await?,
                false => Vec::new(),
            }
        }
    };
    let overview = board::overview(app.database()).await?;
    Ok(answer::json(
        &json!({ "overview": overview, "builds": found }),
    ))
}

async fn build(State(shared): State<Shared>, Path(id): Path<String>) -> Handled {
    let app = shared.app();
    let id = id.parse().map_err(|_no_number| Refusal::absent())?;
    let build = board::by_id(app.database(), id).await?;
    let build = build.ok_or_else(Refusal::absent)?;
    let tries = board::tries(app.database(), id).await?;
    let made = board::made(app.database(), &build.recipe).await?;
    let told = json!({ "build": build, "tries": tries, "outputs": made });
    Ok(answer::json(&told))
}

async fn workers(State(shared): State<Shared>) -> Handled {
    let workers = board::workers(shared.app().database(), LATELY).await?;
    Ok(answer::json(&json!({ "workers": workers })))
}

fn refusal(app: &Arc<App>, error: AcceptError) -> Refusal {
    let said = error.said();
    match error {
        AcceptError::Receive(error) if error.status().is_client_error() => {
            Refusal::new(error.status(), said)
        }
        AcceptError::Verify(super::builds::VerifyError::Refused(_)) => {
            app.journal.count("unverified");
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, said)
        }
        AcceptError::Lost => lost(),
        AcceptError::Database(error) => Refusal::failure(&error),
        _ => {
            console::line(&format!("warning: outputs could not be taken: {said}"));
            let text =
                "the service cannot take outputs now; its operator finds the reason in its output";
            Refusal::busy(text).again(10)
        }
    }
}
