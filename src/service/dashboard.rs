//! The dashboard: requests of browsers, answered with [`pages`].
//!
//! Nothing here changes anything: a lock file that a visitor shows is looked at
//! and forgotten.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart, Path, Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::routing::get;
use serde::Deserialize;

use super::answer::Refusal;
use super::badge::{self, Shows};
use super::build_pages;
use super::builds::board;
use super::coverage;
use super::demand;
use super::intake::{Intake, Kind};
use super::live;
use super::lock_pages::{self, Seen};
use super::pages::{self, Place};
use super::prebuilt::{self, Package, Row, Shelf};
use super::vouched;
use super::web::{App, Asked, Shared, asked};
use crate::console;
use crate::markup::{self, Html};

/// Rows of a list.
const LISTED: u32 = 100;
/// Rows of the overview's list.
const TOP: u32 = 20;

/// Routes of the dashboard.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/", get(overview))
        .route("/wants", get(wants))
        .route("/wants/{hash}", get(want))
        .route("/builds", get(builds))
        .route("/builds/{id}", get(build))
        .route("/builds/{id}/events", get(live::events))
        .route("/live.js", get(script))
        .route("/workers", get(workers))
        .route("/upload", get(form).post(upload))
        .route(pages::STYLE, get(style))
        .route(pages::ICON, get(icon))
        .route("/badge/{owner}/{file}", get(badge))
}

/// A page, or a page that says why there is none.
struct Shown(Result<Page, Refusal>);

struct Page {
    policy: &'static str,
    title: String,
    place: Place,
    body: Html,
}

impl Page {
    fn new(title: impl Into<String>, place: Place, body: Html) -> Self {
        let title = title.into();
        Self {
            policy: pages::POLICY,
            title,
            place,
            body,
        }
    }
}

