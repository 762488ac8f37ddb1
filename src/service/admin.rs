//! What administrators ask: each of it needs a token with the scope `admin`, and
//! all that changes something is noted with who did it.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::access::{self, Scope};
use super::answer::{self, Handled, Refusal};
use super::builds::administer::Changed;
use super::builds::toolchains::Toolchain;
use super::web::{App, Asked, LISTED, Shared, asked};
use crate::recipe::Tools;

/// Characters of what a program says of itself.
const SAID: usize = 2_000;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/builds/{id}/retry", post(retry))
        .route("/v1/builds/{id}/cancel", post(cancel))
        .route("/v1/toolchains", post(toolchain))
        .route("/v1/actions", get(actions))
}

/// Who it is, as the list of actions names them.
async fn administrator(app: &App, headers: &HeaderMap) -> Result<String, Refusal> {
    let holder = app.holder(headers).await?.ok_or_else(|| {
        let text = "this is for who shows a token; `quickbuild service token add` makes one";
        Refusal::new(StatusCode::UNAUTHORIZED, text)
    })?;
    if !holder.may(Scope::Admin) {
        let text = "this token is not for looking after the service";
        return Err(Refusal::new(StatusCode::FORBIDDEN, text));
    }
    Ok(format!("token {}", holder.name))
}

/// The build that somebody is to change, and who it is.
async fn chosen(app: &App, id: &str, headers: &HeaderMap) -> Result<(i64, String), Refusal> {
    let actor = administrator(app, headers).await?;
    let id = id.parse().map_err(|_no_number| Refusal::absent())?;
    Ok((id, actor))
}

async fn retry(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Handled {
    let app = shared.app();
    let (id, actor) = chosen(&app, &id, &headers).await?;
    told(app.builds.retry(id, &actor).await?)
}

async fn cancel(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Handled {
    let app = shared.app();
    let (id, actor) = chosen(&app, &id, &headers).await?;
    told(app.builds.cancel(id, &actor).await?)
}

fn told(changed: Changed) -> Handled {
    match changed {
        Changed::Done => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        Changed::Absent => Err(Refusal::absent()),
        Changed::Not(state) => {
            let text = format!("the build is `{state}`, so there is nothing to do");
            Err(Refusal::new(StatusCode::CONFLICT, text))
        }
    }
}

/// What the programs of a toolchain print.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Named {
    /// `rustc -vV`
    rustc: String,
    /// `cargo -V`
    cargo: String,
    /// The layout of its build directories.
    #[serde(default = "legacy")]
    layout: String,
}

fn legacy() -> String {
    "legacy".to_owned()
}

async fn toolchain(State(shared): State<Shared>, request: Request) -> Handled {
    let app = shared.app();
    let (head, body) = request.into_parts();
    let actor = administrator(&app, &head.headers).await?;
    let named: Named = super::work::read(&app, body).await?;
    let said = [&named.rustc, &named.cargo, &named.layout];
    let is_short = said.iter().all(|text| text.len() <= SAID);
    let toolchain = Toolchain::new(Tools {
        rustc: format!("{}\n", named.rustc.trim_end()),
        cargo: named.cargo.trim().to_owned(),
        layout: named.layout,
    });
    let toolchain = toolchain.filter(|_| is_short).ok_or_else(|| {
        let text =
            "this is no release: `rustc` is what `rustc -vV` prints, `cargo` what `cargo -V`";
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text)
    })?;
    let named = app.builds.name_toolchain(toolchain, &actor).await?;
    let previous = Some(named.previous).filter(|name| !name.is_empty());
    let told = json!({ "builder": named.builder, "previous": previous });
    Ok(answer::json(&told))
}

#[derive(Deserialize)]
struct Choice {
    limit: Option<u32>,
}

async fn actions(
    State(shared): State<Shared>,
    headers: HeaderMap,
    choice: Asked<Choice>,
) -> Handled {
    let app = shared.app();
    let _ = administrator(&app, &headers).await?;
    let limit = asked(choice)?.limit.unwrap_or(50).min(LISTED);
    let actions = access::actions(app.database(), limit).await?;
    Ok(answer::json(&json!({ "actions": actions })))
}