impl axum::response::IntoResponse for Shown {
    fn into_response(self) -> Response<Body> {
        let (status, page) = match self.0 {
            Ok(page) => (StatusCode::OK, page),
            Err(refusal) => {
                let mut body = Html::default();
                body.paragraph(refusal.detail());
                let title = refusal.status().canonical_reason().unwrap_or("Error");
                (refusal.status(), Page::new(title, Place::Elsewhere, body))
            }
        };
        let text = pages::page(&page.title, page.place, &page.body);
        let mut response = answer(text, "text/html; charset=utf-8", "no-store");
        *response.status_mut() = status;
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_SECURITY_POLICY, page.policy),
            (REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("x-frame-options"), "DENY"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

fn answer(text: impl Into<Body>, kind: &'static str, kept: &'static str) -> Response<Body> {
    let mut response = Response::new(text.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
    response
}

async fn style() -> Response<Body> {
    answer(markup::STYLE, "text/css", "public, max-age=3600")
}

async fn script() -> Response<Body> {
    answer(live::SCRIPT, "text/javascript", "public, max-age=3600")
}

async fn icon() -> Response<Body> {
    answer(markup::ICON, "image/svg+xml", "public, max-age=86400")
}

#[derive(Deserialize)]
struct Show {
    show: Option<String>,
}

/// A project's badge: one that says `unknown` where there is none, since it is
/// shown within others' pages.
async fn badge(
    State(shared): State<Shared>,
    Path((owner, file)): Path<(String, String)>,
    show: Asked<Show>,
) -> Result<Response<Body>, Refusal> {
    let (owner, project) = badge::names(&owner, &file).ok_or_else(Refusal::absent)?;
    let shows = Shows::named(asked(show)?.show.as_deref()).ok_or_else(Refusal::absent)?;
    let app = shared.app();
    let share = match badge::wants(app.database(), owner, project).await? {
        None => None,
        Some(wants) => Some(match shows {
            Shows::Shared => badge::shared(app.database(), &wants).await?,
            Shows::Prebuilt => {
                let packages = prebuilt::packages(app.database(), &wants).await?;
                badge::prebuilt(&looked_at(&app, packages).await?.2)
            }
        }),
    };
    let text = badge::picture(share, shows);
    let mut response = answer(text, "image/svg+xml", "public, max-age=300");
    if share.is_none() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let policy = HeaderValue::from_static("default-src 'none'");
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

async fn overview(State(shared): State<Shared>) -> Shown {
    let app = shared.app();
    let shown = async {
        let totals = demand::totals(app.database()).await?;
        let days = coverage::days(app.database(), &totals.days).await?;
        let trees = demand::top(app.database(), Kind::Tree, TOP).await?;
        let builds = board::overview(app.database()).await?;
        let body = pages::overview(&totals, &days, &builds, &trees);
        Ok(Page::new("What was saved", Place::Overview, body))
    };
    Shown(shown.await)
}

#[derive(Deserialize)]
struct Choice {
    kind: Option<String>,
    package: Option<String>,
}

async fn wants(State(shared): State<Shared>, Query(choice): Query<Choice>) -> Shown {
    let app = shared.app();
    let package = choice.package.filter(|name| !name.is_empty());
    let shown = async {
        if let Some(name) = &package {
            let found = demand::of_package(app.database(), name, LISTED).await?;
            let body = pages::wants(&found, Some(name));
            return Ok(Page::new("A package", Place::Elsewhere, body));
        }
        let (kind, place, title) = match choice.kind.as_deref() {
            Some("recipe") => (Kind::Recipe, Place::Recipes, "Wanted recipes"),
            _ => (Kind::Tree, Place::Trees, "Wanted dependency trees"),
        };
        let found = demand::top(app.database(), kind, LISTED).await?;
        Ok(Page::new(title, place, pages::wants(&found, None)))
    };
    Shown(shown.await)
}

async fn want(State(shared): State<Shared>, Path(hash): Path<String>) -> Shown {
    let app = shared.app();
    let shown = async {
        let detail = demand::detail(app.database(), &hash).await?;
        let detail = detail.ok_or_else(Refusal::absent)?;
        let title = format!("{} {}", detail.wanted.name, detail.wanted.version);
        let build = board::of_recipe(app.database(), &hash).await?;
        let made = board::made(app.database(), &hash).await?;
        let vouched = match made.is_empty() {
            true => Html::default(),
            false => vouched(&app, &hash).await?,
        };
        let plans = board::plans(app.database(), &hash).await?;
        let body = pages::want(&detail, build.as_ref(), &made, &vouched, &plans);
        Ok(Page::new(title.trim(), Place::Elsewhere, body))
    };
    Shown(shown.await)
}

/// Who vouches for what is published of a recipe.
async fn vouched(app: &App, recipe: &str) -> Result<Html, Refusal> {
    let published = vouched::published(app.database(), recipe).await?;
    let publishing = Arc::clone(&app.publishing);
    let looked = app.look(move || vouched::look(&publishing, &published));
    let looked = looked.await.and_then(|looked| match looked {
        Ok(looked) => Some(looked),
        Err(error) => {
            let said = console::chain(&error);
            console::line(&format!(
                "warning: what is published cannot be read: {said}"
            ));
            None
        }
    });
    let key = app.publishing.key.as_ref().map(|key| key.public());
    Ok(build_pages::vouched(key.as_ref(), looked.as_deref()))
}

async fn builds(State(shared): State<Shared>) -> Shown {
    let app = shared.app();
    let shown = async {
        let list = async |state| board::builds(app.database(), state, TOP).await;
        let lists = build_pages::Lists {
            overview: board::overview(app.database()).await?,
            leased: list("leased").await?,
            queued: list("queued").await?,
            built: list("built").await?,
            resting: list("resting").await?,
        };
        let body = build_pages::builds(&lists);
        Ok(Page::new("Builds", Place::Builds, body))
    };
    Shown(shown.await)
}

async fn build(State(shared): State<Shared>, Path(id): Path<String>) -> Shown {
    let app = shared.app();
    let shown = async {
        let id = id.parse().map_err(|_no_number| Refusal::absent())?;
        let build = board::by_id(app.database(), id).await?;
        let build = build.ok_or_else(Refusal::absent)?;
        let tries = board::tries(app.database(), id).await?;
        let made = board::made(app.database(), &build.recipe).await?;
        let title = format!("Build of {} {}", build.name, build.version);
        let body = build_pages::build(&build, &tries, &made);
        Ok(Page {
            policy: pages::LIVE_POLICY,
            ..Page::new(title, Place::Elsewhere, body)
        })
    };
    Shown(shown.await)
}

async fn workers(State(shared): State<Shared>) -> Shown {
    let app = shared.app();
    let shown = async {
        let workers = board::workers(app.database(), 86_400).await?;
        let body = build_pages::workers(&workers);
        Ok(Page::new("Workers", Place::Workers, body))
    };
    Shown(shown.await)
}

async fn form() -> Shown {
    let title = "What is prebuilt of your lock file";
    Shown(Ok(Page::new(title, Place::Upload, lock_pages::form())))
}

async fn upload(State(shared): State<Shared>, request: Request<Body>) -> Shown {
    let app = shared.app();
    let shown = async {
        let (head, body) = request.into_parts();
        let mut held = app.receive(body).await?;
        let bytes = std::mem::take(&mut held.bytes);
        let request = Request::from_parts(head, Body::from(bytes));
        let text = lock(request).await?;
        let read = app.read(move || Intake::of_lock(&text, None)).await?;
        let hashes: Vec<&str> = read.wants.iter().map(|want| &*want.hash).collect();
        let known = demand::known(app.database(), &hashes).await?;
        let packages: Vec<Package> = read.wants.iter().map(Package::from).collect();
        let (shelf, packages, rows) = looked_at(&app, packages).await?;
        let is_cut = shelf.is_cut;
        let gain = app.look(move || shelf.gain(&packages)).await.flatten();
        let body = lock_pages::looked_at(&Seen {
            intake: &read,
            rows: &rows,
            known: &known,
            gain: gain.as_ref(),
            is_cut,
        });
        Ok(Page::new("Your lock file", Place::Upload, body))
    };
    Shown(shown.await)
}

/// What is published of some packages, the packages, and what of each is prebuilt.
async fn looked_at(
    app: &App,
    packages: Vec<Package>,
) -> Result<(Arc<Shelf>, Arc<Vec<Package>>, Vec<Row>), Refusal> {
    let shelf = prebuilt::shelf(app.database(), &packages).await?;
    let (shelf, packages) = (Arc::new(shelf), Arc::new(packages));
    let (of, all) = (Arc::clone(&shelf), Arc::clone(&packages));
    let rows = app.look(move || of.rows(&all)).await;
    let too_many = || Refusal::busy("too many lock files are looked at").again(5);
    Ok((shelf, packages, rows.ok_or_else(too_many)?))
}

/// The file of the form (RFC 7578).
async fn lock(request: Request<Body>) -> Result<Vec<u8>, Refusal> {
    let wrong = || Refusal::new(StatusCode::BAD_REQUEST, "the form has no file named `lock`");
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|_not_a_form| wrong())?;
    while let Ok(Some(field)) = form.next_field().await {
        if field.name() == Some("lock") {
            let bytes = field.bytes().await.map_err(|_broken| wrong())?;
            return Ok(bytes.to_vec());
        }
    }
    Err(wrong())
}
